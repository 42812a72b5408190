"""Gradient accumulation, averaged weights, bfloat16 and compiled networks: what they do, and exact resume with each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import ood_lab
from ood_lab.config import RequestError, prepare
from ood_lab.method.base import Method
from ood_lab.task.averaged import RISE, AveragedWeights
from tests.cases import each

SMALL = [
    "method=ce", "backbone.width=4", "trainer.max_epochs=2", "trainer.threads=1", "protocol.far=[photos]",
    "protocol.near=[]", "scorer=[msp]", "figure=[]", "trainer.checkpoint_minutes=0.000001",
    "trainer.log_every_n_steps=1",
]  # fmt: skip
OPTIONS = {
    "accumulate": ["trainer.accumulate=4"],
    "ema": ["trainer.ema=0.9"],
    "compile": ["trainer.compile=true"],
    "bf16": ["trainer.precision=bf16-mixed"],
    "all": ["trainer.accumulate=2", "trainer.ema=0.9", "trainer.precision=bf16-mixed"],
}


class Stopped(Exception):  # noqa: N818
    """The power went."""


def run(folder: Path, *more: str) -> Path:
    return ood_lab.run([*SMALL, *more, f"paths.output={folder}"]).run_dir


def graphs_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile without code generation, which takes a minute: the graphs are the same."""
    usual = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **_: usual(self, backend="aot_eager"))


def outcome(folder: Path) -> tuple[dict[str, bytes], list[dict[str, Any]], list[float]]:
    weights = load_file(folder / "checkpoints" / "final.safetensors")
    curves = [json.loads(line) for line in (folder / "curves.jsonl").read_text().splitlines()]
    rows = [json.loads(line)["value"] for line in (folder / "results.jsonl").read_text().splitlines()[:8]]
    return {name: value.numpy().tobytes() for name, value in weights.items()}, curves, rows


@each("name", list(OPTIONS))
def test_a_run_that_was_stopped_ends_like_an_undisturbed_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs_only(monkeypatch)
    more = OPTIONS[name]
    undisturbed = run(tmp_path / name / "undisturbed", *more)
    taken = 0
    usual = Method.training_step

    def training_step(self: Method, batch: Any, batch_idx: int) -> Any:
        nonlocal taken
        taken += 1
        if taken == 15:  # within the second epoch of 9 batches, and within a group of batches
            raise Stopped
        return usual(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Method, "training_step", training_step)
        with pytest.raises(Stopped):
            run(tmp_path / name / "stopped", *more)
    stopped = run(tmp_path / name / "stopped", *more)
    for ours, theirs in zip(outcome(stopped), outcome(undisturbed), strict=True):
        assert ours == theirs


def test_accumulated_batches_make_one_step(tmp_path: Path) -> None:
    folder = run(tmp_path, "trainer.accumulate=4")
    curves = [json.loads(line) for line in (folder / "curves.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in curves if "loss/total" in row]
    assert steps == list(range(1, 7))  # 9 batches an epoch: after the 4th, the 8th and the last
    rates = [row["lr"] for row in curves if "lr" in row]
    assert rates[-1] < 0.1 * max(rates), "the schedule ends with the run"


def test_the_gradient_of_accumulated_batches_is_that_of_all_their_images() -> None:
    """With group normalisation a batch of 8 and two of 4 give the same step."""
    import lightning as L

    class Net(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = torch.nn.Linear(5, 3)

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.5)

    data = torch.utils.data.TensorDataset(torch.randn(16, 5), torch.arange(16) % 3)
    found = []
    for size, together in ((8, 1), (4, 2)):
        net = Net()
        loader = torch.utils.data.DataLoader(data, size)
        options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
        L.Trainer(max_epochs=1, accumulate_grad_batches=together, enable_model_summary=False, **options).fit(
            net, loader
        )
        found.append(net.layer.weight.detach())
    torch.testing.assert_close(*found)


def test_the_average_is_that_of_a_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []
    usual = AveragedWeights.on_train_batch_end

    def on_train_batch_end(self: AveragedWeights, trainer: Any, module: Any, *others: Any) -> None:
        seen.append(module.backbone.fc.weight.detach().double().numpy().copy())
        usual(self, trainer, module, *others)

    first: list[np.ndarray] = []
    begun = AveragedWeights.on_train_start

    def on_train_start(self: AveragedWeights, trainer: Any, module: Any) -> None:
        first.append(module.backbone.fc.weight.detach().double().numpy().copy())
        begun(self, trainer, module)

    monkeypatch.setattr(AveragedWeights, "on_train_batch_end", on_train_batch_end)
    monkeypatch.setattr(AveragedWeights, "on_train_start", on_train_start)
    folder = run(tmp_path, "trainer.ema=0.8")
    average = first[0]
    for step, weight in enumerate(seen, 1):
        decay = min(0.8, (1 + step) / (RISE + step))
        average = decay * average + (1 - decay) * weight
    final = load_file(folder / "checkpoints" / "final.safetensors")["backbone.fc.weight"].double().numpy()
    np.testing.assert_allclose(final, average, rtol=1e-4, atol=1e-6)
    assert len(seen) == 18
    assert not np.allclose(final, seen[-1], rtol=1e-3)


def test_training_is_the_same_with_averages_beside_it(tmp_path: Path) -> None:
    curves = [outcome(run(tmp_path / str(i), *more))[1] for i, more in enumerate(([], ["trainer.ema=0.9"]))]
    assert [row["loss/total"] for row in curves[0] if "loss/total" in row] == [
        row["loss/total"] for row in curves[1] if "loss/total" in row
    ]


@each(
    ("more", "words"),
    [
        (["trainer.ema=0.9", "trainer.select=best_val_accuracy"], "choose one"),
        (["trainer.ema=1"], "expected a number between 0 and 1"),
        (["trainer.accumulate=0"], "expected a whole number above 0"),
        (["method=gan", "trainer.accumulate=2"], "trains a GAN beside the classifier"),
        (
            ["method=greg", "auxiliary=fractals", "trainer.compile=true"],
            "regularizer.gradient differentiates gradients",
        ),
    ],
)
def test_options_that_exclude_each_other_are_refused(more: list[str], words: str) -> None:
    with pytest.raises(RequestError) as error:
        prepare(more)
    assert words in str(error.value)


def test_they_are_part_of_the_identity_where_they_are_used() -> None:
    plain = prepare(["method=ce"]).run_id
    assert prepare(["method=ce", "trainer.accumulate=1", "trainer.compile=true"]).run_id == plain
    ids = {name: prepare(["method=ce", *more]).run_id for name, more in OPTIONS.items()}
    assert ids.pop("compile") == plain
    assert len({plain, *ids.values()}) == 5


def test_a_compiled_network_trains_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs_only(monkeypatch)
    plain, compiled = run(tmp_path / "plain"), run(tmp_path / "compiled", "trainer.compile=true")
    theirs = load_file(plain / "checkpoints" / "final.safetensors")
    for name, value in load_file(compiled / "checkpoints" / "final.safetensors").items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-4, msg=name)

"""What a step makes of the auxiliary images that it is served: candidates, choices of an epoch, batch statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ood_lab.config import prepare
from ood_lab.method.base import Method
from ood_lab.runs.claim import claim
from ood_lab.runs.run_folder import RunFolder
from ood_lab.selector.base import EpochSelector
from ood_lab.selector.random import Random
from ood_lab.task.build import build_data, build_method
from ood_lab.task.train import fit
from ood_lab.training.datamodule import DataModule
from ood_lab.training.train_loader import TrainLoader
from ood_lab.types import BackboneOutput
from tests.cases import each

FRACTALS = ["auxiliary=fractals", "auxiliary.count=40", "auxiliary.native_side=16", "augmentation=crop_flip"]
SMALL = ["backbone.width=4", "init=random", "trainer.max_epochs=2", "trainer.threads=1", "trainer.batch_size=300"]

RANDOM = ("method=energy", "selector=random")
TAKING = ("method=energy", "selector.candidates=30", "trainer.auxiliary_batch_size=8")


def data(*words: str) -> DataModule:
    return build_data(prepare([*SMALL, *FRACTALS, *words]), views=1)


def trained(folder: Path, *words: str) -> dict[str, Tensor]:
    experiment = prepare([*SMALL, *FRACTALS, *words, f"paths.output={folder}"])
    fit(claim(experiment))
    return load_file(RunFolder(experiment.run_dir).weights)


@each(("candidates", "served"), [("30", 30), ("9", 9), ("null", 10)])
def test_a_step_is_served_the_candidates_at_least_as_many_as_it_takes(candidates: str, served: int) -> None:
    """By default 40 images x 300 / 1,197 = 10, each once an epoch; nine are taken."""
    made = data(
        "method=energy", "selector=random", f"selector.candidates={candidates}", "trainer.auxiliary_batch_size=9"
    )
    assert made.auxiliary_size == served
    batch = made.train_dataloader().batch(0, 0)
    assert batch.auxiliary is not None
    assert len(batch.auxiliary) == made.auxiliary_size


def test_without_a_selector_a_step_is_served_what_it_takes() -> None:
    assert data("method=energy", "trainer.auxiliary_batch_size=9").auxiliary_size == 9


def test_each_image_is_a_candidate_once_an_epoch_as_far_as_steps_are_whole() -> None:
    made = data(*RANDOM, "trainer.auxiliary_batch_size=3", "trainer.batch_size=100")
    loader = made.train_dataloader()
    rows = torch.cat([loader._auxiliary_rows(0, step) for step in range(len(loader))])
    assert len(rows) == 33  # eleven steps of 40 x 100 / 1,197
    assert rows.bincount(minlength=40).max() == 1


def spied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images in each pass that trains the network."""
    seen: list[int] = []
    own = Method._forward_pass

    def forward(self: Method, images: Tensor, auxiliary: Tensor | None, running: Any) -> BackboneOutput:
        seen.append(0 if auxiliary is None else len(auxiliary))
        return own(self, images, auxiliary, running)

    monkeypatch.setattr(Method, "_forward_pass", forward)
    return seen


@each("selector", ["random", "greedy", "energy_kmeans"])
def test_of_the_candidates_as_many_are_trained_on_as_are_taken(
    selector: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = spied(monkeypatch)
    trained(
        tmp_path, "method=energy", f"selector={selector}", "selector.candidates=30", "trainer.auxiliary_batch_size=8"
    )
    assert seen == [8] * 6


def test_passes_over_candidates_leave_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network trained on random ones is the same whether or not it looked at the candidates first."""
    plain = trained(tmp_path / "plain", *TAKING, "selector=random")
    monkeypatch.setattr(Random, "reads", ("features", "logits"))
    looked = trained(tmp_path / "looked", *TAKING, "selector=random")
    assert plain.keys() == looked.keys()
    assert all(torch.equal(plain[name], looked[name]) for name in plain)


# Choices of an epoch.

POEM = ("method=poem", "selector.pool=30", "selector.take=6", "selector.queue=2", "trainer.auxiliary_batch_size=6")


def test_an_epoch_serves_its_chosen_images_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[set[int]] = []
    served: dict[int, set[int]] = {}
    begin = EpochSelector.begin

    def spy(self: EpochSelector, *args: Any) -> None:
        begin(self, *args)
        chosen.append({*self.current().tolist()})

    own = TrainLoader._auxiliary_rows

    def rows(self: TrainLoader, epoch: int, step: int) -> Tensor:
        found = own(self, epoch, step)
        served.setdefault(epoch, set()).update(found.tolist())
        return found

    monkeypatch.setattr(EpochSelector, "begin", spy)
    monkeypatch.setattr(TrainLoader, "_auxiliary_rows", rows)
    trained(tmp_path, *POEM, "trainer.max_epochs=3")
    assert len(chosen) == 3
    assert [served[epoch] for epoch in range(3)] == chosen
    assert all(len(rows) == 6 for rows in chosen)


def test_the_choice_is_no_part_of_the_final_weights(tmp_path: Path) -> None:
    assert not [name for name in trained(tmp_path, *POEM) if "selector" in name]


def test_a_run_resumed_within_an_epoch_goes_on_with_what_was_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(tmp_path / "whole", *POEM, "trainer.max_epochs=3")

    class KilledError(Exception):
        pass

    steps = {"left": 6}
    own = Method.training_step

    def dying(self: Method, *args: Any) -> Any:
        steps["left"] -= 1
        if steps["left"] == 0:
            raise KilledError
        return own(self, *args)

    killed = [*POEM, "trainer.max_epochs=3", "trainer.checkpoint_minutes=0.00001"]
    with monkeypatch.context() as patched:
        patched.setattr(Method, "training_step", dying)
        with pytest.raises(KilledError):
            trained(tmp_path / "killed", *killed)
    resumed = trained(tmp_path / "killed", *killed)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


# Batch statistics.


def test_outliers_with_statistics_of_their_own_do_not_move_the_id_rows() -> None:
    words = ["method=mixoe", "perturbation=null", "outlier_loss=outlier_exposure"]
    given = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found: dict[str, list[Tensor]] = {}
    for statistics in ("own", "joint"):
        method = build_method(prepare([*SMALL, *FRACTALS, *words, f"method.outlier_statistics={statistics}"]))
        passes = [method._forward_pass(given[:4], factor * given[4:], {}).logits for factor in (1, 5)]
        found[statistics] = [logits[:4].detach() for logits in passes]
    assert torch.equal(*found["own"])
    assert not torch.allclose(*found["joint"])


def test_the_gradient_of_outliers_with_their_own_statistics_is_measured(tmp_path: Path) -> None:
    assert trained(tmp_path, "method=mixoe")["outlier_gradient"] > 0

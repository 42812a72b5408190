"""What a run looks at between epochs: the numbers of its last one are the run's, and looking changes nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import ood_lab
from ood_lab.config import RequestError, prepare
from ood_lab.results.curves import read_curves
from ood_lab.results.store import read_rows
from ood_lab.runs.run_folder import RunFolder
from ood_lab.task import during_training
from ood_lab.task.callbacks import Curves
from ood_lab.task.during_training import BestWeights, Evaluation, final_weights
from tests import small
from tests.cases import each

SMALL = [
    "method=ce", "backbone.width=4", "trainer.max_epochs=3", "trainer.threads=1", "scorer=[msp,knn,energy]",
    "figure=[training_curves]", "protocol.far=[photos]",
]  # fmt: skip


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was evaluated after every epoch, on test sets, too."""
    words = ["trainer.evaluate_every=1", "trainer.evaluate_test=true", "trainer.evaluate_scorers=[msp,knn]"]
    return ood_lab.run([*SMALL, *words, f"paths.output={tmp_path_factory.mktemp('evaluated')}"]).run_dir


def curves(run: Path, mark: str) -> list[dict[str, float]]:
    return [row for row in read_curves(run / "curves.jsonl") if any(mark in key for key in row)]


def test_after_the_last_epoch_they_are_the_numbers_of_the_run(evaluated: Path) -> None:
    last = {key: value for row in curves(evaluated, "/auroc/")[-2:] for key, value in row.items()}
    rows = {(r["scorer"], r["ood_set"], r["metric"]): r["value"] for r in read_rows(evaluated)}
    for detector in ("msp", "knn"):
        for ood_set in ("letters", "photos"):
            assert last[f"test/{detector}/auroc/{ood_set}"] == rows[detector, ood_set, "auroc"]
            assert last[f"test/{detector}/fpr95/{ood_set}"] == rows[detector, ood_set, "fpr95_ood_pos"]
        assert 0 <= last[f"val/{detector}/auroc/uniform_noise"] <= 1
    assert not any("energy" in key for key in last), "it was not asked for"
    assert sorted({row["epoch"] for row in curves(evaluated, "/auroc/")}) == [0, 1, 2]


def test_looking_changes_nothing(evaluated: Path, tmp_path: Path) -> None:
    plain = ood_lab.run([*SMALL, f"paths.output={tmp_path}"]).run_dir
    assert plain.name == evaluated.name, "it is the same run"
    ours, theirs = (load_file(RunFolder(run).weights) for run in (plain, evaluated))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    losses = [[row for row in read_curves(run / "curves.jsonl") if "loss/total" in row] for run in (plain, evaluated)]
    assert losses[0] == losses[1]


def test_the_caption_says_that_test_sets_were_looked_at(evaluated: Path) -> None:
    assert "OOD test sets were scored while training, too" in (evaluated / "report.html").read_text()
    assert (evaluated / "figures/training_curves.png").is_file()


def test_every_second_epoch_those_that_learn_nothing(tmp_path: Path) -> None:
    run = ood_lab.run([*SMALL, "trainer.evaluate_every=2", f"paths.output={tmp_path}"]).run_dir
    rows = curves(run, "/auroc/")
    assert [row["epoch"] for row in rows] == [1, 1]
    assert {key for row in rows for key in row if "auroc" in key} == {
        "val/msp/auroc/uniform_noise", "val/energy/auroc/uniform_noise",
    }  # fmt: skip


# The best epoch.


def after(callback: BestWeights, epoch: int, accuracy: float, value: float) -> None:
    """End an epoch with a validation accuracy, the weights being `value`."""
    module = small.method(small.terms(cider=False))
    with torch.no_grad():
        module.backbone.fc.bias.fill_(value)
    module.last_summary = {"val_accuracy": accuracy}
    callback.on_train_epoch_end(SimpleNamespace(current_epoch=epoch, is_global_zero=True), module)  # type: ignore[arg-type]


def test_the_first_of_the_best_epochs_is_kept() -> None:
    callback = BestWeights()
    for epoch, accuracy in enumerate([0.5, 0.8, 0.7, 0.8]):
        after(callback, epoch, accuracy, float(epoch))
    assert (callback.accuracy, callback.epoch) == (0.8, 1)
    assert (callback.weights["backbone.fc.bias"] == 1).all()


def test_a_resumed_run_goes_on_with_the_best_of_its_checkpoint(tmp_path: Path) -> None:
    first, resumed = BestWeights(), BestWeights()
    after(first, 0, 0.6, 0.0)
    torch.save(first.state_dict(), tmp_path / "state")
    after(first, 1, 0.9, 3.0)  # what was done after the checkpoint, before the run was killed
    resumed.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    after(resumed, 1, 0.5, 1.0)
    assert resumed.epoch == 0
    assert (resumed.weights["backbone.fc.bias"] == 0).all()
    after(resumed, 2, 0.9, 2.0)
    assert (resumed.weights["backbone.fc.bias"] == 2).all()
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_whole_run_ends_with_the_weights_of_its_best_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept: list[dict[str, torch.Tensor]] = []
    on_train_epoch_end = BestWeights.on_train_epoch_end

    def watched(self: BestWeights, trainer: Any, module: Any) -> None:
        on_train_epoch_end(self, trainer, module)
        kept.append({name: value.clone() for name, value in final_weights(module).items()})

    monkeypatch.setattr(BestWeights, "on_train_epoch_end", watched)
    words = [*SMALL, "trainer.select=best_val_accuracy", "method.optimizer.lr=0.3", f"paths.output={tmp_path}"]
    run = ood_lab.run(words).run_dir
    accuracies = [row["epoch/val_accuracy"] for row in curves(run, "val_accuracy")]
    best = accuracies.index(max(accuracies))
    weights = load_file(RunFolder(run).weights)
    assert len(accuracies) == len(kept) == 3
    assert all(torch.equal(weights[name], kept[best][name]) for name in weights)
    assert f"selected the weights of epoch {best + 1}," in capsys.readouterr().out
    assert not list(run.rglob("*best*")), "nothing lies beside the checkpoints"
    assert prepare(words).run_id == run.name != prepare([w for w in words if "select" not in w]).run_id


# Detectors that can't work.


@each("error", [ValueError("no rows"), torch.linalg.LinAlgError("not positive definite")])
def test_a_detector_that_cannot_score_is_said_and_the_others_are_scored(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def score(scorer: Any, features: torch.Tensor) -> torch.Tensor:
        if scorer is broken:
            raise error
        return features

    def of(source: Any, name: str) -> Any:
        return SimpleNamespace(features=lambda _: torch.tensor([1.0, 2.0] if name == "val" else [3.0, 4.0]))

    broken, whole = (SimpleNamespace(learns=False, space="penultimate") for _ in range(2))
    monkeypatch.setattr(during_training, "score", score)
    monkeypatch.setattr(during_training.Snapshot, "of", of)
    rows = Curves(tmp_path / "curves.jsonl", 1)
    trainer: Any = SimpleNamespace(current_epoch=1, global_step=5, is_global_zero=True, loggers=[], datamodule=None)
    module = small.method(small.terms(cider=False)).eval()
    rows.on_train_start(trainer, module)
    detectors: Any = {"broken": broken, "whole": whole}
    evaluation = Evaluation(1, detectors, {"val": ["noise"]}, "32-true", "ood_pos", rows, True)
    evaluation.on_train_epoch_end(trainer, module)
    rows.teardown(trainer, module, "fit")
    (row,) = read_curves(rows.path)
    assert row == {"step": 5, "epoch": 1, "val/whole/auroc/noise": 1.0, "val/whole/fpr95/noise": 0.0}
    assert f"note: broken can't score the network after epoch 2: {error}" in capsys.readouterr().err
    assert module.training, "it goes on being trained"


def test_detectors_that_all_learn_must_be_named(tmp_path: Path) -> None:
    words = [*SMALL, "scorer=[knn]", "trainer.evaluate_every=1", f"paths.output={tmp_path}"]
    with pytest.raises(
        RequestError, match=r"every one of scorer=\[knn\] learns .* name some in trainer.evaluate_scorers"
    ):
        ood_lab.run(words)


@each(
    ("overrides", "expected"),
    [
        (["trainer.evaluate_every=1", "protocol.validation=[]"], "declares no OOD validation set"),
        (["trainer.evaluate_every=1", "protocol.id_val=0"], "declares no ID validation image"),
        (["trainer.evaluate_every=4", "trainer.max_epochs=3"], "nothing would be evaluated in the run's 3 epochs"),
        (["trainer.evaluate_every=1", "trainer.evaluate_scorers=[]"], "names no detector; leave it out"),
        (["trainer.evaluate_test=true"], "nothing is evaluated while training; add trainer.evaluate_every=1"),
        (["trainer.evaluate_every=1", "trainer.evaluate_scorers=[kn]"], "'kn' is none of .* Did you mean 'knn'"),
        (
            ["trainer.evaluate_every=1", "scorer=[odin]", "trainer.evaluate_scorers=[odin]"],
            "a pass over changed images",
        ),
        (["trainer.select=best_val_accuracy", "protocol.id_val=0"], "it would select by test images"),
        (["trainer.select=best"], "expected one of last, best_val_accuracy"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(overrides: list[str], expected: str) -> None:
    with pytest.raises(RequestError, match=expected):
        prepare(["method=ce", *overrides])

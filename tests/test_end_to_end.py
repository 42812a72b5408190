"""The whole way of a small run: train, store, report; again; other detectors; a sweep; wandb without a key."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import ood_lab
from ood_lab.__main__ import main
from ood_lab.config import RequestError
from ood_lab.config.image_sets import image_set_config
from ood_lab.evaluation.extract import load_features
from ood_lab.results.store import read_rows
from ood_lab.scorer import build_scorer
from ood_lab.task import evaluate, features, train
from ood_lab.task.build import build
from ood_lab.types import LinearHead
from tests.cases import each
from tests.trees import plant
from tests.wandb_file import read_back

SMALL = [
    "backbone.width=4",
    "dataset.recipe.epochs.pretrain=1",
    "dataset.recipe.epochs.finetune=2",
    "dataset.recipe.bank_size=20",
    "dataset.recipe.neighbor=5",
    "trainer.threads=1",
    "figure.feature_map.projection=pca",
    "figure.feature_map.points=100",
]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a small default run has been made."""
    folder = tmp_path_factory.mktemp("outputs")
    ood_lab.run([*SMALL, "method=ce", f"paths.output={folder}"])  # here and not in a process of its own
    ood_lab.run([*SMALL, f"paths.output={folder}"])
    return folder


def small(output: Path, *more: str) -> list[str]:
    return [*SMALL, f"paths.output={output}", *more]


def test_a_run_leaves_everything_it_promises(output: Path) -> None:
    results = ood_lab.run(small(output))
    assert results.run_id.startswith("hamos-digits-narrow-s0-")
    names = {p.name for p in results.run_dir.iterdir()}
    wanted = {"config.yaml", "results.jsonl", "curves.jsonl", "curves.csv", "report.html", "DONE", "features", "scores"}
    assert wanted <= names
    assert (results.run_dir / "features" / "synthesized.safetensors").is_file()
    frame = results.frame()
    assert set(frame["method"]) == {"ce", "hamos"}
    ood = frame[frame["scorer"].notna()]
    assert set(ood["scorer"]) == {"msp", "energy", "knn", "mahalanobis"}
    assert set(ood["ood_set"]) == {"letters", "photos", "gaussian_noise"}
    assert set(ood["metric"]) == {"auroc", "aupr_in", "aupr_out", "fpr95_ood_pos", "fpr95_id_pos"}
    assert ood["value"].between(0, 1).all()
    assert (frame["metric"] == "accuracy").sum() == 2


def test_a_finished_run_is_not_computed_again(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "fit", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(evaluate, "Features", lambda *_: pytest.fail("scored again"))
    before = {p: p.stat().st_mtime_ns for p in output.rglob("*") if p.is_file() and not p.name.startswith(".")}
    assert main(small(output)) == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_another_detector_needs_no_network(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "trained_method", lambda *_: pytest.fail("built the network"))
    results = ood_lab.run(
        small(output, "task=evaluate", "method=ce", "scorer=[knn_penultimate]", "scorer.knn_penultimate.k=3")
    )
    frame = results.frame()
    mine = frame[frame["scorer"] == "knn_penultimate"]
    assert len(mine) == 15
    assert all(json.loads(text)["k"] == 3 for text in mine["options"])
    assert set(frame["scorer"].dropna()) >= {"msp", "knn"}, "earlier rows stay"


def test_report_from_the_store(
    output: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluate, "Features", lambda *_: pytest.fail("scored again"))
    page = next(output.glob("hamos-*")) / "report.html"
    page.unlink()
    assert main(small(output, "task=report")) == 0
    assert page.is_file()
    assert "fine-tuned" in capsys.readouterr().out


def test_evaluate_and_report_refuse_a_run_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="not trained yet"):
        ood_lab.run(small(tmp_path, "task=evaluate", "method=ce"))
    with pytest.raises(RequestError, match="no results"):
        ood_lab.run(small(tmp_path, "task=report", "method=ce"))


def test_a_changed_default_is_noticed(output: Path) -> None:
    (run,) = output.glob("hamos-*")
    identity = run / "identity.json"
    text = identity.read_text()
    about = json.loads(text)
    about["leaves"]["outlier_loss.temperature"] = 0.2
    identity.write_text(json.dumps(about))
    try:
        with pytest.raises(RequestError, match=r"outlier_loss\.temperature=0\.2.*says 0\.1"):
            ood_lab.run(small(output))
    finally:
        identity.write_text(text)


def test_a_changed_default_of_a_needed_run_is_noticed(output: Path) -> None:
    (run,) = output.glob("ce-*")
    identity = run / "identity.json"
    text = identity.read_text()
    about = json.loads(text)
    about["leaves"]["method.optimizer.lr"] = 0.5
    identity.write_text(json.dumps(about))
    try:
        with pytest.raises(RequestError, match=r"ce-digits.*method\.optimizer\.lr=0\.5.*says 0\.1"):
            ood_lab.run(small(output))
    finally:
        identity.write_text(text)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    junk = tmp_path / "notes.txt"
    junk.write_text("not weights")
    with pytest.raises(RequestError, match=r"notes\.txt is no checkpoint"):
        ood_lab.run(small(tmp_path, f"init.checkpoint={junk}"))


def test_a_checkpoint_of_another_network_is_named(output: Path) -> None:
    (ce,) = output.glob("ce-*")
    weights = ce / "checkpoints" / "final.safetensors"
    with pytest.raises(RequestError, match="does not fit the chosen backbone"):
        ood_lab.run(small(output, "backbone.width=8", f"init.checkpoint={weights}"))


def test_a_diverging_run_stops_with_step_and_terms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(small(tmp_path, "method=ce", "method.optimizer.lr=1e20"))
    message = capsys.readouterr().err
    assert code == 1
    assert "non-finite loss at step" in message
    assert "total = " in message
    assert not list(tmp_path.glob("*/DONE"))


def test_a_sweep_runs_every_job_and_wandb_works_without_a_key(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ood_lab", "-m", "seed=0,1", "method=ce", "logger=wandb", "logger.group=mine"]
    command += small(tmp_path)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    environment |= {"OMP_NUM_THREADS": "1", "HOME": str(tmp_path), "WANDB_SILENT": "true"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list(tmp_path.glob("ce-*/DONE"))) == 2
    for run in tmp_path.glob("ce-*"):
        (log,) = run.glob("wandb/offline-run-*/*.wandb")
        assert log.stem == f"run-{run.name}", "the wandb run id is the run id"
        media = log.parent / "files" / "media"
        assert len(list(media.glob("images/figure/*.png"))) == 4, "every figure"
        assert list(media.glob("table/results*.json")), "the table"
        read, summary = read_back(log)
        assert (read.run_id, read.run_group, read.job_type) == (run.name, "mine", "ce")
        assert {"dataset=digits", "id_loss=ce", "head=linear"} <= set(read.tags)
        rows = {(r["scorer"], r["ood_set"], r["metric"]): r["value"] for r in read_rows(run)}
        for scorer, ood_set, metric in rows:
            if metric in ("auroc", "fpr95_ood_pos"):
                name = f"{metric.partition('_')[0]}/{ood_set}/{scorer}"
                assert summary[name] == pytest.approx(rows[scorer, ood_set, metric])
        assert summary["accuracy/id"] == pytest.approx(rows[None, None, "accuracy"])


def test_tensorboard_has_the_curves_the_metrics_and_the_pictures(tmp_path: Path) -> None:
    assert main(small(tmp_path, "method=ce", "logger=tensorboard", "scorer=[msp]")) == 0
    (run,) = tmp_path.glob("ce-*")
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    assert {"epoch/ce_mean", "epoch/val_accuracy", "fpr95/photos/msp", "accuracy/id"} <= scalars
    assert "figure/Scores" in events.Tags()["images"]
    row = next(r for r in read_rows(run) if (r["ood_set"], r["metric"]) == ("photos", "fpr95_ood_pos"))
    assert events.Scalars("fpr95/photos/msp")[-1].value == pytest.approx(row["value"])


def test_a_rerun_says_that_nothing_is_made_again(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(small(output)) == 0
    assert "already finished (trained 20" in capsys.readouterr().out


def test_the_report_does_without_features_that_were_removed(output: Path) -> None:
    for path in output.glob("ce-*/features/*"):
        path.unlink()
    assert main(small(output, "task=report")) == 0


def test_a_streamed_set_with_its_other_classes_as_auxiliary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """ImageNet-10 and the other classes of a small tree: decoded for each step, scored against a stored set."""
    ten = image_set_config("imagenet10", str(tmp_path))
    plant(ten, "torchvision", [*ten["include"], *(f"n{i:08d}" for i in range(4))], per_class=8)
    plant(
        image_set_config("textures", str(tmp_path), benchmark="imagenet"), "folder", ["banded", "bubbly"], per_class=8
    )
    sizes = ["dataset.recipe.side=32", "dataset.recipe.resize=36", "backbone.width=8", "backbone=narrow"]
    trainer = ["trainer.max_epochs=2", "trainer.batch_size=16", "trainer.threads=1", "trainer.workers=1"]
    small = ["figure=[training_curves]", "init=random", "augmentation.scale=[0.5,1.0]", "protocol.far=[textures]"]
    places = [f"paths.data={tmp_path}", f"paths.output={tmp_path}/outputs", "trainer.cache_gb=0"]
    experiment = ["method=oe", "dataset=imagenet10", "auxiliary=imagenet990", "protocol=greg", "scorer=[msp]"]
    assert main([*experiment, *sizes, *trainer, *small, *places]) == 0
    shown = capsys.readouterr().out
    assert "10 steps of 16 images" in shown
    assert "normalised by (0 0 0), (1 1 1)" in shown
    (row, *_) = [r for r in ood_lab.run([*experiment, *sizes, *trainer, *small, *places]).rows if r["ood_set"]]
    assert (row["n_id"], row["n_ood"], row["layout"]) == (80, 8, "folder")
    assert not list((tmp_path / "outputs/.images").glob("*.npy"))


@each("scorer", ["knn", "energy", "vim"])
def test_a_run_is_loaded_as_a_detector_that_scores_as_its_evaluation_did(output: Path, scorer: str) -> None:
    run = ood_lab.run(small(output)).run_dir
    detector = ood_lab.load_detector(run, scorer)
    letters = build(image_set_config("letters", "unused")).listing("ood")
    images = [letters.image(i) for i in range(40)]
    scores = detector.score(images)
    assert scores.shape == (40,)
    saved = {split: load_features(next(run.glob(f"features/{split}-*"))) for split in ("train", "val", "letters")}
    weights = load_file(run / "checkpoints/final.safetensors")
    head = LinearHead(weights["backbone.fc.weight"], weights["backbone.fc.bias"])
    reference = build_scorer(scorer)
    views = {split: found.features(reference.space) for split, found in saved.items()}
    reference.fit(views["train"], head=head, val=views["val"])
    expected = reference.score(views["letters"])[:40].double()
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-4)
    accepted = (reference.score(views["val"]).double() <= detector.threshold).double().mean()
    assert accepted == pytest.approx(0.95, abs=0.01)
    assert torch.equal(detector.is_ood(images), scores > detector.threshold)


@each(
    ("options", "message"),
    [
        ({"scorer": "kn"}, "no such scorer. Did you mean 'knn'"),
        ({"id_rate": 1.5}, "id_rate=1.5"),
        ({"kk": 3}, "no option 'kk'"),
    ],
)
def test_a_wrong_detector_is_refused(output: Path, options: dict[str, Any], message: str) -> None:
    run = ood_lab.run(small(output)).run_dir
    with pytest.raises(RequestError, match=message):
        ood_lab.load_detector(run, **options)
    with pytest.raises(RequestError, match="no finished run"):
        ood_lab.load_detector(output / "nowhere")


def test_a_run_of_before_methods_were_rows_of_parts_is_to_be_made_again(output: Path, tmp_path: Path) -> None:
    old = shutil.copytree(ood_lab.run(small(output)).run_dir, tmp_path / "old")
    kept = {key: value for key, value in yaml.safe_load((old / "config.yaml").read_text()).items() if key != "head"}
    (old / "config.yaml").write_text(yaml.safe_dump(kept))
    with pytest.raises(RequestError, match="make the run again with this version"):
        ood_lab.load_detector(old)


def test_a_sweep_over_auxiliary_sets(tmp_path: Path) -> None:
    small = ["init=random", "trainer.max_epochs=1", "scorer=[msp]", "figure=[]", "protocol.far=[]"]
    few = ["auxiliary.count=50", "trainer.auxiliary_batch_size=32"]
    experiment = ["-m", "method=oe", "auxiliary=fractals,uniform_noise", *small, *few, f"paths.output={tmp_path}"]
    assert main([*experiment, "backbone.width=4", "trainer.threads=1"]) == 0
    assert len(list(tmp_path.glob("oe-digits-*/DONE"))) == 2

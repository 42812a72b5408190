"""What a finished run measures besides detection, and what figures ask of it and of runs beside it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

import ood_lab
from ood_lab.config import Experiment, RequestError, prepare
from ood_lab.evaluation.extract import load_features
from ood_lab.method.base import Method
from ood_lab.results.store import Row, read_rows
from ood_lab.runs.claim import claim
from ood_lab.runs.run_folder import RunFolder
from ood_lab.synthesizer.boundary_mixup import BoundaryMixup
from ood_lab.task.build import build_method
from ood_lab.task.features import Features
from ood_lab.task.measures import cost_rows
from ood_lab.task.outliers import redrawn
from ood_lab.task.report import beside, gather
from ood_lab.task.shown import caption, stored
from ood_lab.task.train import fit, load_initial

SMALL = [
    "backbone.width=4",
    "dataset.recipe.epochs.pretrain=1",
    "dataset.recipe.epochs.finetune=1",
    "dataset.recipe.bank_size=20",
    "dataset.recipe.neighbor=5",
    "protocol.near=[letters]",
    "protocol.far=[photos]",
    "scorer=[msp]",
    "figure=[rounds]",
    "trainer.threads=1",
]


def hamos(folder: Path, *more: str) -> list[str]:
    return [*SMALL, f"paths.output={folder}", *more]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    ood_lab.run(hamos(folder, "method=ce", "figure=[]"))  # here and not in a process of its own, which would start anew
    ood_lab.run(hamos(folder))
    return folder


@pytest.fixture
def request_of(output: Path) -> Experiment:
    return prepare(hamos(output))


def measured(run_dir: Path) -> dict[tuple[str, str | None], Row]:
    return {(row["metric"], row["ood_set"]): row for row in read_rows(run_dir) if row["scorer"] is None}


def unit(rows: torch.Tensor) -> list[np.ndarray]:
    return [np.asarray(row) for row in F.normalize(rows.double(), dim=1).numpy()]


def degrees(cosines: list[float]) -> float:
    return math.degrees(math.acos(sum(cosines) / len(cosines)))


def test_angles_are_those_of_loops_over_the_saved_projections(request_of: Experiment) -> None:
    sets = {
        name: load_features(next((request_of.run_dir / "features").glob(f"{name}-*")))
        for name in ("train", "test", "letters", "photos")
    }
    labels = {name: sets[name].tensors["labels"].tolist() for name in ("train", "test")}
    z = {name: unit(found.tensors["projection"]) for name, found in sets.items()}
    sums = {c: sum(row for row, y in zip(z["train"], labels["train"], strict=True) if y == c) for c in range(10)}
    centroids = [np.asarray(total) / np.linalg.norm(total) for total in sums.values()]
    rows = measured(request_of.run_dir)
    for name in ("letters", "photos"):
        expected = degrees([max(float(row @ c) for c in centroids) for row in z[name]])
        found = rows["separation", name]
        assert found["value"] == pytest.approx(expected, abs=1e-4)
        assert (found["unit"], found["space"], found["n_ood"]) == ("degrees", "projection", len(z[name]))
    pairs = [float(a @ b) for i, a in enumerate(centroids) for j, b in enumerate(centroids) if i != j]
    assert rows["dispersion", None]["value"] == pytest.approx(degrees(pairs), abs=1e-4)
    own = [float(row @ centroids[y]) for row, y in zip(z["test"], labels["test"], strict=True)]
    assert rows["compactness", None]["value"] == pytest.approx(degrees(own), abs=1e-4)


def test_a_method_without_a_projector_has_angles_of_its_penultimate_features(output: Path) -> None:
    rows = measured(next(output.glob("ce-*")))
    for key in (("separation", "letters"), ("dispersion", None), ("compactness", None)):
        assert rows[key]["space"] == "penultimate"
    assert ("synthesis_time", None) not in rows


def test_time_memory_and_number_of_outliers_are_stored_once(request_of: Experiment) -> None:
    rows = measured(request_of.run_dir)
    time, memory, points = (rows[name, None] for name in ("synthesis_time", "synthesis_memory", "synthesized"))
    assert (time["unit"], memory["unit"], points["unit"]) == ("s", "MiB", "points")
    assert time["value"] > 0
    assert memory["value"] > 0
    assert points["value"] == len(load_file(RunFolder(request_of.run_dir).outliers)["labels"])
    stored_rows = read_rows(request_of.run_dir)
    assert cost_rows(Features(request_of), {}, stored_rows) == []


def test_outliers_of_a_run_that_lacks_them_are_drawn_again_the_same(request_of: Experiment) -> None:
    path = RunFolder(request_of.run_dir).outliers
    before = path.read_bytes()
    path.unlink()
    assert Features(request_of).synthesized is not None
    assert path.read_bytes() == before


def test_a_bank_is_drawn_from_again_with_other_options(request_of: Experiment) -> None:
    saved = load_file(RunFolder(request_of.run_dir).outliers)
    same = redrawn(request_of, {})
    np.testing.assert_array_equal(same["oodness"], saved["oodness"].numpy())
    other = redrawn(request_of, {"leapfrog_steps": 1})
    assert other["oodness"].shape == same["oodness"].shape
    assert not np.array_equal(other["oodness"], same["oodness"])


def test_figures_get_columns_of_the_outliers_and_a_run_beside(output: Path, request_of: Experiment) -> None:
    run = gather(request_of).runs[-1]
    assert set(run.columns) >= {"round", "oodness", "fate"}
    assert run.outliers is not None
    assert len(run.columns["round"]) == len(run.outliers)
    other = beside(request_of.run_dir, request_of.groups_of_sets)
    assert other.label == request_of.run_id
    assert other.curves
    assert list(other.curves) == list(run.curves)
    assert other.outliers is not None
    np.testing.assert_array_equal(other.outliers, run.outliers)
    assert set(other.features) == {"test", "letters", "photos"}
    classifier = beside(next(output.glob("ce-*")), request_of.groups_of_sets)
    assert classifier.outliers is None


def test_a_set_whose_name_begins_like_another_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    for name, value in (("test-0", 1.0), ("svhn-1", 2.0), ("svhn-crop-2", 3.0)):
        tensors = {"features": torch.full((2, 3), value), "labels": torch.zeros(2, dtype=torch.int64)}
        save_file(tensors, tmp_path / "features" / f"{name}.safetensors")
    assert beside(tmp_path, ["svhn"]).features["svhn"].max() == 2


def test_a_folder_without_features_of_a_test_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    with pytest.raises(RequestError, match=r"no features of a finished run in this folder"):
        beside(tmp_path, ["letters"])


def test_a_run_whose_source_is_a_guess_says_so_below_its_table(tmp_path: Path) -> None:
    experiment = prepare([*SMALL[:-2], "method=ronf", f"paths.output={tmp_path}"])
    assert BoundaryMixup.caveat in caption(experiment, stored(experiment))


# The projector of a first stage.


def with_projector(path: Path, *more: str) -> Experiment:
    return prepare([*SMALL[:-2], "method=cider", "init=csi_contrast", f"init.checkpoint={path}", *more])


def test_a_projector_is_taken_over_whole_or_refused(request_of: Experiment, tmp_path: Path) -> None:
    final = request_of.run_dir / "checkpoints" / "final.safetensors"
    experiment = with_projector(final)
    method = build_method(experiment)
    load_initial(method, experiment)
    assert method.head.projector is not None
    theirs = load_file(final)
    for name, value in method.head.projector.state_dict().items():
        assert torch.equal(value, theirs[f"head.projector.{name}"])
    bare = tmp_path / "bare.safetensors"
    save_file({name: value for name, value in theirs.items() if not name.startswith("head.projector.")}, bare)
    for path, more, said in (
        (bare, [], "has no projector, this method's is"),
        (final, ["head.projection_dim=64"], r"has .*128.*, this method's is .*64"),
        (final, ["method=ce"], "no part of this method uses the projector"),
    ):
        experiment = with_projector(path, *more)
        with pytest.raises(RequestError, match=said):
            load_initial(build_method(experiment), experiment)


def test_an_outlier_term_that_waited_long_says_for_what(
    output: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = prepare(hamos(output, "synthesizer.bank_size=100"))
    for lacking, reason in (
        ([], "(a bank has to be filled first: lower synthesizer.bank_size, or train longer)"),
        ([3, 7], "(the bank needs rows of every class: class 3, 7 had no training image)"),
    ):
        monkeypatch.setattr(Method, "classes_without_rows", lambda _, given=lacking: given)
        fit(claim(experiment))  # the second time it goes on from the end
        assert reason in capsys.readouterr().out

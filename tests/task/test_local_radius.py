"""A finished run's local radii: what a loop in float64 gives, stored once, shown, and made anew with the threshold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import ood_lab
from ood_lab.config import Experiment, RequestError, prepare
from ood_lab.errors import RunError
from ood_lab.results.store import Row, read_rows, read_thresholds
from ood_lab.runs.outstanding import outstanding
from ood_lab.task.features import Features, trained_method
from ood_lab.task.report import gather
from tests.cases import each

SMALL = [
    "method=ce",
    "backbone.width=4",
    "dataset.recipe.epochs.pretrain=1",
    "protocol.near=[letters]",
    "protocol.far=[photos]",
    "scorer=[msp,energy]",
    "figure=[local_radius]",
    "trainer.threads=1",
]


def radii(experiment: Experiment) -> dict[tuple[str, str | None], Row]:
    found = [row for row in read_rows(experiment.run_dir) if row["metric"] == "local_radius@0.95"]
    return {(row["scorer"], row["ood_set"]): row for row in found}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    words = [*SMALL, f"paths.output={tmp_path_factory.mktemp('outputs')}", "local_radius=[energy]"]
    ood_lab.run(words)
    return words


def test_medians_are_those_of_a_loop_over_images(measured: list[str]) -> None:
    experiment = prepare(measured)
    method, features = trained_method(experiment).double().eval(), Features(experiment)
    (limit,) = [row["threshold"] for row in read_thresholds(experiment.run_dir) if row["scorer"] == "energy"]
    for name, ood_set in (("test", None), ("letters", "letters"), ("photos", "photos")):
        radius = []
        for batch in features.loader(name):
            for image in batch.images[::40]:
                x = image.double()[None].requires_grad_()
                score = -method.extract(x)["logits"].logsumexp(1)
                (gradient,) = torch.autograd.grad(score.sum(), x)
                margin = score.item() - limit if ood_set else limit - score.item()
                radius.append(max(margin, 0.0) / float(gradient.norm()))
        drawn = gather(experiment).runs[-1].radii["energy"][name]
        size = experiment.trainer.eval_batch_size
        some = np.concatenate([drawn[i : i + size][::40] for i in range(0, len(drawn), size)])
        np.testing.assert_allclose(some, radius, rtol=1e-3, atol=1e-5)
        row = radii(experiment)["energy", ood_set]
        assert row["value"] == pytest.approx(float(torch.tensor(drawn).median()))
        assert row["n_ood" if ood_set else "n_id"] == len(drawn)


def test_only_the_detectors_asked_for_are_measured_and_nothing_is_left_to_do(measured: list[str]) -> None:
    experiment = prepare(measured)
    assert {scorer for scorer, _ in radii(experiment)} == {"energy"}
    assert not outstanding(experiment)
    assert outstanding(prepare([*measured, "local_radius=[energy,msp]"]))
    assert (experiment.run_dir / "figures" / "local_radius.png").is_file()
    page = (experiment.run_dir / "report.html").read_text()
    assert "local radius" in page
    assert f"{radii(experiment)['energy', 'letters']['value']:.3g}" in page


def test_it_belongs_to_no_identity(measured: list[str]) -> None:
    experiment = prepare(measured)
    assert prepare([*measured, "local_radius=[]"]).run_id == experiment.run_id


def test_another_threshold_asks_for_other_radii_without_another_pass(
    measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*measured, "task=evaluate", "id_rate=0.5"]
    experiment = prepare(words)
    assert outstanding(experiment)
    monkeypatch.setattr("ood_lab.task.measures.gradient_norms", None)
    ood_lab.run(words)
    found = {row["metric"]: row["value"] for row in read_rows(experiment.run_dir) if row["ood_set"] is None}
    assert found["local_radius@0.5"] < found["local_radius@0.95"]


@each(
    ("words", "message"),
    [
        (["local_radius=[knn]"], "(scorer=[msp,energy]); add it to scorer"),
        (["local_radius=[enrgy]"], "Did you mean 'energy'?"),
        (["scorer=[pood]", "local_radius=[pood]"], "detectors of pytorch-ood are not differentiated"),
        (["scorer=[pood]", "local_radius=[pood.KNN]"], "detectors of pytorch-ood are not differentiated"),
        (["scorer=[odin]", "local_radius=[odin]"], "scores changed images; give scorer.odin.epsilon=0"),
        (["scorer=[odin]", "scorer.odin.epsilon=0", "tuning=openood", "local_radius=[odin]"], "no search for it"),
        (["scorer=[knn]", "index=faiss", "local_radius=[knn]"], "use scorer.knn.index=torch"),
        (["local_radius=energy"], "expected a list"),
    ],
)
def test_wrong_requests_are_refused(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError) as refused:
        prepare([*SMALL, f"paths.output={tmp_path}", *words])
    assert message in str(refused.value)


def test_a_request_with_fewer_sets_is_answered_from_what_is_stored(measured: list[str]) -> None:
    assert not outstanding(prepare([*measured, "protocol.near=[]"]))
    assert outstanding(prepare([*measured, "protocol.near=[gaussian_noise]"]))


def test_a_detector_without_a_finite_gradient_is_named_and_its_metrics_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> torch.Tensor:
        raise ValueError("its score has no finite gradient on 3 of 150 images")

    monkeypatch.setattr("ood_lab.task.measures.gradient_norms", fail)
    words = [*SMALL, f"paths.output={tmp_path}", "local_radius=[energy]"]
    with pytest.raises(RunError, match="scorer=energy: local_radius: its score has no finite gradient on 3 of 150"):
        ood_lab.run(words)
    metrics = {(row["scorer"], row["metric"]) for row in read_rows(prepare(words).run_dir)}
    assert {("energy", "auroc"), ("msp", "auroc")} <= metrics


def test_a_needed_run_measures_those_of_its_own_detectors(tmp_path: Path) -> None:
    words = ["method=dos", "init=pretrained", "method.stage=finetune", "auxiliary=letters", "protocol.near=[]"]
    (need,) = prepare(
        [*words, "scorer=[absent_class,energy]", "local_radius=[absent_class,energy]", f"paths.output={tmp_path}"]
    ).prerequisites.values()
    assert list(need.local_radius) == ["energy"]

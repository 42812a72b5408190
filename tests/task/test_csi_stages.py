"""The two stages of CSI as requests: which runs they need, and which halves of them are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from ood_lab.config import RequestError, prepare
from tests.cases import each


@pytest.fixture(autouse=True)
def _places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OOD_LAB_DATA", "no-such-folder")
    monkeypatch.setenv("OOD_LAB_OUTPUT", str(tmp_path / "outputs"))


def test_the_second_stage_needs_the_first_and_that_a_classifier() -> None:
    experiment = prepare(["method=csi"])
    assert experiment.run_id.startswith("csi-")
    (first,) = experiment.prerequisites.values()
    assert first.run_id.startswith("csi_contrast-")
    (classifier,) = first.prerequisites.values()
    assert classifier.run_id.startswith("ce-")
    assert classifier.prerequisites == {}


def test_the_needed_runs_are_those_of_the_plain_commands() -> None:
    (first,) = prepare(["method=csi"]).prerequisites.values()
    assert first.run_id == prepare(["method=csi_contrast"]).run_id
    assert first.prerequisites["init"].run_id == prepare(["method=ce"]).run_id


def test_the_second_stages_own_training_changes_no_needed_run_and_a_network_all() -> None:
    plain = prepare(["method=csi"])
    longer, narrower = prepare(["method=csi", "trainer.max_epochs=3"]), prepare(["method=csi", "backbone.width=8"])
    assert longer.run_id != plain.run_id
    assert longer.prerequisite_ids == plain.prerequisite_ids
    assert narrower.prerequisites["init"].run_id != plain.prerequisites["init"].run_id
    assert (
        narrower.prerequisites["init"].prerequisites["init"].run_id
        != plain.prerequisites["init"].prerequisites["init"].run_id
    )


def test_detectors_of_turned_images_are_asked_of_the_stages_and_not_of_the_classifier() -> None:
    experiment = prepare(["method=csi", "scorer=[csi,msp]"])
    (first,) = experiment.prerequisites.values()
    (classifier,) = first.prerequisites.values()
    assert list(experiment.detectors) == list(first.detectors) == ["csi", "msp"]
    assert list(classifier.detectors) == ["msp"]


@each(
    ("overrides", "said"),
    [
        (["method=csi", "init=random"], "init=random does not give"),
        (["method=csi", "init=pretrained"], "scored by the projector of its first stage, and init=pretrained"),
        (["method=ce", "scorer=[csi]"], "use method=csi"),
        (["method=ce", "scorer=[csi_joint]"], "scorer=csi_joint reads joint, .*; use method=csi$"),
        (["method=csi_contrast", "scorer=[csi,csi_joint]"], "scorer=csi_joint would score what nothing trains"),
        (["method=ce", "head=shifts", "scorer=[csi]"], "method=ce has a projector that nothing trains"),
        (["id_loss=[ce,csi_joint]"], "id_loss.csi_joint reads joint, which head=linear does not give; use head=shifts"),
    ],
)
def test_half_of_csi_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        prepare(overrides)

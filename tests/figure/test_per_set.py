"""AUROC on each OOD set: the sets' order, a line for each run, and only detectors that all runs have."""

from __future__ import annotations

from ood_lab.figure.per_set import PerSet
from ood_lab.results.material import Material
from tests.figure.material import material

FIRST = {"energy": {"letters": 0.6, "photos": 0.9, "noise": 0.8}, "msp": {"letters": 0.5}}
SECOND = {"energy": {"letters": 0.7, "photos": 0.85, "noise": 0.95, "svhn": 0.3}}


def runs(*auroc: dict) -> Material:
    first = material().runs[0]
    named = [first._replace(label=f"run {number}", auroc=found) for number, found in enumerate(auroc)]
    return material()._replace(runs=[first, *named], groups={"letters": "near", "photos": "far", "noise": "far"})


def test_the_first_run_orders_the_sets_from_far_to_near() -> None:
    figure = PerSet(beside=["f"]).draw(runs(FIRST, SECOND))
    assert figure is not None
    (axes,) = figure.axes
    assert axes.get_title() == "energy"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["photos", "noise", "letters"]
    shown = {line.get_label(): line.get_ydata().tolist() for line in axes.lines}
    assert shown == {"run 0": [90, 80, 60], "run 1": [85, 95, 70]}


def test_without_a_detector_of_all_runs_there_is_nothing_to_draw() -> None:
    assert PerSet(beside=["f"]).draw(runs({"knn": {"letters": 0.5}}, SECOND)) is None

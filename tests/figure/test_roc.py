"""ROC curves agree with scikit-learn's and stand for every set."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ood_lab.figure.roc import ROC, auroc, roc_curve
from tests.cases import each
from tests.figure.material import material


@each("tied", [False, True])
def test_the_area_under_the_curve_is_the_auroc(tied: bool) -> None:
    random = np.random.default_rng(1)
    id_scores, ood_scores = random.normal(size=500), random.normal(1, 1, 700)
    if tied:
        id_scores, ood_scores = id_scores.round(), ood_scores.round()
    flagged, caught = roc_curve(id_scores, ood_scores, points=1200)
    labels = np.r_[np.zeros(500), np.ones(700)]
    assert np.trapezoid(caught, flagged) == pytest.approx(roc_auc_score(labels, np.r_[id_scores, ood_scores]), abs=1e-9)


def test_a_line_for_each_set_in_each_panel() -> None:
    figure = ROC(points=50).draw(material())
    assert figure is not None
    assert len(figure.axes) == 4
    for axes in figure.axes:
        assert {"near", "far"} <= {str(line.get_label()).partition(" ")[0] for line in axes.lines}
        assert axes.get_xlabel() == "ID images flagged"
        assert axes.get_ylabel().endswith("OOD images caught")


def test_the_legend_has_the_auroc_in_percent() -> None:
    shown = material()
    figure = ROC(points=50).draw(shown)
    assert figure is not None
    scores = shown.runs[0].scores["msp"]
    expected = roc_auc_score(np.r_[np.zeros(200), np.ones(100)], np.r_[scores["test"], scores["far"]])
    assert f"far {100 * expected:.1f}" in [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


@each("tied", [False, True])
def test_auroc_agrees_with_scikit_learn(tied: bool) -> None:
    random = np.random.default_rng(2)
    ids, oods = random.normal(size=300), random.normal(0.5, 1, 200)
    if tied:
        ids, oods = ids.round(), oods.round()
    assert auroc(ids, oods) == pytest.approx(roc_auc_score(np.r_[np.zeros(300), np.ones(200)], np.r_[ids, oods]))


def test_a_page_has_a_panel_of_its_own_for_each_run_and_detector() -> None:
    shown = material()
    texts = [text for _, text, _ in ROC(points=20).panels(shown)]
    assert texts == [f"ROC curves: {name} on {run.label}" for run in shown.runs for name in ("msp", "knn")]


def test_many_detectors_stand_in_rows_of_six_and_each_run_begins_a_new_one() -> None:
    few = material()
    names = [f"detector {i}" for i in range(8)]
    runs = [run._replace(scores=dict.fromkeys(names, run.scores["msp"])) for run in few.runs]
    shown = ROC(points=20).draw(few._replace(runs=runs))
    assert shown is not None
    grid = shown.axes
    assert len(grid) == 2 * 12
    visible = [axes for axes in grid if axes.get_visible()]
    assert [axes.get_title() for axes in visible] == names * 2
    labels = [few.runs[0].label] * 2 + [few.runs[1].label] * 2
    assert [axes.get_ylabel().splitlines()[0] for axes in grid[::6]] == labels

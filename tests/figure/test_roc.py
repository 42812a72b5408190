"""ROC curves agree with scikit-learn's and stand for every set."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ood_lab.figure.roc import ROC, roc_curve
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
        assert {"near", "far"} <= {line.get_label() for line in axes.lines}


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
    assert [axes.get_ylabel() for axes in grid[::6]] == [few.runs[0].label] * 2 + [few.runs[1].label] * 2

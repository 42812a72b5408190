"""ROC curves agree with scikit-learn's and stand for every set."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ood_lab.figure.roc import ROC, roc_curve
from tests.figure.material import material


@pytest.mark.parametrize("tied", [False, True])
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

"""What a picture's CSV file says: which run and detector each number is of, and bands and bodies, too."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ood_lab.figure.base import values_of
from ood_lab.figure.score_histogram import ScoreHistogram
from tests.figure.material import material


def test_panels_are_told_apart_by_run_and_detector_and_histograms_by_set() -> None:
    figure = ScoreHistogram(bins=10).draw(material())
    assert figure is not None
    rows = values_of(figure)
    names = {f"{run}: {scorer}" for run in ("ce (pretrained)", "hamos (fine-tuned)") for scorer in ("msp", "knn")}
    assert {row["panel"] for row in rows} == names
    assert {row["series"] for row in rows} == {"ID test", "near", "far"}


def test_a_band_is_given_by_its_outline() -> None:
    figure = Figure()
    figure.subplots().fill_between([0, 1, 2], [1, 1, 1], [2, 3, 4], label="_spread")
    rows = [row for row in values_of(figure) if row["series"] == "spread"]
    assert np.max([row["y"] for row in rows]) == 4
    assert np.min([row["y"] for row in rows]) == 1
    assert {row["x"] for row in rows} == {0, 1, 2}

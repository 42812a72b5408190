"""Score histograms show every run, detector and set, as densities."""

from __future__ import annotations

import pytest
from matplotlib.patches import Polygon

from ood_lab.figure.score_histogram import ScoreHistogram
from tests.figure.material import material


def test_a_panel_for_each_run_and_detector_with_all_sets() -> None:
    figure = ScoreHistogram(bins=20).draw(material())
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == ["msp", "knn"] * 2
    assert [axes.get_ylabel() for axes in figure.axes] == ["ce (pretrained)", "", "hamos (fine-tuned)", ""]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ID test", "near", "far"]


def test_the_filled_histogram_is_a_density_of_the_id_scores() -> None:
    figure = ScoreHistogram(bins=20).draw(material())
    assert figure is not None
    bars = figure.axes[0].containers[0]
    assert sum(bar.get_height() * bar.get_width() for bar in bars) == pytest.approx(1)


def test_nothing_to_draw_without_scores() -> None:
    empty = material()
    runs = [run._replace(scores={}) for run in empty.runs]
    assert ScoreHistogram(bins=20).draw(empty._replace(runs=runs)) is None


def test_outliers_are_a_dashed_line_where_a_detector_has_scored_them_and_all_of_them_are_seen() -> None:
    shown = material()
    last = shown.runs[-1]
    points = {**last.scores["knn"], "synthesized": last.scores["knn"]["far"] + 20}
    run = last._replace(scores={**last.scores, "knn": points})
    figure = ScoreHistogram(bins=20).draw(shown._replace(runs=[shown.runs[0], run]))
    assert figure is not None
    assert [text.get_text() for text in figure.legends[0].get_texts()][-1] == "synthesized outliers"
    dashed = [p for axes in figure.axes for p in axes.patches if p.get_linestyle() != "solid"]
    dashed = [p for p in dashed if isinstance(p, Polygon)]
    assert len(dashed) == 1
    assert dashed[0].get_xy()[:, 0].max() >= points["synthesized"].max()

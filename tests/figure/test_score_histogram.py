"""Score histograms show every run, detector and set, as densities."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.patches import Polygon

from ood_lab.figure.base import picture
from ood_lab.figure.score_histogram import ScoreHistogram, bin_edges
from ood_lab.results.material import SYNTHESIZED
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


def test_outliers_are_a_line_of_their_own_where_a_detector_has_scored_them() -> None:
    shown = material()
    last = shown.runs[-1]
    points = {**last.scores["knn"], SYNTHESIZED: last.scores["knn"]["far"] + 5}
    run = last._replace(scores={**last.scores, "knn": points})
    figure = ScoreHistogram(bins=20).draw(shown._replace(runs=[shown.runs[0], run]))
    assert figure is not None
    assert [text.get_text() for text in figure.legends[0].get_texts()][-1] == "synthesized outliers"
    lines = [p for axes in figure.axes for p in axes.patches if isinstance(p, Polygon)]
    marked = [p for p in lines if p.get_label() == "synthesized outliers"]
    assert len(marked) == 1
    assert marked[0].get_xy()[:, 0].max() >= points[SYNTHESIZED].max()


def test_a_set_with_enormous_scores_leaves_the_others_legible_and_is_counted_in_the_last_bin() -> None:
    random = np.random.default_rng(0)
    scores = {"test": random.normal(size=400), "near": random.normal(1, 1, 300), "far": 1e6 + random.normal(size=300)}
    edges = bin_edges(scores, 40)
    low, high = np.percentile(scores["test"], [0.5, 99.5])
    assert edges[-1] <= high + 4 * (high - low)
    assert ((edges >= low) & (edges <= high)).sum() >= 6  # of 40 bins, enough lie where ID images are
    shown = material()
    runs = [run._replace(scores={"msp": scores}) for run in shown.runs]
    figure = ScoreHistogram(bins=40).draw(shown._replace(runs=runs))
    assert figure is not None
    far = next(p for p in figure.axes[0].patches if isinstance(p, Polygon) and p.get_label() == "far")
    heights = far.get_xy()[:, 1]
    assert heights.max() * (edges[1] - edges[0]) == pytest.approx(1)


def test_constant_scores_are_drawn() -> None:
    assert (np.diff(bin_edges({"test": np.zeros(5), "near": np.zeros(3)}, 10)) > 0).all()


def test_infinite_scores_are_counted_in_the_outer_bins() -> None:
    scores = {"test": np.r_[np.arange(20.0), -np.inf], "near": np.r_[np.arange(10.0) + 5, np.inf]}
    edges = bin_edges(scores, 5)
    assert np.isfinite(edges).all()
    assert edges[0] < 1
    assert edges[-1] > 18
    assert (np.diff(bin_edges({"test": np.full(3, np.inf), "near": np.full(2, -np.inf)}, 4)) > 0).all()


def test_names_are_labels_whatever_they_hold() -> None:
    shown = material()
    names = {"near": "$bad_{$", "far": "_under"}
    runs = [
        run._replace(scores={"msp": {names.get(k, k): v for k, v in run.scores["msp"].items()}}) for run in shown.runs
    ]
    odd = shown._replace(runs=runs, groups={"$bad_{$": "near", "_under": "far"})
    figure = ScoreHistogram(bins=5).draw(odd)
    assert figure is not None
    assert len(figure.legends[0].get_texts()) == 3
    assert picture(figure)


def test_heights_are_square_roots_where_a_set_fills_few_bins_and_the_numbers_stay() -> None:
    shown = material()
    spread = np.linspace(0, 1, 400)
    for test, steep in ((spread, False), (np.r_[np.zeros(360), spread[::10]], True)):
        run = shown.runs[0]._replace(scores={"msp": {"test": test, "near": spread}})
        figure = ScoreHistogram(bins=40).draw(shown._replace(runs=[run]))
        assert figure is not None
        (axes,) = (axes for axes in figure.axes if axes.get_visible())
        assert (axes.get_yscale() == "function") is steep
        assert ("square roots" in axes.get_xlabel()) is steep
        assert axes.get_ylim()[0] == 0
        widths = axes.patches[0].get_width()
        assert sum(bar.get_height() for bar in axes.containers[0]) * widths == pytest.approx(1)

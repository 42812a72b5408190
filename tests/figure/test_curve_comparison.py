"""Panels hold a line for each run that logged a value, and what stands beside it is the run's alone."""

from __future__ import annotations

import numpy as np

from ood_lab.figure.base import values_of
from ood_lab.figure.curve_comparison import CurveComparison
from ood_lab.results.material import Material
from tests.cases import each
from tests.figure.material import material

COUNT = 60
LOSS, NORM = ([float(value) for value in np.random.default_rng(seed).normal(size=COUNT)] for seed in (0, 1))


def logged(*keys: str) -> list[dict[str, float]]:
    values = dict(zip(("loss/a", "loss/gradient_norm_id"), (LOSS, NORM), strict=True))
    return [{"step": 10 * i, **{key: values[key][i] for key in keys}} for i in range(COUNT)]


def runs() -> Material:
    """A classifier that the run starts from, a run beside it, and the run itself."""
    first, last = material().runs
    beside = last._replace(label="plain", curves=logged("loss/a", "loss/gradient_norm_id"))
    own = last._replace(label="penalised", curves=logged("loss/a"))
    return material()._replace(runs=[first._replace(curves=logged("loss/a")), beside, own])


def comparison(window: int = 1, *keys: str) -> CurveComparison:
    chosen = list(keys) or ["loss/a", "loss/gradient_norm_id", "loss/b"]
    return CurveComparison(keys=chosen, window=window, beside=["f"])


def test_a_panel_for_each_value_that_was_logged_and_a_line_for_each_run_that_logged_it() -> None:
    figure = comparison().draw(runs())
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == ["a", "gradient norm id"]
    shown = [{line.get_label(): line.get_xydata().tolist() for line in axes.lines} for axes in figure.axes]
    expected = [[10 * i, value] for i, value in enumerate(LOSS)]
    assert shown[0]["plain"] == shown[0]["penalised"] == shown[0]["_plain, as logged"] == expected
    assert set(shown[1]) == {"plain", "_plain, as logged"}
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["plain", "penalised"]
    assert {row["panel"] for row in values_of(figure)} == {"loss/a", "loss/gradient_norm_id"}


@each(("window", "taken"), [(2, 2), (3, 3), (4, 4), (20, 6)])
def test_a_line_is_the_mean_of_so_many_points_in_a_row_at_most_a_tenth_of_all(window: int, taken: int) -> None:
    figure = comparison(window).draw(runs())
    assert figure is not None
    line = next(line for line in figure.axes[0].lines if line.get_label() == "plain")
    before = (taken - 1) // 2
    means = []
    for i in range(COUNT):
        inside = [LOSS[j] for j in range(i - before, i - before + taken) if 0 <= j < COUNT]
        means.append(sum(inside) / len(inside))
    np.testing.assert_allclose(line.get_ydata(), means)
    assert line.get_xdata().tolist() == [10 * i for i in range(COUNT)]


def test_nothing_is_drawn_where_no_run_logged_a_value() -> None:
    assert comparison(1, "loss/b").draw(runs()) is None

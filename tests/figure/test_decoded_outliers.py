"""Decoded outliers: the pictures and probabilities that are given are those that are shown; who may ask for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from ood_lab.config import RequestError, prepare
from ood_lab.figure.base import ID_COLOUR, OUTLIER_COLOUR, files_of, values_of
from ood_lab.figure.decoded_outliers import GRIDS, ROWS, DecodedOutliers
from ood_lab.results.material import Material
from tests.cases import each
from tests.figure.material import material

COLUMNS, WALKED = 4, 2
VALUES: dict[str, list[float]] = {"steps": [0, 3, 6], "further": [0, 2], "alpha": [0.0075, 0.015]}


def measured(grids: Sequence[str] = tuple(GRIDS)) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    found: dict[str, np.ndarray] = {
        name: draw.integers(0, 256, (COLUMNS, side, side, 3), dtype=np.uint8)
        for name, side in (("images", 8), ("embeddings", 5), ("outliers", 5))
    }
    for name in grids:
        values = np.array(VALUES[name], np.float32)[:, None].repeat(WALKED, axis=1)
        found[f"{name}/values"] = values
        found[f"{name}/pictures"] = draw.integers(0, 256, (*values.shape, 5, 5, 3), dtype=np.uint8)
        found[f"{name}/own"], found[f"{name}/other"] = draw.random((2, *values.shape), dtype=np.float32)
    if "steps" in grids:
        found["steps/values"][1, 1] = 4  # each row takes a number of steps of its own
    return found


def given(found: dict[str, np.ndarray]) -> Material:
    first, last = material().runs
    return material()._replace(runs=[first, last._replace(decoded_outliers=lambda: found)])


def picture_of(axes: Axes) -> np.ndarray:
    (image,) = axes.images
    return np.asarray(image.get_array())


def cells(grids: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """The places of the grids, as they are drawn: from left to right, row by row."""
    for name in grids:
        for row in range(WALKED):
            for column in range(len(VALUES[name])):
                yield name, row, column


def test_images_embeddings_and_outliers_stand_in_rows_above_each_other() -> None:
    found = measured(())
    figure = DecodedOutliers().draw(given(found))
    assert figure is not None
    assert len(figure.axes) == len(ROWS) * COLUMNS
    assert [axes.get_ylabel() for axes in figure.axes[::COLUMNS]] == ["ID image", "decoded", "outlier"]
    for number, axes in enumerate(figure.axes):
        row, column = divmod(number, COLUMNS)
        assert np.array_equal(picture_of(axes), found[list(ROWS)[row]][column])
    assert values_of(figure) == [], "pictures alone have no numbers"


@each("grids", [tuple(GRIDS), ("steps", "alpha"), ("steps",)])
def test_the_grids_show_what_is_given_below_the_sheet(grids: tuple[str, ...]) -> None:
    found = measured(grids)
    figure = DecodedOutliers().draw(given(found))
    assert figure is not None
    sheet, below = figure.axes[: len(ROWS) * COLUMNS], figure.axes[len(ROWS) * COLUMNS :]
    for number, axes in enumerate(sheet):
        row, column = divmod(number, COLUMNS)
        assert np.array_equal(picture_of(axes), found[list(ROWS)[row]][column])
    pictures = [axes for axes in below if axes.images]
    bars = [axes for axes in below if axes.patches]
    assert len(below) == len(pictures) + len(bars)
    for (name, row, column), axes, probabilities in zip(cells(grids), pictures, bars, strict=True):
        assert np.array_equal(picture_of(axes), found[f"{name}/pictures"][column, row])
        assert float(axes.get_title()) == pytest.approx(float(found[f"{name}/values"][column, row]))
        expected = [float(found[f"{name}/{series}"][column, row]) for series in ("own", "other")]
        heights = [bar.get_height() for bar in probabilities.patches]  # type: ignore[attr-defined]
        assert heights == pytest.approx(expected)
        assert [to_hex(bar.get_facecolor()) for bar in probabilities.patches] == [
            ID_COLOUR.lower(), OUTLIER_COLOUR.lower(),
        ]  # fmt: skip
        assert probabilities.get_ylim() == (0, 1), "all bars are on one scale"


def test_each_grid_says_what_changes_along_it() -> None:
    figure = DecodedOutliers().draw(given(measured()))
    assert figure is not None
    _, below = figure.subfigs
    assert [panel.get_suptitle() for panel in below.subfigs] == list(GRIDS.values())


def test_the_numbers_of_the_picture_are_the_probabilities() -> None:
    found = measured()
    figure = DecodedOutliers().draw(given(found))
    assert figure is not None
    rows = values_of(figure)
    shown = {(row["panel"], row["series"]): row["y"] for row in rows}
    assert len(rows) == len(shown), "no two numbers are called the same"
    expected = {
        (f"{name}, row {row + 1}, column {column + 1}: {found[f'{name}/values'][column, row]:.4g}", series):
            float(found[f"{name}/{series}"][column, row])
        for name, row, column in cells(tuple(GRIDS))
        for series in ("own", "other")
    }  # fmt: skip
    assert shown == pytest.approx(expected)


def test_two_columns_of_one_value_are_told_apart_in_the_numbers() -> None:
    """As of an embedding that is one step before the boundary: a quarter of a step is none."""
    found = measured(("steps",))
    found["steps/values"][:] = np.array([[0, 0], [0, 1], [1, 4]])
    figure = DecodedOutliers().draw(given(found))
    assert figure is not None
    rows = values_of(figure)
    assert len({(row["panel"], row["series"]) for row in rows}) == len(rows) == 2 * 3 * WALKED


@each("grids", [(), ("steps",)])
def test_one_column_is_drawn_and_written_as_files(grids: tuple[str, ...]) -> None:
    found = {name: values if "/" in name else values[:1] for name, values in measured(grids).items()}
    figure = DecodedOutliers().draw(given(found))
    assert figure is not None
    files = files_of(figure)
    assert files["png"].startswith(b"\x89PNG")
    assert files["pdf"].startswith(b"%PDF")
    assert files["csv"].count(b"steps, row") == (2 * 3 * WALKED if grids else 0)


def test_a_run_without_decoded_outliers_has_no_picture() -> None:
    assert DecodedOutliers().draw(material()) is None


def test_those_of_a_run_that_is_needed_are_not_drawn() -> None:
    first, last = material().runs
    below = material()._replace(runs=[first._replace(decoded_outliers=measured), last])
    assert DecodedOutliers().draw(below) is None


# Who may ask for it.


FIGURE = "figure=[decoded_outliers]"
TINY = ("decoder=tiny", "generator=diffusion_small")


@each("overrides", [("method=hamos",), ("method=ce",), ("method=oe", "auxiliary=fractals")])
def test_of_a_run_that_decodes_nothing_it_is_refused_with_the_remedy(overrides: tuple[str, ...]) -> None:
    with pytest.raises(RequestError) as caught:
        prepare([*overrides, FIGURE], look=False)
    message = str(caught.value)
    assert "figure=decoded_outliers" in message
    assert "this run trains on none" in message
    for remedy in ("method=bood", "method=dreamood", "auxiliary=decoded"):
        assert remedy in message
    assert "\n" not in message


def test_images_of_another_producer_are_no_decoded_outliers() -> None:
    words = ["auxiliary.needs.images=['task=synthesize','producer=fractals']", "auxiliary=synthesized"]
    with pytest.raises(RequestError, match="this run trains on none"):
        prepare(["method=oe", *words, FIGURE], look=False)


@each(
    "overrides",
    [
        ("method=bood",),
        ("method=dreamood",),
        ("method=oe", "auxiliary=decoded", *TINY),
        ("method=oe", "auxiliary=synthesized", f"auxiliary.needs.images=['task=decode','{TINY[0]}','{TINY[1]}']"),
    ],
)
def test_of_a_run_that_decodes_outliers_it_is_let_in(overrides: tuple[str, ...]) -> None:
    assert prepare([*overrides, FIGURE], look=False).decodes_outliers


def test_the_task_may_be_named_by_its_key() -> None:
    """Which is the same run."""
    ways = [f"auxiliary.needs.images=['{task}=decode','{TINY[0]}','{TINY[1]}']" for task in ("task", "task.name")]
    first, second = (prepare(["method=oe", "auxiliary=synthesized", way], look=False) for way in ways)
    assert first.decodes_outliers
    assert second.run_id == first.run_id
    assert prepare(["method=oe", "auxiliary=synthesized", ways[1], FIGURE], look=False).decodes_outliers

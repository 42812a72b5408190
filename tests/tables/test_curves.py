"""Tables of one setting as lines: which tables, at which places, with which spread."""

from __future__ import annotations

from typing import Any

import pytest

from ood_lab.tables.cells import Cell, Filled
from ood_lab.tables.curves import draw, settings
from ood_lab.tables.spec import Column, Table, TableRow

COLUMNS = (Column("fpr95", "mean", "digits"), Column("accuracy", None, "digits"))


def filled(labels: list[str], cells: list[tuple[Cell, Cell]] | None = None) -> Filled:
    table = Table(
        "mine", "Paper, Table 1", "A setting", "results", "percent", "hamos", (0, 1), {}, COLUMNS,
        tuple(TableRow(label, (None, None)) for label in labels),
    )  # fmt: skip
    empty: Any = [(Cell(), Cell())] * len(labels)
    return Filled(table, COLUMNS, tuple(cells or empty), {}, {}, {})


@pytest.mark.parametrize(
    ("labels", "values"),
    [
        (["1", "2", "3(default)"], [1, 2, 3]),
        (["0.01", "1e-3", "-2 (none)"], [0.01, 0.001, -2]),
        (["1", "2"], None),
        (["CE", "SimCLR", "SupCon"], None),
        (["SSD+ 64", "64", "128"], None),
        (["64", "64", "128"], None),
    ],
)
def test_rows_are_values_of_one_setting_by_their_labels(labels: list[str], values: list[float] | None) -> None:
    assert settings(filled(labels)) == values


def test_lines_go_by_the_values_with_deviations_and_the_papers_beside() -> None:
    cells = [
        (Cell((30.0, 34.0), paper="31"), Cell()),
        (Cell((10.0, 10.0), paper="12.5"), Cell()),
        (Cell((20.0, 22.0)), Cell()),
    ]
    figure = draw(filled(["3", "1", "2"], cells))
    assert figure is not None
    (axes,) = (axes for axes in figure.axes if axes.get_visible())
    assert axes.get_title() == "digits: FPR95 ↓ mean"
    ours, paper = axes.lines
    assert list(ours.get_ydata()) == [10, 21, 32]
    assert list(paper.get_xdata()) == [0, 2]
    assert list(paper.get_ydata()) == [12.5, 31]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "2", "3"]
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == 10
    assert band[:, 1].max() == 34


def test_nothing_to_draw_before_there_are_runs() -> None:
    assert draw(filled(["1", "2", "3"])) is None

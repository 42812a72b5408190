"""Tables of one setting as lines: which tables, at which places, with which spread."""

from __future__ import annotations

from typing import Any

import pytest

from ood_lab.tables.cells import Cell, Filled
from ood_lab.tables.curves import LEAST_SPAN, draw
from ood_lab.tables.spec import Column, Table, TableRow
from ood_lab.tables.swept import sweep_of

COLUMNS = (Column("fpr95", "mean", "digits"), Column("accuracy", None, "other"))
Row = tuple[str, list[str], dict[str, list[str]]]


def filled(rows: list[Row], cells: list[tuple[Cell, Cell]] | None = None, overrides: tuple[str, ...] = ()) -> Filled:
    made = tuple(
        TableRow(label, (None, None), tuple(changes), {name: tuple(more) for name, more in by_dataset.items()})
        for label, changes, by_dataset in rows
    )
    table = Table(
        "mine", "Paper, Table 1", "A setting", "results", "percent", "hamos", (0, 1), {}, COLUMNS, made,
        overrides=overrides,
    )  # fmt: skip
    empty: Any = [(Cell(), Cell())] * len(made)
    return Filled(table, COLUMNS, tuple(cells or empty), {}, {}, {})


def one(*values: str, method: str = "hamos") -> list[Row]:
    return [(f"{value} of {method}", [f"method={method}", f"a.b={value}"], {}) for value in values]


def test_rows_are_values_of_the_setting_in_which_they_differ() -> None:
    found = sweep_of(filled(one("1", "0.5", "1e-3")).table, "digits")
    assert found == ("a.b", {"ours": {0: 1.0, 1: 0.5, 2: 0.001}})


def test_each_id_set_has_its_own_values() -> None:
    rows: list[Row] = [
        (str(n), ["method=hamos"], {"digits": [f"a.b={n}"], "other": [f"a.b={10 * n}"]}) for n in range(3)
    ]
    for name, factor in (("digits", 1), ("other", 10)):
        found = sweep_of(filled(rows).table, name)
        assert found is not None
        assert found.lines["ours"] == {n: factor * n for n in range(3)}


def test_several_methods_are_a_line_each() -> None:
    rows = [row for group in zip(one("1", "2", "3"), one("1", "2", "3", method="vos"), strict=True) for row in group]
    found = sweep_of(filled(rows).table, "digits")
    assert found is not None
    assert found.lines == {"1 of hamos": {0: 1, 2: 2, 4: 3}, "1 of vos": {1: 1, 3: 2, 5: 3}}


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(one("1", "2"), id="two values"),
        pytest.param(one("1", "2", "2"), id="a value twice"),
        pytest.param(one("x", "y", "z"), id="names"),
        pytest.param([*one("1", "2", "3"), ("bare", ["method=hamos"], {})], id="a row without"),
        pytest.param([*one("1", "2", "3"), ("other", ["method=vos", "a.b=1"], {})], id="a line of one"),
        pytest.param([(str(n), [f"a.b={n}", f"c={n}"], {}) for n in range(3)], id="two settings"),
    ],
)
def test_other_rows_are_no_sweep(rows: list[Row]) -> None:
    assert sweep_of(filled(rows).table, "digits") is None


def test_a_setting_that_all_runs_were_given_is_not_swept() -> None:
    assert sweep_of(filled(one("1", "2", "3"), overrides=("a.b=7",)).table, "digits") is None


def test_lines_go_by_the_values_with_deviations_and_the_papers_beside() -> None:
    cells = [
        (Cell((30.0, 34.0), paper="31"), Cell()),
        (Cell((10.0, 10.0), paper="12.5"), Cell()),
        (Cell((20.0, 22.0)), Cell()),
    ]
    figure = draw(filled(one("3", "1", "2"), cells))
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
    assert axes.get_xlabel() == "a.b"
    assert figure.get_suptitle() == "Paper, Table 1: A setting\nmean ± population std of seeds: 0,\n1"


def test_small_differences_do_not_fill_a_panel() -> None:
    figure = draw(filled(one("1", "2", "3"), [(Cell((90.0 + n / 10,)), Cell()) for n in range(3)]))
    assert figure is not None
    low, high = figure.axes[0].get_ylim()
    assert high - low == pytest.approx(LEAST_SPAN)
    assert (low + high) / 2 == pytest.approx(90.1)


def test_each_method_has_its_colour_and_its_name() -> None:
    rows = [*one("1", "2", "3"), *one("1", "2", "3", method="vos")]
    cells = [(Cell((float(n),), paper=str(n)), Cell()) for n in range(6)]
    figure = draw(filled(rows, cells))
    assert figure is not None
    lines = figure.axes[0].lines
    assert [list(line.get_ydata()) for line in lines] == [[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5]]
    first, its_paper, second, _ = (line.get_color() for line in lines)
    assert first == its_paper != second
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["1 of hamos", "1 of hamos, paper", "1 of vos", "1 of vos, paper"]


def test_nothing_to_draw_before_there_are_runs() -> None:
    assert draw(filled(one("1", "2", "3"))) is None

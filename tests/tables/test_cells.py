"""Cells: ours of exactly the planned runs, spreads, marks, and what must not stand beside a paper's figure."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ood_lab.config import Experiment, RunError
from ood_lab.results.store import COLUMNS, add_rows, options_text
from ood_lab.synthesizer.boundary_mixup import BoundaryMixup
from ood_lab.tables.cells import Cell, Filled, fill
from ood_lab.tables.layout import blocks, caption
from ood_lab.tables.plan import Place, Plan, plan
from ood_lab.tables.render import as_csv, latex, markdown, terminal
from ood_lab.tables.spec import Column, Table, TableRow, load_table, row_labels, table_names
from tests.cases import each

SETS = ("letters", "photos", "gaussian_noise")


def table(**changes: Any) -> Table:
    """A table of two rows that the digits can fill."""
    node: dict[str, Any] = {
        "id": "mine",
        "source": "Paper, Table 1",
        "title": "Two scores",
        "kind": "results",
        "unit": "percent",
        "experiment": "hamos",
        "seeds": (0, 1, 2),
        "sets": {"digits": SETS},
        "columns": (
            Column("fpr95", "mean", "digits", "narrow"),
            Column("auroc", "letters", "digits", "narrow"),
            Column("accuracy", None, "digits", "narrow"),
        ),
        "rows": (
            TableRow("MSP", ("50.0", "90.10", "80"), ("method=ce",), scorer="msp", std=("1.0", None, None)),
            TableRow("k_NN & co", ("10.0", "95.00", None), ("method=nonesuch",), scorer="knn"),
        ),
        **changes,
    }
    return Table(**node)


def store(experiment: Experiment, values: dict[tuple[str | None, str], float], **changes: Any) -> None:
    """Rows of the detector msp: (set, metric) to value; (None, "accuracy") is the accuracy."""
    rows = []
    for (ood_set, metric), value in values.items():
        row: dict[str, Any] = dict.fromkeys(COLUMNS)
        row |= {
            "run_id": experiment.run_id,
            "method": "ce",
            "stage": "pretrain",
            "commit": "abc",
            "versions": {"torch": "2"},
        }
        row |= {"ood_set": ood_set, "metric": metric, "value": value, "n_id": 300, "n_ood": 800, "n_expected": None}
        row["convention"] = experiment.convention(ood_set)
        if ood_set is not None:
            row |= {"scorer": "msp", "options": options_text(experiment.detectors["msp"]), "fit": "x"}
        rows.append({**row, **changes})
    add_rows(experiment.run_dir, rows)


def whole(fpr: float, auroc: float, accuracy: float) -> dict[tuple[str | None, str], float]:
    named: dict[tuple[str | None, str], float] = {(None, "accuracy"): accuracy}
    for number, name in enumerate(SETS):
        named |= {(name, "fpr95_ood_pos"): fpr + 0.01 * number, (name, "auroc"): auroc}
    return named


@pytest.fixture
def planned(tmp_path: Path) -> Plan:
    return plan([mine(tmp_path)], look=True)


def mine(tmp_path: Path) -> Table:
    return table(overrides=("protocol=digits", f"paths.output={tmp_path}"))


def runs_of(planned: Plan) -> Sequence[Experiment]:
    return planned.experiments[Place("mine", 0, "digits", "narrow")]


def named(filled: Filled) -> dict[tuple[str, str, str | None], Cell]:
    return {
        (row.label, column.metric, column.over): cell
        for row, cells in zip(filled.table.rows, filled.cells, strict=True)
        for column, cell in zip(filled.columns, cells, strict=True)
    }


def test_mean_spread_and_difference_over_seeds(planned: Plan, tmp_path: Path) -> None:
    for run, fpr, accuracy in zip(runs_of(planned), (0.40, 0.44, 0.48), (0.7, 0.8, 0.9), strict=True):
        store(run, whole(fpr, 0.9, accuracy))
    cells = named(fill(mine(tmp_path), planned))
    fpr = cells["MSP", "fpr95", "mean"]
    assert fpr.values == pytest.approx([41, 45, 49])  # the mean of three sets 0, 1 and 2 points higher
    assert fpr.mean == pytest.approx(45)
    assert fpr.std == pytest.approx(math.sqrt(32 / 3))
    assert fpr.difference == pytest.approx(-5)
    assert fpr.exceeds  # 5 > sqrt(10.67 + 1)
    assert cells["MSP", "auroc", "letters"].mean == pytest.approx(90)
    assert cells["MSP", "accuracy", None].values == pytest.approx([70, 80, 90])
    assert not cells["MSP", "accuracy", None].exceeds


def test_means_over_near_and_far_sets_stand_behind_the_mean(planned: Plan, tmp_path: Path) -> None:
    store(runs_of(planned)[0], whole(0.4, 0.9, 0.7))
    cells = named(fill(mine(tmp_path), planned))
    assert cells["MSP", "fpr95", "near"].mean == pytest.approx(40)
    assert cells["MSP", "fpr95", "far"].mean == pytest.approx(41.5)
    assert cells["MSP", "fpr95", "near"].paper is None


def test_the_mark_needs_a_spread_and_a_difference_above_it() -> None:
    assert not Cell((50.0,), paper="60").exceeds  # no spread is known
    assert Cell((50.0,), paper="60", paper_std="9.9").exceeds
    assert not Cell((50.0,), paper="60", paper_std="10.1").exceeds
    assert Cell((49.0, 51.0), paper="52", paper_std="1.7").exceeds  # sqrt(1 + 2.89) = 1.97
    assert not Cell((49.0, 51.0), paper="52", paper_std="1.8").exceeds  # sqrt(1 + 3.24) = 2.06
    assert not Cell((), paper="60", paper_std="1").exceeds


def test_settings_are_compared_as_numbers_where_they_are() -> None:
    assert not Cell(text="0.0001", paper="1.0e-4").exceeds
    assert not Cell(text="whole", paper="whole").exceeds
    assert Cell(text="128", paper="256").exceeds
    assert Cell(text="0.1", paper="cosine").exceeds


def test_missing_seeds_are_counted_and_missing_cells_are_empty(planned: Plan, tmp_path: Path) -> None:
    first, second, _ = runs_of(planned)
    store(first, whole(0.4, 0.9, 0.7))
    partly = whole(0.5, 0.8, 0.7)
    del partly["photos", "fpr95_ood_pos"]
    store(second, partly)
    filled = fill(mine(tmp_path), planned)
    cells = named(filled)
    assert len(cells["MSP", "fpr95", "mean"].values) == 1  # a mean over two of three sets is no mean
    assert len(cells["MSP", "auroc", "letters"].values) == 2
    assert cells["k_NN & co", "auroc", "letters"].values == ()
    assert list(filled.unavailable) == [1]
    assert "41.0 (1/3)" in markdown(filled)


def test_rows_of_other_conventions_or_options_are_other_numbers(planned: Plan, tmp_path: Path) -> None:
    run = runs_of(planned)[0]
    store(run, whole(0.4, 0.9, 0.7))
    store(run, whole(0.99, 0.1, 0.1), convention="id_val=0 of another protocol", commit="other")
    store(run, {("letters", "auroc"): 0.2}, options='{"temperature": 2}')
    filled = fill(mine(tmp_path), planned)
    cells = named(filled)
    assert "commit abc;" in "\n".join(caption(filled))
    assert cells["MSP", "auroc", "letters"].values == pytest.approx([90])
    assert cells["MSP", "fpr95", "mean"].values == pytest.approx([41])


def test_a_partial_set_takes_the_papers_figure_away_where_it_counts(planned: Plan, tmp_path: Path) -> None:
    for run in runs_of(planned):
        store(run, whole(0.4, 0.9, 0.7))
        store(run, {("photos", "fpr95_ood_pos"): 0.4, ("photos", "auroc"): 0.4}, n_ood=799)
    cells = named(fill(mine(tmp_path), planned))
    assert cells["MSP", "fpr95", "mean"].mean is not None
    assert cells["MSP", "fpr95", "mean"].paper is None
    assert cells["MSP", "auroc", "letters"].paper == "90.10"
    assert any("not the stated images: photos 799 of 800" in line for line in caption(fill(mine(tmp_path), planned)))


def test_a_partial_set_counts_for_the_detector_that_was_scored_on_it(planned: Plan, tmp_path: Path) -> None:
    for run in runs_of(planned):
        store(run, whole(0.4, 0.9, 0.7))
        store(run, {("letters", "auroc"): 0.4}, scorer="other", n_ood=3)
    assert named(fill(mine(tmp_path), planned))["MSP", "auroc", "letters"].paper == "90.10"


def test_a_set_that_one_detector_saw_in_part_is_named_whatever_was_stored_last(planned: Plan, tmp_path: Path) -> None:
    for run in runs_of(planned):
        store(run, {("photos", "fpr95_ood_pos"): 0.4}, scorer="first", n_ood=799)
        store(run, whole(0.4, 0.9, 0.7))
    assert any("photos 799 of 800" in line for line in caption(fill(mine(tmp_path), planned)))


def test_a_partial_id_set_takes_the_papers_figure_away(tmp_path: Path) -> None:
    overrides = ("protocol=digits", f"paths.output={tmp_path}", "dataset.recipe.test_images=450")
    checked = table(overrides=overrides)
    planned = plan([checked])
    for run in runs_of(planned):
        store(run, whole(0.4, 0.9, 0.7))  # of 300 images, as 150 are kept for validation
    assert named(fill(checked, planned))["MSP", "accuracy", None].paper == "80"
    for run in runs_of(planned):
        store(run, whole(0.4, 0.9, 0.7), n_id=299)
    cells = named(fill(checked, planned))
    assert cells["MSP", "accuracy", None].paper is None
    assert cells["MSP", "auroc", "letters"].paper is None


def test_sets_that_were_checked_loosely_stand_beside_nothing(tmp_path: Path) -> None:
    overrides = ("protocol=digits", f"paths.output={tmp_path}", "protocol.check=loose")
    loose = table(overrides=overrides)
    planned = plan([loose])
    for run in runs_of(planned):
        store(run, whole(0.4, 0.9, 0.7))
    assert named(fill(loose, planned))["MSP", "auroc", "letters"].paper is None


def test_a_half_written_results_file_is_named(planned: Plan, tmp_path: Path) -> None:
    run = runs_of(planned)[0]
    store(run, whole(0.4, 0.9, 0.7))
    path = run.run_dir / "results.jsonl"
    path.write_text(path.read_text()[:-40])
    with pytest.raises(RunError, match=r"results.jsonl, line 7: not a whole row"):
        fill(mine(tmp_path), planned)


def measured(tmp_path: Path, **changes: Any) -> Table:
    """A table of angles and of what outliers cost."""
    columns = (
        Column("separation", "mean", "digits", "narrow"),
        Column("separation", "photos", "digits", "narrow"),
        Column("compactness", None, "digits", "narrow"),
        Column("time", None, "digits", "narrow", unit="ms"),
        Column("memory", None, "digits", "narrow", part="total", unit="MB"),
    )
    rows = (
        TableRow("VOS", ("50.0", "60", "30", "7", None), ("method=vos",), scorer="msp"),
        TableRow("RONF", (None,) * 5, ("method=ronf",), scorer="msp"),
    )
    overrides = ("protocol=digits", f"paths.output={tmp_path}")
    return table(unit="degrees", seeds=(0,), columns=columns, rows=rows, overrides=overrides, **changes)


def store_measures(run: Experiment, **changes: Any) -> None:
    angles: dict[tuple[str | None, str], float] = {(s, "separation"): 40 + n for n, s in enumerate(SETS)}
    store(run, {**angles, (None, "compactness"): 20, (None, "accuracy"): 0.8}, unit="degrees", scorer=None, **changes)
    store(run, {(None, "synthesis_time"): 0.0125, (None, "synthesis_memory"): 3}, hardware="our processor", **changes)


@each(("unit", "expected"), [("MB", 3.0), ("G", 3 / 1024)])
def test_the_memory_of_a_batch_is_stored_in_mebibytes(unit: str, expected: float, tmp_path: Path) -> None:
    wanted = measured(tmp_path)
    wanted = replace(wanted, columns=(*wanted.columns[:-1], Column("memory", None, "digits", "narrow", unit=unit)))
    planned = plan([wanted])
    store_measures(runs_of(planned)[0])
    assert named(fill(wanted, planned))["VOS", "memory", None].mean == pytest.approx(expected)


def test_angles_are_degrees_and_a_time_is_in_the_unit_of_its_column(tmp_path: Path) -> None:
    wanted = measured(tmp_path, hardware="one big GPU")
    planned = plan([wanted])
    store_measures(runs_of(planned)[0])
    filled = fill(wanted, planned)
    cells = named(filled)
    assert cells["VOS", "separation", "mean"].mean == pytest.approx(41)
    assert cells["VOS", "separation", "mean"].difference == pytest.approx(-9)
    assert cells["VOS", "separation", "photos"].mean == pytest.approx(41)
    assert cells["VOS", "compactness", None].mean == pytest.approx(20)
    assert cells["VOS", "time", None].mean == pytest.approx(12.5)
    assert cells["VOS", "memory", None].mean is None, "that of a whole training is another figure"
    text = "\n".join(caption(filled))
    assert "degrees; time in ms; memory in MB; one seed: 0" in text
    assert "time of one batch of outliers, ours on our processor; the paper's on one big GPU" in text


def test_angles_of_another_convention_are_not_this_tables(tmp_path: Path) -> None:
    wanted = measured(tmp_path)
    planned = plan([wanted])
    store_measures(runs_of(planned)[0], convention="of another protocol")
    cells = named(fill(wanted, planned))
    assert cells["VOS", "separation", "mean"].mean is None
    assert cells["VOS", "compactness", None].mean is None


def test_a_mean_separation_needs_each_of_its_sets(tmp_path: Path) -> None:
    wanted = measured(tmp_path)
    planned = plan([wanted])
    store(runs_of(planned)[0], {(s, "separation"): 40.0 for s in SETS[:2]}, unit="degrees")
    cells = named(fill(wanted, planned))
    assert cells["VOS", "separation", "mean"].mean is None
    assert cells["VOS", "separation", "photos"].mean == pytest.approx(40)


def test_hardware_that_a_paper_does_not_name_is_said_and_none_where_nothing_was_measured(tmp_path: Path) -> None:
    wanted = measured(tmp_path)
    planned = plan([wanted])
    assert not any("one batch of outliers" in line for line in caption(fill(wanted, planned)))
    store_measures(runs_of(planned)[0])
    assert any("the paper's on hardware that it does not name" in line for line in caption(fill(wanted, planned)))


def test_a_row_whose_part_is_a_guess_says_so_below_the_table(tmp_path: Path) -> None:
    wanted = measured(tmp_path)
    lines = caption(fill(wanted, plan([wanted])))
    (line,) = [line for line in lines if line.startswith("RONF: ")]
    assert line == f"RONF: {BoundaryMixup.caveat}"


@pytest.fixture
def filled(planned: Plan, tmp_path: Path) -> Filled:
    for run, fpr in zip(runs_of(planned), (0.40, 0.44, 0.48), strict=True):
        store(run, whole(fpr, 0.9, 0.8))
    return fill(mine(tmp_path), planned)


def test_one_block_a_network_with_the_papers_digits(filled: Filled) -> None:
    (block,) = blocks(filled)
    assert block.title == "digits, narrow"
    assert block.headings[0] == ("FPR95 ↓", "mean")
    msp, knn = block.cells
    assert msp[0] == ("45.0±3.3", "50.0±1.0", "-5.0*", False)
    assert msp[-1][:3] == ("80±0", "80", "+0")
    assert knn[0] == ("", "10.0", "", False)


def test_the_caption_has_seeds_protocol_origin_and_what_is_lacking(filled: Filled) -> None:
    text = "\n".join(caption(filled))
    assert "Paper, Table 1: Two scores." in text
    assert "mean ± population std of seeds: 0, 1, 2" in text
    assert "near: letters; far: photos, gaussian_noise" in text
    assert "commit abc; torch 2" in text
    assert "not available: k_NN & co: method=nonesuch: no such method" in text


def test_rows_of_one_label_are_told_apart_by_what_they_change() -> None:
    labels = row_labels(load_table("hamos_t24"))
    assert labels[:2] == ("SSD+ (projection_dim=64)", "CIDER (projection_dim=64)")
    assert "CIDER (mahalanobis)" in row_labels(load_table("hamos_t10"))
    for name in table_names():
        labels = row_labels(load_table(name))
        assert len(set(labels)) == len(labels), name


def test_the_terminal_keeps_within_its_width(filled: Filled) -> None:
    for width in (80, 200):
        console = Console(width=width, file=io.StringIO(), force_terminal=False)
        console.print(terminal(filled, width))
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        assert max(map(len, shown.splitlines())) <= width
        assert "45.0±3.3" in shown
        assert "…" not in shown
        assert shown.count("digits, narrow") == (2 if width == 80 else 1)


def test_markdown_and_csv_have_every_cell(filled: Filled) -> None:
    text = markdown(filled)
    assert r"| MSP | 45.0±3.3 | 50.0±1.0 | -5.0\* |" in text
    rows = list(csv.DictReader(io.StringIO(as_csv(filled))))
    assert len(rows) == 2 * len(filled.columns)
    first = rows[0]
    assert (first["row"], first["metric"], first["over"], first["paper"]) == ("MSP", "fpr95", "mean", "50.0")
    assert float(first["ours"]) == pytest.approx(45)
    assert first["seeds"] == first["seeds_wanted"] == "3"
    assert len(first["run_ids"].split()) == 3
    assert rows[-1]["not_available"] == "method=nonesuch: no such method"


def test_latex_is_balanced_and_escaped(filled: Filled) -> None:
    text = latex(filled)
    assert r"k\_NN \& co" in text
    assert text.count("{") == text.count("}")
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    columns = [line.count(" & ") for line in body if r"\multicolumn" not in line]
    assert set(columns) == {3 + 1 + 1 + 3 + 3}  # the means over near and far sets have no paper's figure beside them
    assert not set("±↓↑") & set(text)

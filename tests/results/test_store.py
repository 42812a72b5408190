"""The result file of a run: rows replaced by what measures the same, whole or not written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ood_lab.results.store import (
    COLUMNS,
    KEY,
    THRESHOLD_COLUMNS,
    Results,
    Row,
    add_rows,
    add_thresholds,
    options_text,
    read_rows,
    read_thresholds,
)
from tests.cases import each


def row(**values: Any) -> Row:
    base = dict.fromkeys(COLUMNS, "x") | {"value": 0.5, "n_id": 10, "n_ood": 20, "seed": 0}
    return base | values


def test_a_run_without_a_file_has_no_rows(tmp_path: Path) -> None:
    assert read_rows(tmp_path) == []


def test_rows_are_read_back_as_they_were(tmp_path: Path) -> None:
    rows = [row(metric="auroc", value=0.1 + 0.2), row(metric="fpr", scorer=None, ood_set=None), row(metric="é\n")]
    add_rows(tmp_path, rows)
    assert read_rows(tmp_path) == rows
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows


def test_the_same_measurement_replaces_the_earlier_in_its_place(tmp_path: Path) -> None:
    add_rows(tmp_path, [row(metric="a", value=1.0), row(metric="b", value=2.0)])
    add_rows(tmp_path, [row(metric="a", value=3.0, commit="new")])
    assert [(r["metric"], r["value"], r["commit"]) for r in read_rows(tmp_path)] == [("a", 3.0, "new"), ("b", 2.0, "x")]


@each("column", KEY)
def test_another_value_of_a_key_column_is_another_measurement(tmp_path: Path, column: str) -> None:
    add_rows(tmp_path, [row()])
    add_rows(tmp_path, [row(**{column: "other"})])
    assert len(read_rows(tmp_path)) == 2


def test_within_one_call_the_last_row_counts(tmp_path: Path) -> None:
    add_rows(tmp_path, [row(value=1.0), row(value=2.0)])
    assert [r["value"] for r in read_rows(tmp_path)] == [2.0]


@each("change", ["extra", "lacking"])
def test_a_row_with_other_columns_is_refused_and_nothing_is_written(tmp_path: Path, change: str) -> None:
    add_rows(tmp_path, [row(value=1.0)])
    wrong = row(value=2.0, surprise=1) if change == "extra" else {k: v for k, v in row().items() if k != "commit"}
    with pytest.raises(ValueError, match="surprise" if change == "extra" else "commit"):
        add_rows(tmp_path, [row(value=3.0), wrong])
    assert [r["value"] for r in read_rows(tmp_path)] == [1.0]


def test_a_write_that_fails_leaves_the_old_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_rows(tmp_path, [row(value=1.0)])

    def fail(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        add_rows(tmp_path, [row(value=2.0)])
    assert [r["value"] for r in read_rows(tmp_path)] == [1.0]
    assert [p.name for p in tmp_path.iterdir()] == ["results.jsonl"]


def test_a_column_that_was_added_since_is_none_in_older_rows(tmp_path: Path) -> None:
    older = {key: value for key, value in row(value=1.0).items() if key != "fit"}
    (tmp_path / "results.jsonl").write_text(json.dumps(older) + "\n")
    assert read_rows(tmp_path)[0]["fit"] is None
    add_rows(tmp_path, [row(metric="other")])
    assert len(read_rows(tmp_path)) == 2


def test_the_newest_thresholds_stand_last(tmp_path: Path) -> None:
    def limit(scorer: str, value: float) -> dict[str, object]:
        return {**dict.fromkeys(THRESHOLD_COLUMNS), "scorer": scorer, "id_rate": 0.95, "threshold": value}

    add_thresholds(tmp_path, [limit("a", 1.0), limit("b", 2.0)])
    add_thresholds(tmp_path, [limit("a", 3.0)])
    assert [(r["scorer"], r["threshold"]) for r in read_thresholds(tmp_path)] == [("b", 2.0), ("a", 3.0)]


def test_options_hold_the_settings_but_not_the_class() -> None:
    text = options_text({"_target_": "a.B", "space": "method", "k": 50})
    assert json.loads(text) == {"k": 50, "space": "method"}
    assert text == options_text({"k": 50, "space": "method", "_target_": "a.C"})
    assert text != options_text({"k": 10, "space": "method"})


def test_a_frame_has_the_rows_of_the_needed_runs_first_and_all_columns(tmp_path: Path) -> None:
    needed = Results("ce", tmp_path, [row(run_id="ce")])
    frame = Results("hamos", tmp_path, [row(run_id="hamos")], [needed]).frame()
    assert frame["run_id"].tolist() == ["ce", "hamos"]
    assert tuple(frame.columns) == COLUMNS
    assert tuple(Results("r", tmp_path, []).frame().columns) == COLUMNS

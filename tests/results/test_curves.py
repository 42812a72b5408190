"""Curves as a run stores them."""

from __future__ import annotations

from pathlib import Path

from ood_lab.results.curves import read_curves


def test_whole_rows_are_read_in_order_and_an_unfinished_one_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "curves.jsonl"
    assert read_curves(path) == []
    rows = [{"step": 1, "loss/total": 0.5}, {"step": 2, "epoch": 0, "test/msp/auroc/a": 1.0}]
    whole = '{"step": 1, "loss/total": 0.5}\n{"step": 2, "epoch": 0, "test/msp/auroc/a": 1.0}\n'
    for left in ("", '{"step": 3, "lo', '{"step": 3}'):
        path.write_text(whole + left)
        assert read_curves(path) == rows
    path.write_text('{"step": 1')
    assert read_curves(path) == []

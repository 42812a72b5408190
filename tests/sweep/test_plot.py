"""The picture of a sweep: what varied against the metrics, means and spread over seeds."""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import fmean, pstdev

import pytest

from ood_lab.config import prepare
from ood_lab.results.table import METRICS, Line
from ood_lab.sweep.grid import Setting
from ood_lab.sweep.plot import _figure, draw_sweep


def line(value: float, near: bool = True) -> Line:
    means = {(group, metric): value for group in ("near", "far", "all") for metric in METRICS}
    if not near:
        means |= {("near", metric): float("nan") for metric in METRICS}
    return Line("run", "ce", "pretrain", "knn", 0.9, None, means, "ce")


def setting(values: list[float], near: bool = True, **varied: str) -> Setting:
    return Setting(prepare(["method=ce"]), varied, {"knn": [line(v, near) for v in values]}, {})


def test_numbers_lie_along_a_logarithmic_axis_with_the_spread_of_the_seeds(tmp_path: Path) -> None:
    settings = [setting([0.5, 0.7], lr="0.1"), setting([0.2, 0.3, 0.7], lr="0.001")]
    path = draw_sweep(settings, tmp_path)
    assert path is not None
    assert path.stat().st_size > 5_000
    assert path.with_suffix(".pdf").is_file()
    rows = list(csv.DictReader(path.with_suffix(".csv").open()))
    assert [(row["lr"], row["seeds"]) for row in rows[::3]] == [("0.1", "2"), ("0.001", "3")]
    assert float(rows[3]["mean"]) == pytest.approx(100 * fmean([0.2, 0.3, 0.7]))
    assert float(rows[3]["std"]) == pytest.approx(100 * pstdev([0.2, 0.3, 0.7]))
    axes = _figure(settings, ["lr"]).axes[0]
    assert axes.get_xscale() == "log"
    assert [float(x) for x in axes.lines[0].get_xdata()] == [0.001, 0.1]
    assert axes.get_xlabel() == "lr"


def test_names_stand_side_by_side_and_a_second_value_makes_rows() -> None:
    settings = [setting([0.5], method=m, width=w) for w in ("4", "8") for m in ("ce", "cider")]
    figure = _figure(settings, ["method", "width"])
    assert len(figure.axes) == 2 * 3
    assert [text.get_text() for text in figure.axes[3].get_xticklabels()] == ["ce", "cider"]
    assert [figure.axes[0].get_ylabel(), figure.axes[3].get_ylabel()] == ["width=4", "width=8"]


def test_metrics_that_nothing_has_are_left_out_and_seeds_alone_are_no_sweep(tmp_path: Path) -> None:
    assert [a.get_title() for a in _figure([setting([0.5], near=False, k="1")], ["k"]).axes] == [
        "AUROC far (%)",
        "FPR95 OOD+ (%)",
    ]
    assert draw_sweep([setting([0.5, 0.6])], tmp_path) is None
    assert draw_sweep([Setting(prepare(["method=ce"]), {"k": "1"}, {}, {})], tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_of_long_values_the_end_is_shown() -> None:
    folders = [f"/a/folder/of/many/letters/and/more/of/them/{name}" for name in ("first", "second")]
    figure = _figure([setting([0.5], root=folder) for folder in folders], ["root"])
    labels = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert labels == ["…/and/more/of/them/first", "…and/more/of/them/second"]

"""`report.html`: one file that holds everything, for a browser without a network."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from ood_lab.results.store import Results, Row
from ood_lab.results.table import METRICS, STAGES, Line, Selection, lines, percent

COLUMNS = {
    ("near", "auroc"): "AUROC near",
    ("far", "auroc"): "AUROC far",
    ("all", "fpr95_ood_pos"): "FPR95 OOD+",
    ("all", "fpr95_id_pos"): "FPR95 ID+",
    ("all", "aupr_in"): "AUPR in",
    ("all", "aupr_out"): "AUPR out",
}
GROUPS = ("near", "far")
DETAILS = [
    "run", "detector", "space", "OOD set", "group", "images", "AUROC", "FPR95 OOD+", "FPR95 ID+", "AUPR in", "AUPR out",
    "local radius",
]  # fmt: skip


def with_interval(row: Row) -> str:
    """A value in percent, and its 95 % interval where one was taken."""
    text = percent(row["value"])
    return text if row["low"] is None else f"{text} [{percent(row['low'])}, {percent(row['high'])}]"


def summary_rows(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Detectors down, runs side by side; the best entry of each metric over all runs is marked."""
    runs = list(dict.fromkeys(line.run_id for line in lines))
    best = {}
    for key in COLUMNS:
        values = [line.means[key] for line in lines if line.means[key] == line.means[key]]
        better = min if "fpr" in key[1] else max
        best[key] = better(values) if values else None
    rows = []
    for scorer in dict.fromkeys(line.scorer for line in lines):
        cells = []
        for run in runs:
            line = next((item for item in lines if item.run_id == run and item.scorer == scorer), None)
            for key in COLUMNS:
                value = line.means[key] if line else float("nan")
                cells.append({"text": percent(value), "best": value == best[key]})
        rows.append({"scorer": scorer, "cells": cells})
    return rows


def detail_table(results: Results, selection: Selection) -> list[list[str]]:
    """A heading, and a row per run, detector and OOD set; where local radii are measured with those, and of the ID set.

    The local radius is the median over a set's images.
    """
    measured = bool(selection.radii(results.all_rows()))
    rows = _detail_rows(results, selection, {(line.run_id, line.scorer): line for line in lines(results, selection)})
    return [row[: None if measured else -1] for row in (DETAILS, *rows)]


def _detail_rows(results: Results, selection: Selection, means: Mapping[tuple[str, str], Line]) -> list[list[str]]:
    out = [row for needed in results.needed for row in _detail_rows(needed, selection, means)]
    radii = {(row["scorer"], row["ood_set"]): row for row in selection.radii(results.rows)}
    for scorer in selection.options:
        of_id = radii.get((scorer, None))
        if of_id is not None:
            named = [of_id["method"], scorer, of_id["space"], "test", "ID", f"{of_id['n_id']:,}"]
            out.append([*named, *("-" for _ in METRICS), f"{of_id['value']:.3g}"])
        for ood_set, group in selection.groups.items():
            mine = {
                row["metric"]: row for row in selection.of_scorer(results.rows, scorer) if row["ood_set"] == ood_set
            }
            if mine:
                first = mine["auroc"]
                named = [first["method"], scorer, first["space"], ood_set, group, f"{first['n_ood']:,}"]
                radius = radii.get((scorer, ood_set))
                last = "-" if radius is None else f"{radius['value']:.3g}"
                out.append([*named, *(with_interval(mine[metric]) for metric in METRICS), last])
        line = means.get((results.run_id, scorer))
        several = [group for group in GROUPS if list(selection.groups.values()).count(group) > 1]
        if line is not None:
            out += [
                [*out[-1][:3], "mean", group, "-", *(percent(line.means[group, metric]) for metric in METRICS), "-"]
                for group in several
            ]
    return out


class Fact(NamedTuple):
    """A line about how a run was made."""

    name: str
    text: str


class Picture(NamedTuple):
    """A figure of the page: one image, or a panel for each detector, side by side or one below the other.

    Args:
        panels: of each the run, which begins a new row, what it shows, and its PNG.
    """

    title: str
    caption: str
    panels: Sequence[tuple[str, str, bytes]]


@dataclass(frozen=True)
class About:
    """What the page says besides numbers and figures.

    Args:
        title, subtitle: at its top.
        facts: when, for how long, on what and from which code the run was made.
        caption: the lines below the table.
        command: that makes the run, or evaluates the features.
        config: the resolved configuration.
    """

    title: str
    subtitle: str
    facts: Sequence[Fact]
    caption: Sequence[str]
    command: str
    config: str


def render_page(results: Results, selection: Selection, pictures: Sequence[Picture], about: About) -> str:
    """The page as HTML."""
    found = lines(results, selection)
    return _template("report.html.j2").render(
        run_id=results.run_id,
        about=about,
        **_summary(found),
        details=detail_table(results, selection),
        pictures=[
            {
                "title": picture.title,
                "caption": picture.caption,
                "rows": [
                    [(text, base64.b64encode(png).decode()) for _, text, png in row]
                    for _, row in groupby(picture.panels, key=lambda panel: panel[0])
                ],
            }
            for picture in pictures
        ],
    )


def render_table(lines: Sequence[Line], caption: Sequence[str]) -> str:
    """The table of the page alone, as HTML for a notebook."""
    return _template("table.html.j2").render(**_summary(lines), caption=caption)


def _template(name: str) -> Template:
    folder = FileSystemLoader(Path(__file__).parent / "templates")
    return Environment(loader=folder, autoescape=True, undefined=StrictUndefined).get_template(name)


def _summary(lines: Sequence[Line]) -> dict[str, Any]:
    """What the table of detectors is drawn from."""
    first = {line.run_id: line for line in lines}
    return {
        "columns": list(COLUMNS.values()),
        "lower_is_better": [name for name in COLUMNS.values() if name.startswith("FPR95")],
        "runs": [
            {
                "label": f"{line.method}, {STAGES[line.stage]}",
                "accuracy": percent(line.accuracy),
                "objective": line.objective,
            }
            for line in first.values()
        ],
        "summary": summary_rows(lines),
    }

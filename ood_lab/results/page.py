"""`report.html`: one file that holds everything, for a browser without a network."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ood_lab.results.store import Results, Row
from ood_lab.results.table import METRICS, STAGES, Line, Selection, lines, percent

COLUMNS = (
    ("near", "auroc"), ("far", "auroc"), ("all", "fpr95_ood_pos"),
    ("all", "fpr95_id_pos"), ("all", "aupr_in"), ("all", "aupr_out"),
)  # fmt: skip
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
    rows = _detail_rows(results, selection)
    return [row[: None if measured else -1] for row in (DETAILS, *rows)]


def _detail_rows(results: Results, selection: Selection) -> list[list[str]]:
    out = [row for needed in results.needed for row in _detail_rows(needed, selection)]
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
    return out


def render_page(
    results: Results,
    selection: Selection,
    figures: Sequence[Mapping[str, Any]],
    about: Mapping[str, Any],
) -> str:
    """The page as HTML.

    Args:
        figures: title, caption and PNG bytes of each picture.
        about: caption (lines), config (text), command.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined
    )
    found = lines(results, selection)
    first = {line.run_id: line for line in found}
    last = results.rows[-1]
    return environment.get_template("report.html.j2").render(
        run_id=results.run_id,
        title=f"{last['method']} on {last['dataset']}",
        subtitle=f"{last['backbone']}, seed {last['seed']}, run {results.run_id}",
        caption=about["caption"],
        runs=[
            {
                "label": f"{line.method}, {STAGES[line.stage]}",
                "accuracy": percent(line.accuracy),
                "objective": line.objective,
            }
            for line in first.values()
        ],
        summary=summary_rows(found),
        details=detail_table(results, selection),
        figures=[{**f, "png": base64.b64encode(f["png"]).decode()} for f in figures],
        provenance=(
            f"{last['hardware']}; commit {last['commit'] or 'unknown'}; "
            + ", ".join(f"{k} {v}" for k, v in last["versions"].items())
        ),
        command=about["command"],
        config=about["config"],
    )

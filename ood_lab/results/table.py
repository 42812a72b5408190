"""From rows to the summary that people read: one line per run and detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from ood_lab.results.store import Results, Row

METRICS = ("auroc", "fpr95_ood_pos", "fpr95_id_pos", "aupr_in", "aupr_out")


@dataclass(frozen=True)
class Line:
    """A detector on a run: unweighted means over the near and the far sets, as fractions."""

    run_id: str
    method: str
    stage: str
    scorer: str
    accuracy: float
    means: dict[tuple[str, str], float]  # (group, metric); group is near, far or all


def lines(results: Results, scorers: Sequence[str], ood_sets: Sequence[str]) -> list[Line]:
    """One line per run (needed runs first) and detector, over the sets of the protocol."""
    out = [line for needed in results.stands_on for line in lines(needed, scorers, ood_sets)]
    rows = results.rows
    accuracy = next((row["value"] for row in rows if row["metric"] == "accuracy"), float("nan"))
    for scorer in scorers:
        mine = [row for row in rows if row["scorer"] == scorer and row["ood_set"] in ood_sets]
        if not mine:
            continue
        means = {(group, metric): _mean(mine, group, metric) for group in ("near", "far", "all") for metric in METRICS}
        first = mine[0]
        out.append(Line(results.run_id, first["method"], first["stage"], scorer, accuracy, means))
    return out


def _mean(rows: Sequence[Row], group: str, metric: str) -> float:
    values = [row["value"] for row in rows if row["metric"] == metric and group in ("all", row["group"])]
    return fmean(values) if values else float("nan")

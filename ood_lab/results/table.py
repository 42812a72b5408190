"""From rows to the summary that people read: one line per run and detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True)
class Selection:
    """What a table shows: detectors with the options asked for, and the protocol's sets with their groups."""

    options: Mapping[str, str]  # scorer -> options as stored with its rows
    groups: Mapping[str, str]  # OOD set -> near or far

    def rows(self, results: Results, scorer: str) -> list[Row]:
        """The stored rows of one detector with these options, on these sets."""
        return [
            row
            for row in results.rows
            if row["scorer"] == scorer and row["options"] == self.options[scorer] and row["ood_set"] in self.groups
        ]


def lines(results: Results, selection: Selection) -> list[Line]:
    """One line per run (needed runs first) and detector."""
    out = [line for needed in results.stands_on for line in lines(needed, selection)]
    accuracy = next((row["value"] for row in results.rows if row["metric"] == "accuracy"), float("nan"))
    for scorer in selection.options:
        mine = selection.rows(results, scorer)
        if not mine:
            continue
        means = {
            (group, metric): _mean(mine, selection.groups, group, metric)
            for group in ("near", "far", "all")
            for metric in METRICS
        }
        first = mine[0]
        out.append(Line(results.run_id, first["method"], first["stage"], scorer, accuracy, means))
    return out


def _mean(rows: Sequence[Row], groups: Mapping[str, str], group: str, metric: str) -> float:
    values = [r["value"] for r in rows if r["metric"] == metric and group in ("all", groups[r["ood_set"]])]
    return fmean(values) if values else float("nan")

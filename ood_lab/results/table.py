"""From rows to the summary that people read: one line per run and detector."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from ood_lab.config import Experiment
from ood_lab.results.store import Results, Row, options_text, radius_metric

GIVEN = "given"  # the stage of features that another program has extracted
STAGES = {"pretrain": "trained", "finetune": "fine-tuned", GIVEN: "given features"}
METRICS = ("auroc", "fpr95_ood_pos", "fpr95_id_pos", "aupr_in", "aupr_out")


@dataclass(frozen=True)
class Line:
    """A detector on a run: unweighted means over the near and the far sets, as fractions."""

    run_id: str
    method: str
    stage: str
    scorer: str
    accuracy: float
    tuned: Mapping[str, Any] | None
    means: dict[tuple[str, str], float]  # (group, metric); group is near, far or all
    objective: str  # what its run minimised; nothing for features that were given


@dataclass(frozen=True)
class Selection:
    """What a table shows: detectors with the options asked for, and the protocol's sets by its conventions.

    Args:
        options: scorer to its options as stored with its rows.
        groups: OOD set to near or far.
        conventions: OOD set to the convention of its rows.
        of_accuracy: the convention of the ID accuracy.
        stated: OOD set to its number of images as the protocol or the set's own description has it today.
        radius: the metric of local radii at the requested threshold.
    """

    options: Mapping[str, str]
    groups: Mapping[str, str]
    conventions: Mapping[str, str]
    of_accuracy: str
    stated: Mapping[str, int | None] = field(default_factory=dict)
    radius: str = ""

    @staticmethod
    def of(experiment: Experiment) -> Selection:
        """The detectors, options, sets and groups that a request asks for."""
        options = {name: options_text(node) for name, node in experiment.detectors.items()}
        conventions = {name: experiment.convention(name) for name in experiment.ood_sets}
        stated = {name: experiment.use(name).expected for name in experiment.ood_sets}
        radius = radius_metric(experiment.id_rate)
        return Selection(options, experiment.groups_of_sets, conventions, experiment.convention(), stated, radius)

    def with_stored(self, rows: Sequence[Row]) -> Selection:
        """Also the detectors that other commands have scored on these sets, each with its latest options."""
        mine = [row for row in rows if row["scorer"] is not None and row["ood_set"] in self.conventions]
        others = {
            row["scorer"]: row["options"] for row in mine if row["convention"] == self.conventions[row["ood_set"]]
        }
        return replace(self, options={**self.options, **{k: v for k, v in others.items() if k not in self.options}})

    @staticmethod
    def of_rows(rows: Sequence[Row], asked: Mapping[str, str]) -> Selection:
        """Every detector and set that rows have, each with the options asked for, or else as it was stored last."""
        scored = [row for row in rows if row["scorer"] is not None and row["ood_set"] is not None]
        groups = {row["ood_set"]: row["group"] for row in scored}
        there = {row["scorer"]: row["options"] for row in scored if asked.get(row["scorer"]) == row["options"]}
        of_id = [row["convention"] for row in rows if row["metric"] == "accuracy"]
        return Selection(
            {**{row["scorer"]: row["options"] for row in scored}, **there},
            dict(sorted(groups.items(), key=lambda item: item[1] == "far")),
            {row["ood_set"]: row["convention"] for row in scored},
            of_id[-1] if of_id else "",
        )

    def of_run(self, rows: Sequence[Row]) -> Selection:
        """The same of a run that may have been scored with other options: of a detector without these, its latest."""
        asked = [row for row in rows if row["scorer"] is not None and self.options.get(row["scorer"]) == row["options"]]
        mine = replace(self, options={row["scorer"]: row["options"] for row in asked})
        return mine.with_stored(rows)

    def holds(self, row: Row) -> bool:
        """Whether a row is of these options and conventions."""
        if row["scorer"] is not None and self.options.get(row["scorer"]) != row["options"]:
            return False
        if row["ood_set"] is not None:
            return self.conventions.get(row["ood_set"]) == row["convention"]
        return not self.of_accuracy or row["convention"] == self.of_accuracy

    def of_scorer(self, rows: Sequence[Row], scorer: str) -> list[Row]:
        """The rows of one detector with these options, on these sets, by these conventions."""
        options = self.options[scorer]
        mine = [row for row in rows if row["scorer"] == scorer and row["options"] == options]
        return [row for row in mine if self.conventions.get(row["ood_set"]) == row["convention"]]

    def feature_keys(self, rows: Sequence[Row]) -> dict[str, str]:
        """The feature keys of the selected sets, and of "test"."""
        keys = {r["ood_set"]: r["features"] for r in rows if self.conventions.get(r["ood_set"]) == r["convention"]}
        test = next((row["features"] for row in rows if self._is_accuracy(row)), None)
        return keys if test is None else {**keys, "test": test}

    def fits(self, rows: Sequence[Row]) -> dict[str, str]:
        """What each selected detector was fitted on, as its rows have it."""
        return {
            row["scorer"]: row["fit"]
            for row in rows
            if self.options.get(row["scorer"]) == row["options"]
            and self.conventions.get(row["ood_set"]) == row["convention"]
        }

    def radii(self, rows: Sequence[Row]) -> list[Row]:
        """The median local radii of the selected detectors on the selected sets, and on the ID test images."""
        measured = [row for row in rows if row["metric"] == self.radius]
        mine = [row for row in measured if self.options.get(row["scorer"]) == row["options"]]
        return [
            row for row in mine if self.conventions.get(row["ood_set"] or "", self.of_accuracy) == row["convention"]
        ]

    def accuracy(self, rows: Sequence[Row]) -> float:
        """The ID accuracy on the protocol's test images; nan if it isn't stored."""
        return next((row["value"] for row in self.of_accuracies(rows)), float("nan"))

    def of_accuracies(self, rows: Sequence[Row]) -> list[Row]:
        """The rows of the ID accuracy on the protocol's test images: one at most."""
        return [row for row in rows if self._is_accuracy(row)]

    def partial(self, rows: Sequence[Row]) -> dict[str, tuple[int, int]]:
        """The sets of which another number of images was scored than their source states: (scored, stated)."""
        chosen = [row for row in rows if self.conventions.get(row["ood_set"]) == row["convention"]]
        counts = [(r["ood_set"], r["n_ood"], self.stated.get(r["ood_set"], r["n_expected"])) for r in chosen]
        return {name: (n, stated) for name, n, stated in counts if stated is not None and stated != n}

    def overlapping(self, rows: Sequence[Row]) -> dict[str, str]:
        """The sets that share images with the auxiliary set of a run, and how many; no mean counts them."""
        chosen = [row for row in rows if self.conventions.get(row["ood_set"]) == row["convention"]]
        return {row["ood_set"]: row["overlap"] for row in chosen if row["overlap"] is not None}

    def _is_accuracy(self, row: Row) -> bool:
        return row["metric"] == "accuracy" and row["convention"] == self.of_accuracy


def percent(value: float) -> str:
    """A fraction in percent, one digit; a dash where there is none."""
    return "-" if value != value else f"{100 * value:.1f}"


def lines(results: Results, selection: Selection) -> list[Line]:
    """One line per run (needed runs first) and detector; a set that one run's auxiliary set shares is in no mean."""
    return _lines(results, selection, {*selection.overlapping(results.all_rows())})


def _lines(results: Results, selection: Selection, shared: Collection[str]) -> list[Line]:
    out = [line for needed in results.needed for line in _lines(needed, selection, shared)]
    accuracy = selection.accuracy(results.rows)
    for scorer in selection.options:
        mine = selection.of_scorer(results.rows, scorer)
        if not mine:
            continue
        apart = [row for row in mine if row["ood_set"] not in shared]
        means = {
            (group, metric): _mean(apart, selection.groups, group, metric)
            for group in ("near", "far", "all")
            for metric in METRICS
        }
        first = mine[0]
        out.append(
            Line(
                results.run_id,
                first["method"],
                first["stage"],
                scorer,
                accuracy,
                first["tuned"],
                means,
                first["objective"] or ("" if first["stage"] == GIVEN else "not stored"),
            )
        )
    return out


def _mean(rows: Sequence[Row], groups: Mapping[str, str], group: str, metric: str) -> float:
    values = [r["value"] for r in rows if r["metric"] == metric and group in ("all", groups[r["ood_set"]])]
    return fmean(values) if values else float("nan")

"""The cells of a table: ours, of exactly the runs that the plan names, and beside it what the paper prints."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, pstdev
from typing import Any

from ood_lab.config.experiment import Experiment
from ood_lab.results.store import Row, read_rows
from ood_lab.results.table import Selection
from ood_lab.tables.plan import Place, Plan
from ood_lab.tables.spec import ANGLES, OPTIONAL_STAGES, PARTS, SCALES, Column, Table, TableRow, unit_of

GROUPS = ("near", "far")
# What rows call the cost of a batch of synthesized outliers.
COSTS = {"time": "synthesis_time", "memory": "synthesis_memory"}
# What rows call the time and the size of the stages of a chain of runs.
OF_STAGES = {"time": "stage_time/", "memory": "stage_bytes/"}
STORED_UNITS = {"time": 1.0, "memory": 2.0**20}  # of what is stored of a batch, in seconds or bytes
LOWER_IS_BETTER = ("fpr95", "time", "memory", "compactness")


@dataclass(frozen=True)
class Cell:
    """One figure, ours and theirs.

    Args:
        values: ours of each seed, in the column's unit; empty where nothing is stored yet.
        text: a setting, in a table of settings.
        wanted: how many seeds the table has.
        paper, paper_std: as printed; None where nothing is, or where ours is measured on other images.
    """

    values: tuple[float, ...] = ()
    text: str | None = None
    wanted: int = 0
    paper: str | None = None
    paper_std: str | None = None

    @property
    def mean(self) -> float | None:
        return fmean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """Population standard deviation over seeds; None for one."""
        return pstdev(self.values) if len(self.values) > 1 else None

    @property
    def difference(self) -> float | None:
        """Ours less the paper's."""
        number = as_number(self.paper)
        return None if number is None or self.mean is None else self.mean - number

    @property
    def exceeds(self) -> bool:
        """Whether ours is not the paper's: the difference is more than the combined spread, sqrt(ours^2 + theirs^2).

        False without any spread; a setting is compared as it is.
        """
        if self.text is not None:
            ours, theirs = as_number(self.text), as_number(self.paper)
            same = self.text == self.paper if ours is None else ours == theirs
            return self.paper is not None and not same
        spreads = [spread for spread in (self.std, as_number(self.paper_std)) if spread is not None]
        return bool(spreads) and self.difference is not None and abs(self.difference) > math.hypot(*spreads)


@dataclass(frozen=True)
class Filled:
    """A table with its cells.

    Args:
        columns: the table's, and near and far means where a mean is over both.
        cells: a row each.
        unavailable: for each row that has none the reason; rows of differences have neither.
        experiments: the runs of each place.
        rows: what is stored of each run.
        shared: of each ID set the OOD sets that share images with the auxiliary set of some run, and how many.
    """

    table: Table
    columns: tuple[Column, ...]
    cells: tuple[tuple[Cell, ...], ...]
    unavailable: Mapping[int, str]
    experiments: Mapping[Place, tuple[Experiment, ...]]
    rows: Mapping[str, tuple[Row, ...]]
    shared: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def runs(self, row: int, column: Column) -> tuple[Experiment, ...]:
        """The runs of a cell; none where they can't be made."""
        return self.experiments.get(Place.of(self.table, row, column), ())

    def used(self) -> list[Row]:
        """The stored rows that the cells are made of."""
        found = []
        for place, runs in self.experiments.items():
            scorer = self.table.rows[place.row].scorer
            for run in runs:
                chosen, rows = Selection.of(run), self.rows[run.run_id]
                found += chosen.of_scorer(rows, scorer) if scorer else chosen.of_accuracies(rows)
        return found

    def first(self, dataset: str) -> Experiment | None:
        """Some run on that ID set."""
        return next((r[0] for place, r in self.experiments.items() if place.dataset == dataset), None)


def fill(table: Table, plan: Plan) -> Filled:
    """Read what is stored of the table's runs.

    Raises:
        RunError: a stored file can't be read.
    """
    experiments = {place: runs for place, runs in plan.experiments.items() if place.table == table.id}
    rows = {r.run_id: tuple(read_rows(r.run_dir)) for runs in experiments.values() for r in runs}
    shared = {dataset: _shared(dataset, experiments, rows) for dataset in {column.dataset for column in table.columns}}
    columns = _with_groups(table, experiments)
    cells = tuple(
        tuple(
            _cell(
                table, row, column, at, experiments.get(Place.of(table, number, column)), rows, shared[column.dataset]
            )
            for column, at in columns
        )
        for number, row in enumerate(table.rows)
    )
    unavailable: dict[int, str] = {}
    for place, reason in plan.unavailable.items():
        if place.table == table.id:
            unavailable.setdefault(place.row, reason)
    return Filled(table, tuple(column for column, _ in columns), cells, unavailable, experiments, rows, shared)


def _shared(
    dataset: str, experiments: Mapping[Place, tuple[Experiment, ...]], rows: Mapping[str, Sequence[Row]]
) -> dict[str, str]:
    """The OOD sets of an ID set that share images with the auxiliary set of some run."""
    runs = [run for place, runs in experiments.items() if place.dataset == dataset for run in runs]
    return {name: told for run in runs for name, told in Selection.of(run).overlapping(rows[run.run_id]).items()}


def _with_groups(table: Table, experiments: Mapping[Place, tuple[Experiment, ...]]) -> list[tuple[Column, int | None]]:
    """The table's columns and their places; behind a mean over near and far sets, the mean over each of them."""
    columns: list[tuple[Column, int | None]] = []
    for at, column in enumerate(table.columns):
        columns.append((column, at))
        runs = next((r for place, r in experiments.items() if place.dataset == column.dataset), ())
        groups = {runs[0].groups_of_sets[name] for name in _sets(table, column, runs[0])} if runs else set()
        if column.over == "mean" and len(groups) > 1:
            columns += [(replace(column, over=group), None) for group in GROUPS]
    return columns


def _sets(table: Table, column: Column, experiment: Experiment) -> list[str]:
    """The OOD sets that a column is over, of those that are there."""
    if column.over is None:
        return []
    if column.over not in ("mean", *GROUPS):
        return [column.over] if column.over in experiment.groups_of_sets else []
    groups = (column.over,) if column.over in GROUPS else GROUPS
    return [name for name in table.sets[column.dataset] if experiment.groups_of_sets.get(name) in groups]


def _cell(
    table: Table,
    row: TableRow,
    column: Column,
    at: int | None,
    runs: Sequence[Experiment] | None,
    rows: Mapping[str, Sequence[Row]],
    shared: Collection[str],
) -> Cell:
    paper, std = (None, None) if at is None else (row.values[at], row.std[at] if row.std else None)
    if runs is None:
        return Cell(paper=paper, paper_std=std)
    if table.kind == "config":
        return Cell(text=_setting(runs[0], row.key), wanted=1, paper=paper)
    if column.part is not None:
        unit = SCALES[column.metric][unit_of(table, row, column)]
        found = [_stages(column, unit, rows[experiment.run_id]) for experiment in runs]
    else:
        found = [_value(table, row, column, experiment, rows[experiment.run_id], shared) for experiment in runs]
    values = tuple(value for value in found if value is not None)
    comparable = not values or all(_comparable(table, row, column, r, rows[r.run_id], shared) for r in runs)
    return Cell(values, None, len(runs), *((paper, std) if comparable else (None, None)))


def _setting(experiment: Experiment, key: str | None) -> str | None:
    value = None if key is None else experiment.value(key)
    return None if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _value(
    table: Table, row: TableRow, column: Column, experiment: Experiment, rows: Sequence[Row], shared: Collection[str]
) -> float | None:
    """A run's figure in the column's unit; None if it is not stored."""
    chosen = Selection.of(experiment)
    if column.metric in COSTS:
        unit = column.unit or table.unit
        stored = next((r["value"] for r in rows if r["metric"] == COSTS[column.metric]), None)
        scale = SCALES[column.metric].get(unit)
        return stored if stored is None or scale is None else stored * STORED_UNITS[column.metric] / scale
    if column.metric in ANGLES:
        return _angle(table, column, experiment, rows, shared)
    if column.metric == "accuracy":
        accuracy = chosen.accuracy(rows)
        return None if math.isnan(accuracy) else 100 * accuracy
    metric = {"fpr95": f"fpr95_{experiment.protocol.fpr95}", "aupr": "aupr_in"}
    name = metric.get(column.metric, column.metric)
    sets = _apart(_sets(table, column, experiment), column, shared)
    of_set = {r["ood_set"]: r["value"] for r in chosen.of_scorer(rows, row.scorer or "") if r["metric"] == name}
    return 100 * fmean(of_set[s] for s in sets) if sets and set(sets) <= set(of_set) else None


def _stages(column: Column, unit: float, rows: Sequence[Row]) -> float | None:
    """What the stages of a part took or take, in a unit; None where one of them is not stored."""
    mark = OF_STAGES[column.metric]
    stored = {r["metric"].removeprefix(mark): r["value"] for r in rows if r["metric"].startswith(mark)}
    there = {r["metric"].partition("/")[2] for r in rows}  # a stage whose time is not known has its bytes
    wanted = PARTS[column.metric][column.part or "total"]
    stages = [name for name in wanted if name in there or name not in OPTIONAL_STAGES]
    return sum(stored[name] for name in stages) / unit if set(stages) <= set(stored) else None


def _apart(sets: list[str], column: Column, shared: Collection[str]) -> list[str]:
    """The sets of a mean that share no image with an auxiliary set; a column of one set keeps it."""
    return [name for name in sets if name not in shared or column.over == name]


def _angle(
    table: Table, column: Column, experiment: Experiment, rows: Sequence[Row], shared: Collection[str]
) -> float | None:
    """An angle in degrees; of several sets the mean."""
    chosen = Selection.of(experiment)
    found = [row for row in rows if row["metric"] == column.metric]
    if column.over is None:
        own = [row for row in found if row["convention"] == chosen.of_accuracy]
        return own[0]["value"] if own else None
    sets = _apart(_sets(table, column, experiment), column, shared)
    of_set = {r["ood_set"]: r["value"] for r in found if r["convention"] == chosen.conventions.get(r["ood_set"])}
    return fmean(of_set[s] for s in sets) if sets and set(sets) <= set(of_set) else None


def _comparable(
    table: Table, row: TableRow, column: Column, experiment: Experiment, rows: Sequence[Row], shared: Collection[str]
) -> bool:
    """Whether a run's figure may be put beside the paper's: whole sets, all of them, counts checked."""
    protocol, chosen = experiment.protocol, Selection.of(experiment)
    if protocol.check != "strict":
        return False
    own = chosen.of_scorer(rows, row.scorer) if row.scorer and column.over else chosen.of_accuracies(rows)
    whole = experiment.dataset.recipe.test_images
    if whole is not None and any(stored["n_id"] != whole - (protocol.id_val or 0) for stored in own):
        return False
    wanted = table.sets.get(column.dataset, ()) if column.over == "mean" else (column.over,) if column.over else ()
    unlike = {*chosen.partial(own), *shared}
    return all(name in experiment.groups_of_sets and name not in unlike for name in wanted)


def as_number(printed: Any) -> float | None:
    """A printed figure, or the value of an override, as a number; None for anything else."""
    try:
        return None if printed is None else float(printed)
    except ValueError:
        return None

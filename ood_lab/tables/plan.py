"""What tables need: each distinct run once, with the detectors that their cells read, and what can't be made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ood_lab.config.experiment import Experiment
from ood_lab.config.prepare import on_disk, prepare, with_ood_sets, with_seed
from ood_lab.config.quoting import as_override
from ood_lab.errors import OodLabError
from ood_lab.progress import track
from ood_lab.results.store import read_rows
from ood_lab.runs.claim import verify
from ood_lab.runs.outstanding import outstanding
from ood_lab.tables.spec import Column, Table

Changes = tuple[str, ...]
Detectors = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Place:
    """Where in a table the numbers of a run are: a row, on one ID set, of one network."""

    table: str
    row: int
    dataset: str
    backbone: str | None

    @staticmethod
    def of(table: Table, row: int, column: Column) -> Place:
        return Place(table.id, row, column.dataset, column.backbone)


@dataclass
class Job:
    """The runs (one a seed) that cells read.

    Args:
        changes: the command line without detectors and seed.
        sets: the OOD sets of the table; empty for all of the protocol.
        detectors: with the options that the table asks for.
        places: where the numbers are.
    """

    changes: Changes
    seeds: tuple[int, ...]
    sets: tuple[str, ...] = ()
    detectors: Detectors = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)

    def takes(self, other: Job) -> bool:
        """Whether both are the same runs, and no detector is asked for with two sets of options."""
        same = (self.changes, self.seeds, self.sets) == (other.changes, other.seeds, other.sets)
        return same and all(self.detectors.get(name, options) == options for name, options in other.detectors.items())

    @property
    def overrides(self) -> Changes:
        """The whole command line but the seed."""
        if not self.detectors:
            return self.changes
        options = [
            f"scorer.{name}.{key}={as_override(value)}"
            for name, node in self.detectors.items()
            for key, value in node.items()
        ]
        return (*self.changes, f"scorer=[{','.join(self.detectors)}]", *options)


@dataclass(frozen=True)
class Plan:
    """The runs of some tables.

    Args:
        experiments: for each place its runs, one a seed.
        unavailable: for each place that has none the reason, as "method=npos: no such method. ...".
    """

    experiments: Mapping[Place, tuple[Experiment, ...]]
    unavailable: dict[Place, str]

    @cached_property
    def runs(self) -> list[Experiment]:
        """Every distinct request, in the order of the tables."""
        found = {(r.run_id, r.overrides): r for experiments in self.experiments.values() for r in experiments}
        return list(found.values())

    @cached_property
    def run_ids(self) -> set[str]:
        """Of all runs; some are asked for more than once, with other detectors or sets."""
        return {experiment.run_id for experiment in self.runs}

    @cached_property
    def done(self) -> set[str]:
        """The runs of which nothing is outstanding."""
        return self.run_ids - {experiment.run_id for experiment in self.runs if outstanding(experiment)}


def _check_stored(experiment: Experiment) -> None:
    """What is in the folders of a run and of those it depends on must be theirs, and readable."""
    verify(experiment)
    read_rows(experiment.run_dir)
    for need in experiment.prerequisites.values():
        _check_stored(need)


def jobs_of(table: Table) -> Iterator[Job]:
    """The runs of each row on each ID set and network, in the order of the file; rows of differences have none."""
    for number, row in enumerate(table.rows):
        if row.derived:
            continue
        detectors = {row.scorer: dict(row.options)} if row.scorer else {}
        for place, columns in _places(table, number).items():
            sets = table.sets.get(place.dataset, ())
            yield Job(table.changes(row, columns[0]), table.seeds, sets, dict(detectors), [place])


def _places(table: Table, row: int) -> dict[Place, list[Column]]:
    places: dict[Place, list[Column]] = {}
    for column in table.columns:
        places.setdefault(Place.of(table, row, column), []).append(column)
    return places


def merged(jobs: Sequence[Job]) -> list[Job]:
    """Jobs of the same runs as one, as long as no detector is asked for with two sets of options."""
    kept: list[Job] = []
    of_run: dict[Changes, list[Job]] = {}
    for job in jobs:
        same = of_run.setdefault(job.changes, [])
        fits = next((other for other in same if other.takes(job)), None)
        if fits is None:
            fits = Job(job.changes, job.seeds, job.sets)
            same.append(fits)
            kept.append(fits)
        fits.detectors |= job.detectors
        fits.places += job.places
    return kept


def plan(tables: Sequence[Table], folder: Path | None = None, look: bool = True, machine: bool = True) -> Plan:
    """The runs of the tables, duplicates removed.

    Args:
        folder: a user's --config-dir.
        look: leave out what can't run with the images that are here, or whose folder holds something else. Without it
            everything is planned that can be composed.
        machine: leave out what this machine can't run.
    """
    experiments: dict[Place, tuple[Experiment, ...]] = {}
    unavailable: dict[Place, str] = {}
    jobs = [job for table in tables for job in jobs_of(table)]
    for job in track(merged(jobs), "plan"):
        try:
            first = prepare([*job.overrides, f"seed={job.seeds[0]}"], folder, look=False)
            first = with_ood_sets(first, job.sets) if job.sets else first
            first = on_disk(first, machine) if look else first
            runs = tuple(with_seed(first, seed) for seed in job.seeds)
            for experiment in runs if look else ():
                _check_stored(experiment)
        except OodLabError as error:
            unavailable |= dict.fromkeys(job.places, str(error))
            continue
        experiments |= dict.fromkeys(job.places, runs)
    return Plan(experiments, unavailable)

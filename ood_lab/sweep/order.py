"""In which order runs are made: what others depend on first, each run once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ood_lab.config.experiment import Experiment
from ood_lab.config.groups import MAKERS
from ood_lab.runs.outstanding import outstanding


@dataclass
class Work:
    """All that is asked of one run.

    Args:
        experiments: they differ in what they want scored.
        asked: whether the run is asked for, or only a prerequisite of one that is.
    """

    run_id: str
    experiments: list[Experiment]
    asked: bool

    @property
    def prerequisites(self) -> set[str]:
        """The ids of the runs that it depends on."""
        return {run_id for experiment in self.experiments for run_id in experiment.prerequisite_ids}

    @property
    def left(self) -> list[Experiment]:
        """The experiments that still want something; evaluation and reports are always carried out."""
        return [e for e in self.experiments if e.task.name not in ("train", *MAKERS) or outstanding(e)]


def in_waves(experiments: Sequence[Experiment]) -> list[list[Work]]:
    """What is to be done: everything in one wave can be made at once, after the waves before it."""
    works: dict[str, Work] = {}
    depth: dict[str, int] = {}
    for asked_for in experiments:
        for experiment in asked_for.with_prerequisites():
            work = works.setdefault(experiment.run_id, Work(experiment.run_id, [], False))
            work.asked = work.asked or experiment is asked_for
            depth[experiment.run_id] = max(_depth(experiment), depth.get(experiment.run_id, 0))
            if experiment.overrides not in [other.overrides for other in work.experiments]:
                work.experiments.append(experiment)
    waves: dict[int, list[Work]] = {}
    for run_id, work in works.items():
        if work.left:
            waves.setdefault(depth[run_id], []).append(work)
    return [waves[level] for level in sorted(waves)]


def _depth(experiment: Experiment) -> int:
    """How many runs must be made before it, one after the other."""
    return max((1 + _depth(other) for other in experiment.prerequisites.values()), default=0)

"""What is to be done, and how long it will take, by runs of the same kind that are done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ood_lab.config.experiment import Experiment
from ood_lab.config.groups import MAKERS, TRAINED_ON
from ood_lab.config.identity import prefix, weight_values
from ood_lab.config.objective import objective
from ood_lab.errors import RequestError
from ood_lab.progress import clock
from ood_lab.runs.outstanding import READS_A_CLASSIFIER, check_trained, is_made, outstanding
from ood_lab.runs.run_folder import RunFolder
from ood_lab.sweep.order import in_waves

ROLES_OF_SETS = ("id", *TRAINED_ON, "near", "far", "validation")


def planned(experiment: Experiment) -> list[str]:
    """What a command about one run would do, a line each: the runs, the images, the detectors, the time.

    Raises:
        RequestError: a task that computes nothing, or that reads a classifier which is not there.
    """
    task = experiment.task.name
    if task not in ("train", "evaluate", *MAKERS):
        raise RequestError(f"dry_run=true: task={task} trains and scores nothing; leave dry_run out")
    if task in READS_A_CLASSIFIER:
        check_trained(experiment)
    runs = {run.run_id: run for run in experiment.with_prerequisites()}
    *below, own = [f"{run_id} ({state(run)})" for run_id, run in runs.items()]
    lines = [f"task={task}: {own}, in {experiment.run_dir.parent}"]
    lines += [f"depends on {', '.join(below)}"] if below else []
    if not experiment.makes_no_classifier:
        lines.append(f"minimises {objective(experiment)}")
        groups = {role: [use.name for use in experiment.image_sets if use.role == role] for role in ROLES_OF_SETS}
        lines.append("; ".join(f"{role}: {', '.join(names)}" for role, names in groups.items() if names))
        absent = [n for n in (*experiment.protocol.near, *experiment.protocol.far) if n not in experiment.ood_sets]
        lines += [f"not there, left out: {', '.join(absent)}; task=data says how to get them"] if absent else []
        lines.append(f"detectors: {', '.join(experiment.detectors)}")
    return [*lines, estimate([experiment], 1)]


def state(experiment: Experiment) -> str:
    """How far a run is: done with all that is asked of it, begun, or new."""
    if not outstanding(experiment):
        return "done"
    return "begun" if RunFolder(experiment.run_dir).identity.is_file() else "new"


def estimate(experiments: Sequence[Experiment], workers: int) -> str:
    """What is to be done of the experiments and of what they depend on, as text."""
    works = [work for wave in in_waves(experiments) for work in wave]
    new = [work for work in works if not is_made(work.experiments[0])]
    kinds = [_kind(work.experiments[0]) for work in new]
    seconds = {kind: _median(kind) for kind in set(kinds)}
    known = [found for kind in kinds if (found := seconds[kind]) is not None]
    if not works:
        return "Nothing to do."
    trained = any(work.asked and not work.experiments[0].makes_no_classifier for work in works)
    kinds_of_work = {
        "to be trained" if trained else "to be made": sum(work.asked for work in new),
        "that they depend on": sum(not work.asked for work in new),
        "to be scored only": len(works) - len(new),
    }
    text = f"To do: {', '.join(f'{count} {name}' for name, count in kinds_of_work.items() if count)}."
    if known:
        some = "" if len(known) == len(new) else f" for {len(known)} of them"
        text += f" About {clock(sum(known) / min(workers, len(new)))}{some}, by earlier runs of the same kind."
    if len(known) < len(new):
        text += f" No time is known for {len(new) - len(known)}: no run of that kind is finished here."
    return text


@dataclass(frozen=True)
class Kind:
    """What a run's time depends on: method, data, network and epochs."""

    output: Path
    prefix: str
    values: tuple[tuple[str, Any], ...]


def _kind(experiment: Experiment) -> Kind:
    return Kind(experiment.run_dir.parent, prefix(experiment), _shape(weight_values(experiment)))


def _shape(values: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(
        (k, repr(v)) for k, v in sorted(values.items()) if k.startswith(("backbone.", "trainer.", "producer."))
    )


def _median(kind: Kind) -> float | None:
    folders = [RunFolder(path) for path in kind.output.glob(f"{kind.prefix}-s*")]
    found = [folder.seconds for folder in folders if folder.seconds is not None and _is_of(kind, folder)]
    return median(found) if found else None


def _is_of(kind: Kind, folder: RunFolder) -> bool:
    try:
        values = folder.weight_values()
    except RequestError:  # another run's folder, edited by somebody: it tells nothing, and is not asked for
        return False
    return values is not None and _shape(values) == kind.values

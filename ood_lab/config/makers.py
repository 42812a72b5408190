"""Checking a command that trains no classifier: it must name what makes its outcome, and nothing without effect."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ood_lab.config.experiment import Experiment
from ood_lab.config.groups import MAKERS, groups, nearest
from ood_lab.config.options import affected_by
from ood_lab.errors import RequestError

# What is about the command, whatever is made.
ANY = ("task", "paths", "trainer", "experiment", "hydra")
SAID = {"producer": "makes a set", "generator": "trains one"}


def check_maker(experiment: Experiment, given: Collection[str]) -> None:
    """Refuse a task without its producer or generator, one of these without its task, and options without effect.

    Args:
        given: the keys that the command line states.

    Raises:
        RequestError: see above.
    """
    for task, group in MAKERS.items():
        part = getattr(experiment, group)
        if part is not None and experiment.task.name != task:
            raise RequestError(f"{group}={part.choice}: only task={task} {SAID[group]}; add it, or leave {group} out")
    if not experiment.makes_no_classifier:
        return
    maker = experiment.maker
    if maker is None:
        group = MAKERS[experiment.task.name]
        known = groups(experiment.config_dir)[group]
        raise RequestError(f"task={experiment.task.name}: name the {group}, {group}=NAME.{nearest('', known)}")
    read = (*ANY, *experiment.read_groups)
    for key in given:
        trains = key.startswith("trainer.") and affected_by(key)  # options of the machine affect nothing
        if key.partition(".")[0] not in read or trains:
            seed = (
                f"; its draws have a seed of their own, {maker.group}.seed={experiment.seed}" if key == "seed" else ""
            )
            raise RequestError(
                f"{key}: {maker.group}={maker.choice} does not depend on it, so that it would count for nothing{seed}. "
                "Leave it out"
            )
    for name in maker.declared.get("files", ()):
        path = maker.get(name)
        if path is not None and not Path(path).is_file():
            raise RequestError(f"{maker.path}.{name}={path}: no such file")
    if experiment.task.name == "train_generator" and experiment.trainer.devices > 1:
        raise RequestError("trainer.devices: a generator is trained on one device; leave it out")

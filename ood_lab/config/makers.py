"""Checking what makes sets and generators: a command must name the one that it is about, and nothing without effect."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ood_lab.config.experiment import Experiment
from ood_lab.config.groups import MAKERS, groups
from ood_lab.config.options import affected_by
from ood_lab.config.prerequisites import groups_handed_down
from ood_lab.config.pretrained import check_model
from ood_lab.config.suggest import nearest
from ood_lab.errors import RequestError
from ood_lab.reader.shards import MANIFEST

# What is about the command, whatever is made.
ANY = ("task", "paths", "trainer", "experiment", "hydra")


def check_maker(experiment: Experiment, given: Collection[str]) -> None:
    """Refuse a task without what makes its outcome, a maker that nothing depends on, and options without effect.

    Args:
        given: the keys that the command line states.

    Raises:
        RequestError: see above.
    """
    maker = experiment.maker
    if experiment.makes_no_classifier and maker is None:
        group = MAKERS[experiment.task.name]
        known = groups(experiment.config_dir)[group]
        raise RequestError(f"task={experiment.task.name}: name the {group}, {group}=NAME.{nearest('', known)}")
    handed_down = _handed_down(experiment)
    for task, group in MAKERS.items():
        part = getattr(experiment, group)
        if part is None and group in given and group in handed_down:
            raise RequestError(f"{group}=null: this command depends on a run with task={task}; leave {group} out")
        # What a recipe chooses may be left unused, by a data set of another kind.
        if part is not None and group in given and part is not maker and group not in handed_down:
            raise RequestError(
                f"{group}={part.choice}: nothing that this command does depends on it; add task={task} to run it by "
                f"itself, or leave {group} out"
            )
    if maker is None:
        return
    read = (*ANY, *experiment.read_groups, *experiment.passed_groups)
    for key in given:
        trains = key.startswith("trainer.") and affected_by(key)  # options of the machine affect nothing
        if key.partition(".")[0] not in read or trains:
            seed = (
                f"; its draws have a seed of their own, {maker.group}.seed={experiment.seed}" if key == "seed" else ""
            )
            raise RequestError(
                f"{key}: {maker.group}={maker.choice} does not depend on it, so it would have no effect{seed}. "
                "Leave it out"
            )
    for name in maker.declared.get("files", ()):
        path = maker.get(name)
        if path is not None and not Path(path).is_file():
            raise RequestError(f"{maker.path}.{name}={path}: no such file")
    if experiment.task.name == "train_generator" and experiment.trainer.devices > 1:
        raise RequestError("trainer.devices: a generator is trained on one device; leave it out")


def check_models(experiment: Experiment) -> None:
    """Refuse a pretrained model that is not there and can't be had, for a set that is not made yet.

    Raises:
        RequestError: see `ood_lab.config.pretrained`.
    """
    maker = experiment.maker
    if maker is None or (experiment.product / MANIFEST).is_file():
        return
    for name in maker.declared.get("models", ()):
        check_model(f"{maker.path}.{name}", maker.options[name])


def _handed_down(experiment: Experiment) -> set[str]:
    """The groups that any run which the experiment depends on inherits."""
    lists = [needed for part in experiment.depending_parts for needed in part.options["needs"].values()]
    handed = (groups_handed_down(experiment, needed) for needed in lists if isinstance(needed, list))
    return {group for groups in handed for group in groups or ()}

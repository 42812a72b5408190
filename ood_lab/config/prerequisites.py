"""The runs that an experiment depends on: the command line that would make each."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ood_lab.config.affects import WEIGHTS
from ood_lab.config.compose import target
from ood_lab.config.experiment import Experiment
from ood_lab.config.groups import MAKERS
from ood_lab.config.groups import groups as groups_of
from ood_lab.config.identity import flat
from ood_lab.config.options import affected_by
from ood_lab.config.own_folder import written
from ood_lab.config.quoting import as_override, as_typed, quote
from ood_lab.config.scorers import serves
from ood_lab.config.signature import signature
from ood_lab.errors import RequestError

INIT = "init"  # the run that the weights come from
# What the network of such a run is, and on what it is trained and scored; its method is its own.
OF_NETWORK = ("backbone", "dataset", "protocol")
# What no run hands down: pictures, curves and notes are of one run; paths and the seed are handed down as they are.
NOT_INHERITED = ("figure", "task", "paths", "seed", "trainer.evaluate_", "note")


def prerequisites_of(experiment: Experiment, chosen: Mapping[str, Any]) -> dict[str, list[str]]:
    """By name the overrides of each run that an experiment depends on, as a user would type them.

    It inherits whatever does not affect weights (protocol, detectors, machine), and the groups that it shares.

    Args:
        chosen: the configuration that the choices of groups give by themselves, without any value.
    """
    _refuse_elsewhere(experiment)
    found = {}
    for part in experiment.depending_parts:
        for name, overrides in part.options["needs"].items():
            if not isinstance(overrides, list) or not all(isinstance(text, str) for text in overrides):
                raise RequestError(
                    f"{part.path}.needs.{name}={overrides!r}: expected the overrides of a run, as in "
                    f"{part.path}.needs.{name}=[task=synthesize,producer=fractals]"
                )
            found[f"{part.path}.{name}"] = [*_of_part(experiment, overrides, chosen), *map(as_typed, overrides)]
    init = experiment.init
    if experiment.makes_no_classifier or init.method is None or init.checkpoint is not None or init.weights is not None:
        return found
    return {INIT: [*_of_classifier(experiment, init.method, chosen), *init.overrides], **found}


def _refuse_elsewhere(experiment: Experiment) -> None:
    """Parts of groups that are built without what other runs made."""
    for group in ("dataset", "augmentation", "scorer", "figure"):
        for part in experiment.of_group(group):
            if part.get("needs"):
                raise RequestError(
                    f"{part.path}.needs: a part of the group {group} can't depend on a run; parts of a method, a "
                    "backbone, auxiliary sets and producers can. Name the files that it reads in options of its own"
                )


def _of_part(experiment: Experiment, overrides: Sequence[str], chosen: Mapping[str, Any]) -> Iterator[str]:
    """What a run that a part needs inherits: machine and paths, and the groups that it depends on itself.

    A classifier that another one needs inherits what one that it starts from does.
    """
    groups = groups_handed_down(experiment, overrides)
    if groups is None:
        yield from _of_classifier(experiment, _chosen_in(overrides).get("method", "ce"), chosen)
        return
    for group in (*groups, "trainer"):
        if experiment.choices.get(group) is not None:
            yield f"{group}={as_override(experiment.choices[group])}"
    yield from _paths(experiment)
    for key, value in _changed(experiment, chosen, groups).items():
        counts_for_nothing = key.startswith("trainer.") and affected_by(key)  # precision of features, say
        if key.partition(".")[0] in (*groups, "trainer") and not counts_for_nothing:
            yield f"{key}={as_override(value)}"


def groups_handed_down(experiment: Experiment, overrides: Sequence[str]) -> tuple[str, ...] | None:
    """The groups that a run needed by an experiment inherits; None for a classifier that another one needs.

    What makes a set, and a generator, declare those that they `inherit`, and those that they `pass` to runs which they
    depend on themselves; so much has a classifier that one of them needs. Where the overrides leave the maker out, it
    is the experiment's own.
    """
    choices = _chosen_in(overrides)
    group = MAKERS.get(choices.get("task", choices.get("task.name", "train")))
    if group is None:
        return (*experiment.read_groups[1:], *experiment.passed_groups) if experiment.makes_no_classifier else None
    own = () if group in choices else (group,)
    name = choices.get(group, experiment.choices.get(group))
    if name not in groups_of(experiment.config_dir)[group]:  # what is wrong is said where that command line is checked
        return own
    declared = signature(target(group, str(name), experiment.config_dir)).constants
    return (*own, *declared.get("inherits", ()), *declared.get("passes", ()))


def _chosen_in(overrides: Sequence[str]) -> dict[str, str]:
    return dict(text.split("=", 1) for text in overrides if "=" in text)


def _of_classifier(experiment: Experiment, method: str, chosen: Mapping[str, Any]) -> Iterator[str]:
    served = [name for name, scorer in experiment.scorer.items() if serves(method, scorer)]
    groups = {group: experiment.choices.get(group) for group in (*OF_NETWORK, "trainer", "tuning", "logger")}
    groups["scorer"] = served or ["msp"]
    yield from (f"{group}={as_override(choice)}" for group, choice in groups.items() if choice is not None)
    yield f"method={method}"
    yield f"seed={experiment.seed}"
    yield from _paths(experiment)
    for key, value in _changed(experiment, chosen, OF_NETWORK).items():
        if key.startswith("scorer.") and key.split(".")[1] not in served:
            continue
        if key == "local_radius":
            value = [name for name in value if name in served]
        # A pretrained classifier has no projection: its own space is beside the fine-tuned network's.
        own = key.startswith("scorer.") and key.endswith(".space") and value == "projection"
        yield f"{key}={'method' if own else as_override(value)}"


def _paths(experiment: Experiment) -> Iterator[str]:
    return (f"paths.{name}={quote(getattr(experiment.paths, name))}" for name in ("data", "output", "cache"))


def _changed(experiment: Experiment, chosen: Mapping[str, Any], groups: Collection[str]) -> dict[str, Any]:
    """The values that are handed down and that the choices of groups don't give by themselves."""
    values, default = flat(experiment.values()), flat(chosen)
    found = {
        key: value for key, value in values.items() if default.get(key, value) != value and _is_inherited(key, groups)
    }
    for group in ("near", "far", "validation"):
        names = getattr(experiment.protocol, group)
        if any(name in experiment.protocol.folders for name in names):
            found[f"protocol.{group}"] = as_entries(experiment, names)
    return found


def _is_inherited(key: str, groups: Collection[str]) -> bool:
    group = key.partition(".")[0]
    return group in groups or not (key.startswith(NOT_INHERITED) or WEIGHTS in affected_by(key))


def as_entries(experiment: Experiment, names: Collection[str]) -> list[str]:
    """OOD sets as an override names them: a folder with its path."""
    folders = experiment.protocol.folders
    return [written(name, folders[name]) if name in folders else name for name in names]

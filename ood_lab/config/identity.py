"""Run identity: the same weights have the same name, whatever else the command says."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ood_lab.config.affects import FEATURES, WEIGHTS, Affects
from ood_lab.config.compose import choices_of, target
from ood_lab.config.experiment import Experiment, ImageSetPart, Part
from ood_lab.config.groups import PACKAGE, PART_GROUPS, ROLES, TRAINED_ON, built_in_groups, config_dir
from ood_lab.config.own_folder import is_own
from ood_lab.config.recipe import METHOD, of_file
from ood_lab.config.schema import Recipe, Trainer
from ood_lab.config.signature import signature
from ood_lab.config.source import code_digest
from ood_lab.config.yaml_file import read_yaml

# The groups by whose parts a recipe is recognised.
NAMING_GROUPS = (*PART_GROUPS, "outliers")
# What follows the name of a maker in an id; a producer makes anything.
WHAT_IS_MADE = {"generator": "_generator", "anchors": "_anchors", "outliers": "_outliers", "decoder": "_images"}
# The groups whose parts shape the weights.
SHAPING_GROUPS = ("method", *PART_GROUPS, "backbone", "dataset", *TRAINED_ON, "augmentation")


def run_id(experiment: Experiment) -> str:
    """`<method>-<dataset>-<backbone>-s<seed>-<hash>`.

    The hash covers the parts by name (a class of one's own by its import path and its code), each option that affects
    the weights and whose value is not the default that its class declares, the ids of the runs this one depends on, and
    the content of a given checkpoint. How a request is spelled, and in which order a list is given, does not count.
    """
    if experiment.makes_no_classifier:
        return _id_of_outcome(experiment)
    init = experiment.init
    described: dict[str, Any] = {"parts": _parts(experiment), "needs": experiment.prerequisite_ids}
    described["trainer"] = _of_trainer(experiment)
    described["normalisation"] = {"mean": experiment.protocol.mean, "std": experiment.protocol.std}
    published = init.published()
    file = init.checkpoint or (published.file if published is not None else None)
    if file:
        known = Path(file).is_file()
        described["checkpoint"] = hashlib.sha256(Path(file).read_bytes()).hexdigest() if known else None
    if digests := _contents(experiment.backbone):
        described["files"] = digests
    if init.key is not None:
        described["key"] = init.key
    if init.projector:
        described["projector"] = True
    if selection := _of_selection(experiment):
        described["selection"] = selection
    return f"{prefix(experiment)}-s{experiment.seed}-{_digits(described)}"


def _id_of_outcome(experiment: Experiment) -> str:
    """`<maker>[-<ID set>]-s<its seed>-<hash>` of a produced set or a generator.

    The hash covers the producer or generator, the groups that it inherits, what it needs, and the content of its files.
    """
    assert experiment.maker is not None
    parts = {group: [_described(group, _shaping(part, experiment))] for group, part in _of_maker(experiment)}
    described: dict[str, Any] = {"parts": parts, "needs": experiment.prerequisite_ids}
    if digests := _contents(experiment.maker):
        described["files"] = digests
    return f"{prefix(experiment)}-s{experiment.maker.get('seed')}-{_digits(described)}"


def _of_maker(experiment: Experiment) -> list[tuple[str, Part]]:
    """The parts that a produced set or a generator depends on, by group."""
    return [(group, part) for group in experiment.read_groups for part in experiment.of_group(group)]


def _contents(part: Part) -> dict[str, str | None]:
    """By option that names a file the digest of its content; None as long as it is not there."""
    paths = {name: part.get(name) for name in part.declared.get("files", ())}
    return {
        name: hashlib.sha256(Path(path).read_bytes()).hexdigest() if Path(path).is_file() else None
        for name, path in paths.items()
        if path is not None
    }


def _digits(described: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(_canonical(described), sort_keys=True).encode()).hexdigest()[:8]


def _of_selection(experiment: Experiment) -> dict[str, Any]:
    """Where validation images choose the weights: how many they are, and how they are read."""
    if experiment.trainer.select == "last":
        return {}
    return {"id_val": experiment.protocol.id_val, "transform": experiment.protocol.transform}


def _of_trainer(experiment: Experiment) -> dict[str, Any]:
    """The trainer's options that affect the weights, where they are not the defaults of options added since."""
    declared = signature(f"{Trainer.__module__}.Trainer")
    found = {}
    for key, affects in declared.affects.items():
        value = getattr(experiment.trainer, key)
        if WEIGHTS in affects and not (key in declared.defaults and value == declared.defaults[key]):
            found[key] = value
    if experiment.auxiliary is None:
        found = {key: value for key, value in found.items() if not key.startswith("auxiliary_")}
    return found


def affecting(node: Mapping[str, Any], mark: Affects) -> dict[str, Any]:
    """A node, and the nodes below it, without the options that don't affect something, as their classes declare.

    An option without a mark affects the weights and the features.
    """
    marks = signature(str(node["_target_"])).affects if "_target_" in node else {}
    kept = {key: value for key, value in node.items() if mark in marks.get(key, WEIGHTS | FEATURES)}
    return {key: affecting(value, mark) if isinstance(value, dict) else value for key, value in kept.items()}


def _canonical(value: Any) -> Any:
    """Values with whole numbers for fractions that are whole: 1 and 1.0 are one value."""
    if isinstance(value, dict):
        return {str(key): _canonical(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(child) for child in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _parts(experiment: Experiment) -> dict[str, list[Any]]:
    """Of each group the parts by name, with what differs from the defaults that their classes declare."""
    parts = {}
    for group in SHAPING_GROUPS:
        described = [_described(group, _shaping(part, experiment)) for part in experiment.of_group(group)]
        if described:
            parts[group] = sorted(described, key=json.dumps)
    return parts


def _shaping(part: Part, experiment: Experiment) -> dict[str, Any]:
    """The node of a part without the options that don't affect the weights."""
    kept = affecting(part.node, WEIGHTS)
    for name in part.declared.get("files", ()):  # whose content counts, not where they lie
        kept.pop(name, None)
    if part.group == "head" and not reads_projections(experiment):
        kept.pop("projection_dim", None)
    if part.group in TRAINED_ON:
        kept.pop("recipe", None)  # sizes are those of the ID set
        excluded = (kept.pop("exclude", None) or {}).get(part.get("benchmark"))
        return {**kept, "excluded": excluded} if excluded else kept
    if isinstance(part, ImageSetPart):
        shaping = signature(f"{Recipe.__module__}.Recipe").affects
        kept["recipe"] = {key: getattr(part.recipe, key) for key in shaping}
    return kept


def _described(group: str, node: Mapping[str, Any]) -> list[Any]:
    """[name, options that are not the class's defaults] of a node with a `_target_`; options may be such nodes."""
    declared = signature(str(node["_target_"])).defaults
    options = {}
    for key, value in node.items():
        if key == "_target_" or (key in declared and _canonical(declared[key]) == _canonical(value)):
            continue
        options[key] = _described(key, value) if isinstance(value, dict) and "_target_" in value else value
    name, code = part_name(group, str(node["_target_"])), code_digest(str(node["_target_"]))
    return [name if code is None else f"{name}@{code}", options]


def order_of(group: str, node: Mapping[str, Any]) -> str:
    """By which the parts of a list are ordered, whatever their files are called: the weights depend on it."""
    return json.dumps(_canonical(_described(group, node)), sort_keys=True)


def part_name(group: str, path: str) -> str:
    """What a class is called in its group: the name of its file there; the import path of a class of one's own.

    An optimizer, which was no group at first, keeps the name of its class.
    """
    names = _names(ROLES.get(group, group)) if group != "optimizer" else {}
    if path in names:
        return names[path]
    return path.rpartition(".")[2] if path.startswith(f"{PACKAGE.name}.") else path


@cache
def _names(group: str) -> dict[str, str]:
    """The built-in files of a group that name a class, by the class."""
    found = {}
    for name in sorted(built_in_groups().get(group, ())):
        node = read_yaml(config_dir() / group / f"{name}.yaml")
        if "_target_" in node:
            found[str(node["_target_"])] = name
    return found


def reads_projections(experiment: Experiment) -> bool:
    """Whether any part reads projections; only then the network has a projector."""
    return any(reads_z(part.target) for part in experiment.parts)


def reads_z(path: str) -> bool:
    """Whether a part of this class reads projections, or gives points among them."""
    return "z" in read_by(path) or signature(path).constants.get("space") == "projection"


def read_by(path: str) -> set[str]:
    """What a part of this class reads, of whatever rows."""
    declared = signature(path).constants
    keys = ("reads", "reads_whole", "reads_shifted", "reads_outliers")
    return {name for key in keys for name in declared.get(key, ())}


# What is saved with a run.


def weight_values(experiment: Experiment) -> dict[str, Any]:
    """Every value that affects the weights, by dotted key; saved with a run and compared before it goes on."""
    values: dict[str, Any] = {}
    if experiment.makes_no_classifier:
        for _, part in _of_maker(experiment):
            _flatten(part.path, _shaping(part, experiment), values)
        return {key: value for key, value in values.items() if not key.endswith("_target_")}
    for group in SHAPING_GROUPS:
        for part in experiment.of_group(group):
            _flatten(part.path, _shaping(part, experiment), values)
    values |= {f"trainer.{key}": value for key, value in _of_trainer(experiment).items()}
    values |= {"dataset.mean": experiment.protocol.mean, "dataset.std": experiment.protocol.std}
    values |= {f"protocol.{key}": value for key, value in _of_selection(experiment).items()}
    if experiment.init.projector:
        values["init.projector"] = True
    return {key: value for key, value in values.items() if not key.endswith("_target_")}


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Every value below a mapping, by dotted key."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        _flatten(str(key), value, found)
    return found


def _flatten(key: str, value: Any, out: dict[str, Any]) -> None:
    if isinstance(value, dict):
        for name, child in value.items():
            _flatten(f"{key}.{name}", child, out)
    else:
        out[key] = value


# The readable part of an id.


def prefix(experiment: Experiment) -> str:
    """`<method>-<dataset>-<backbone>`, the readable part of a run's id; without a method what makes its outcome."""
    if experiment.maker is not None:
        name = part_name(experiment.maker.group, experiment.maker.target).rpartition(".")[2]
        name += WHAT_IS_MADE.get(experiment.maker.group, "")
        return f"{name}-{id_set_name(experiment)}" if "dataset" in experiment.read_groups else name
    return "-".join((method_name(experiment), id_set_name(experiment), backbone_name(experiment)))


def method_name(experiment: Experiment) -> str:
    """The shortest name of a built-in recipe that has the same parts, whatever their options; else the parts' names."""
    if experiment.method.target != METHOD:
        return part_name("method", experiment.method.target).rpartition(".")[2]
    parts = part_names(experiment)
    same = [name for name in built_in_groups()["method"] if _parts_of_recipe(name) == parts]
    if same:
        return _shortest(same)
    names = [name for group, names in parts.items() if group != "head" for name in names]
    return "_".join(name.rpartition(".")[2].lower() for name in names)


def part_names(experiment: Experiment) -> dict[str, list[str]]:
    """The parts that are chosen, by group."""
    found = {group: [part_name(group, p.target) for p in experiment.of_group(group)] for group in NAMING_GROUPS}
    return {group: sorted(names) for group, names in found.items() if names}


@cache
def _parts_of_recipe(name: str) -> dict[str, list[str]]:
    """What `part_names` gives for a built-in recipe as it is; composing it would take longer."""
    chosen = {"head": ["linear"], **choices_of("method", name)}
    found = {g: [part_name(g, target(g, str(n))) for n in names] for g, names in chosen.items() if g in NAMING_GROUPS}
    return {group: sorted(found[group]) for group in NAMING_GROUPS if found.get(group)}


def backbone_name(experiment: Experiment) -> str:
    """The built-in network that has most of these values, of several the shortest name; of an own class its name.

    The file of the family itself comes last: `resnet` is called resnet18.
    """
    if (named_by := experiment.backbone.declared.get("named_by")) is not None:
        return re.sub(r"[^\w.-]+", "_", str(experiment.backbone.get(named_by)))
    node = _canonical(experiment.backbone.node)
    alike = {}
    for name, values in _built_in_backbones().items():
        if values["_target_"] == node["_target_"]:
            alike[name] = sum(values.get(key) == value for key, value in node.items())
    if not alike:
        return part_name("backbone", node["_target_"]).rpartition(".")[2]
    best = [name for name, count in alike.items() if count == max(alike.values())]
    return _shortest([name for name in best if name not in _names("backbone").values()] or best)


@cache
def _built_in_backbones() -> dict[str, dict[str, Any]]:
    """The values of each built-in network, read once: a plan of tables asks for them with every run."""
    return {name: _canonical(of_file("backbone", name)) for name in built_in_groups()["backbone"]}


def _shortest(names: Sequence[str]) -> str:
    return min(names, key=lambda name: (len(name), name))


def id_set_name(experiment: Experiment) -> str:
    """What results call the ID set: its name, of a folder of one's own fit for a file's name."""
    name = experiment.dataset.name
    return re.sub(r"[^\w.-]+", "_", name)[:60] if is_own(experiment.dataset.node) else name

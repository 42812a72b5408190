"""Run identity: the same weights have the same name, whatever else the command says."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ood_lab.config.compose import Composed, choices_of, target
from ood_lab.config.groups import LIST_GROUPS, PACKAGE, PART_GROUPS, ROLES, built_in_groups, config_dir
from ood_lab.config.own_folder import is_own
from ood_lab.config.recipe import METHOD, of_file
from ood_lab.config.signature import signature

# The groups that shape the weights, and what of the trainer does.
SHAPING_GROUPS = ("method", *PART_GROUPS, "backbone", "dataset", "auxiliary", "augmentation")
SHAPING_TRAINER = ("max_epochs", "batch_size", "precision")

# Where the images lie, how they are read and what is said about them shapes nothing.
NOT_SHAPING = (
    "root",
    "train",
    "val",
    "test",
    "layouts",
    "how_to_get",
    "licence",
    "checksums",
    "downloads",
    "benchmark",
    "mean",  # training normalises as the protocol says
    "std",
)
# Of a recipe; what parts and the trainer take of it is among their own values.
SHAPING_RECIPE = ("num_classes", "resize", "side", "serve")


def run_id(composed: Composed, needs: Sequence[str]) -> str:
    """`<method>-<dataset>-<backbone>-s<seed>-<hash>`.

    The hash covers the parts by name (a class of one's own by its import path), each option whose value is not the
    default that its class declares, the ids of the runs this one starts from, and the content of a given checkpoint.
    How a request is spelled, and in which order a list is given, counts for nothing.
    """
    described: dict[str, Any] = {"parts": _parts(composed), "needs": list(needs)}
    described["trainer"] = {key: composed.plain(f"trainer.{key}") for key in SHAPING_TRAINER}
    if composed.plain("auxiliary") is not None:
        described["trainer"]["auxiliary_batch_size"] = composed.plain("trainer.auxiliary_batch_size")
    described["normalisation"] = {key: composed.plain(f"protocol.{key}") for key in ("mean", "std")}
    weights = composed.plain("init.checkpoint") or composed.plain("init.weights.file")
    if weights:
        known = Path(weights).is_file()
        described["checkpoint"] = hashlib.sha256(Path(weights).read_bytes()).hexdigest() if known else None
    if composed.plain("init.key") is not None:
        described["key"] = composed.plain("init.key")
    digest = hashlib.sha256(json.dumps(_canonical(described), sort_keys=True).encode()).hexdigest()[:8]
    return f"{prefix(composed)}-s{composed.plain('seed')}-{digest}"


def _canonical(value: Any) -> Any:
    """Values with whole numbers for fractions that are whole: 1 and 1.0 are one value."""
    if isinstance(value, dict):
        return {str(key): _canonical(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(child) for child in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def nodes_of(composed: Composed, group: str) -> list[dict[str, Any]]:
    """The configurations of what is chosen in a group; none, one, or in a list group several."""
    node = composed.plain(group)
    if not node:
        return []
    return list(node.values()) if group in LIST_GROUPS else [node]


def _parts(composed: Composed) -> dict[str, list[Any]]:
    """Of each group the parts by name, with what differs from the defaults that their classes declare."""
    parts = {}
    for group in SHAPING_GROUPS:
        described = [_described(group, _shaping(group, node, composed)) for node in nodes_of(composed, group)]
        if described:
            parts[group] = sorted(described, key=json.dumps)
    return parts


def _shaping(group: str, node: Mapping[str, Any], composed: Composed) -> dict[str, Any]:
    """A node without what shapes no weights."""
    if group == "head" and not reads_projections(composed):
        return {key: value for key, value in node.items() if key != "projection_dim"}
    if ROLES.get(group, group) != "dataset":
        return dict(node)
    kept = {key: value for key, value in node.items() if key not in NOT_SHAPING}
    if group == "auxiliary":
        kept.pop("recipe", None)  # sizes are those of the ID set
        excluded = (kept.pop("exclude", None) or {}).get(node.get("benchmark"))
        return {**kept, "excluded": excluded} if excluded else kept
    if isinstance(kept.get("recipe"), dict):
        kept["recipe"] = {key: kept["recipe"].get(key) for key in SHAPING_RECIPE}
    return kept


def _described(group: str, node: Mapping[str, Any]) -> list[Any]:
    """[name, options that are not the class's defaults] of a node with a `_target_`; options may be such nodes."""
    declared = signature(str(node["_target_"])).defaults
    options = {}
    for key, value in node.items():
        if key == "_target_" or (key in declared and _canonical(declared[key]) == _canonical(value)):
            continue
        options[key] = _described(key, value) if isinstance(value, dict) and "_target_" in value else value
    return [part_name(group, str(node["_target_"])), options]


def order_of(group: str, node: Mapping[str, Any]) -> str:
    """By which the parts of a list are ordered, whatever their files are called: the weights depend on it."""
    return json.dumps(_canonical(_described(group, node)), sort_keys=True)


def part_name(group: str, path: str) -> str:
    """What a class is called in its group: the name of its file there; the import path of a class of one's own."""
    names = _names(ROLES.get(group, group))
    if path in names:
        return names[path]
    return path.rpartition(".")[2] if path.startswith(f"{PACKAGE.name}.") else path


@cache
def _names(group: str) -> dict[str, str]:
    """The built-in files of a group that name a class, by the class."""
    found = {}
    for name in sorted(built_in_groups().get(group, ())):
        node = yaml.safe_load((config_dir() / group / f"{name}.yaml").read_text())
        if "_target_" in node:
            found[str(node["_target_"])] = name
    return found


def reads_projections(composed: Composed) -> bool:
    """Whether any part reads projections; only then the network has a projector."""
    return any(reads_z(str(node["_target_"])) for group in PART_GROUPS for node in nodes_of(composed, group))


def reads_z(path: str) -> bool:
    """Whether a part of this class reads projections, or gives points among them."""
    return "z" in read_by(path) or signature(path).constants.get("space") == "projection"


def read_by(path: str) -> set[str]:
    """What a part of this class reads, of whatever rows."""
    declared = signature(path).constants
    keys = ("reads", "reads_whole", "reads_shifted", "reads_outliers")
    return {name for key in keys for name in declared.get(key, ())}


# What is saved with a run.


def shaping_leaves(composed: Composed) -> dict[str, Any]:
    """Every resolved leaf that shapes the weights, by dotted key; saved with a run and compared before it goes on."""
    leaves: dict[str, Any] = {}
    for group in SHAPING_GROUPS:
        node = composed.plain(group)
        if not node:
            continue
        named = node if group in LIST_GROUPS else {"": node}
        for name, part in named.items():
            _flatten(f"{group}.{name}" if name else group, _shaping(group, part, composed), leaves)
    for key in SHAPING_TRAINER:
        leaves[f"trainer.{key}"] = composed.plain(f"trainer.{key}")
    if composed.plain("auxiliary") is not None:
        leaves["trainer.auxiliary_batch_size"] = composed.plain("trainer.auxiliary_batch_size")
    leaves |= {f"dataset.{key}": composed.plain(f"protocol.{key}") for key in ("mean", "std")}
    return {key: value for key, value in leaves.items() if not key.endswith("_target_")}


def all_leaves(composed: Composed) -> dict[str, Any]:
    """Every resolved leaf, by dotted key."""
    leaves: dict[str, Any] = {}
    for key in composed.cfg:
        _flatten(str(key), composed.plain(str(key)), leaves)
    return leaves


def _flatten(key: str, value: Any, out: dict[str, Any]) -> None:
    if isinstance(value, dict):
        for name, child in value.items():
            _flatten(f"{key}.{name}", child, out)
    else:
        out[key] = value


# The readable part of an id.


def prefix(composed: Composed) -> str:
    """`<method>-<dataset>-<backbone>`, the readable part of a run's id."""
    return "-".join((method_name(composed), id_set_name(composed), backbone_name(composed)))


def method_name(composed: Composed) -> str:
    """The shortest name of a built-in recipe that has the same parts, whatever their options; else the parts' names."""
    own = str(composed.plain("method._target_"))
    if own != METHOD:
        return part_name("method", own).rpartition(".")[2]
    parts = part_names(composed)
    same = [name for name in built_in_groups()["method"] if _parts_of_recipe(name) == parts]
    if same:
        return _shortest(same)
    names = [name for group, names in parts.items() if group != "head" for name in names]
    return "_".join(name.rpartition(".")[2].lower() for name in names)


def part_names(composed: Composed) -> dict[str, list[str]]:
    """The parts that are chosen, by group."""
    found = {g: [part_name(g, str(node["_target_"])) for node in nodes_of(composed, g)] for g in PART_GROUPS}
    return {group: sorted(names) for group, names in found.items() if names}


@cache
def _parts_of_recipe(name: str) -> dict[str, list[str]]:
    """What `part_names` gives for a built-in recipe as it stands; composing it would take longer."""
    chosen = {"head": ["linear"], **choices_of("method", name)}
    found = {g: [part_name(g, target(g, str(n))) for n in names] for g, names in chosen.items() if g in PART_GROUPS}
    return {group: sorted(found[group]) for group in PART_GROUPS if found.get(group)}


def backbone_name(composed: Composed) -> str:
    """The built-in network that has most of these values, of several the shortest name; of an own class its name.

    The file of the family itself comes last: `resnet` is called resnet18.
    """
    node = _canonical(composed.plain("backbone"))
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


def id_set_name(composed: Composed) -> str:
    """What results call the ID set: its name, of a folder of one's own fit for a file's name."""
    node = composed.plain("dataset")
    return re.sub(r"[^\w.-]+", "_", node["name"])[:60] if is_own(node) else str(node["name"])

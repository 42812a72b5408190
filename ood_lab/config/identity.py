"""Run identity: the same weights have the same name, whatever else the command says."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ood_lab.config.compose import Composed
from ood_lab.config.own_folder import is_own

# Groups whose choice shapes the weights. A neutral choice (null, random) is left out of the hash, so that a
# group added later with a neutral default keeps every old id.
SHAPING_GROUPS = ("method", "backbone", "dataset", "auxiliary", "augmentation", "synthesizer", "init")
NEUTRAL = {None, "null", "random"}

# Subtrees whose changed leaves count. Where a group mixes concerns, its leaves are chosen one by one; `init` counts
# by the ids of the runs it needs and by the content of a checkpoint.
SHAPING_NODES = (
    "method",
    "backbone",
    "dataset",
    "auxiliary",
    "augmentation",
    "synthesizer",
    "trainer.max_epochs",
    "trainer.batch_size",
    "trainer.precision",
)

# Where the images lie, how they are read and what is said about them shapes nothing.
NOT_SHAPING = (
    "_target_",
    "root",
    "train",
    "val",
    "test",
    "layouts",
    "how_to_get",
    "licence",
    "checksums",
    "downloads",
    "recipe.serve",
    "recipe.test_images",
    "recipe.epochs",  # trainer.max_epochs has what is taken of them
    "recipe.benchmark",
    "benchmark",
)


def shaping_leaves(composed: Composed) -> dict[str, Any]:
    """Every resolved leaf that shapes the weights, by dotted key.

    Training normalises as the protocol says, so its constants stand in the place of the data set's.
    """
    leaves: dict[str, Any] = {}
    for key in SHAPING_NODES:
        _flatten(key, composed.plain(key), leaves)
    if composed.plain("auxiliary") is None:
        leaves.pop("auxiliary")
    else:
        _flatten("trainer.auxiliary_batch_size", composed.plain("trainer.auxiliary_batch_size"), leaves)
    if composed.plain("protocol") is not None:
        leaves |= {f"dataset.{key}": composed.plain(f"protocol.{key}") for key in ("mean", "std")}
    skipped = tuple(f"{role}.{name}" for role in ("dataset", "auxiliary") for name in NOT_SHAPING)
    return {key: value for key, value in leaves.items() if not _below(key, skipped)}


def _below(key: str, nodes: Sequence[str]) -> bool:
    return any(key == node or key.startswith(f"{node}.") for node in nodes)


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


@cache
def _leaves_of_choices(default: Composed) -> dict[str, Any]:
    """Of the same choices many runs are made, which differ in values."""
    return shaping_leaves(default)


def run_id(composed: Composed, default: Composed, needs: Sequence[str]) -> str:
    """`<method>-<dataset>-<backbone>-s<seed>-<hash>`.

    The hash covers the choices of the shaping groups, the leaves that differ from what those choices say by
    themselves (`default`), the ids of the runs this one stands on, and the content of a given checkpoint. A new
    option with a default therefore changes no id.
    """
    mine, theirs = shaping_leaves(composed), dict(_leaves_of_choices(default))
    theirs |= {f"dataset.{key}": default.plain(f"dataset.{key}") for key in ("mean", "std")}
    changed = {k: v for k, v in sorted(mine.items()) if k not in theirs or theirs[k] != v}
    choices = {g: c for g in SHAPING_GROUPS if not isinstance(c := composed.choices.get(g), list) and c not in NEUTRAL}
    parts: dict[str, Any] = {"choices": choices, "changed": changed, "needs": list(needs)}
    weights = composed.plain("init.checkpoint") or composed.plain("init.weights.file")
    if weights:
        parts["checkpoint"] = (
            hashlib.sha256(Path(weights).read_bytes()).hexdigest() if Path(weights).is_file() else None
        )
    if composed.plain("init.key") is not None:
        parts["key"] = composed.plain("init.key")
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]
    return f"{prefix(composed)}-s{composed.plain('seed')}-{digest}"


def prefix(composed: Composed) -> str:
    """`<method>-<dataset>-<backbone>`, the readable part of a run's id."""
    return "-".join((str(composed.choices["method"]), id_set_name(composed), str(composed.choices["backbone"])))


def id_set_name(composed: Composed) -> str:
    """What results call the ID set: the choice, or the name of a folder of one's own, fit for a file's name."""
    node = composed.plain("dataset")
    return re.sub(r"[^\w.-]+", "_", node["name"])[:60] if is_own(node) else str(composed.choices["dataset"])

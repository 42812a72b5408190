"""The detectors that a request means, by the names that their scores go by."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from ood_lab.config.annotation import accepts
from ood_lab.config.peers import PEERS, expanded
from ood_lab.config.signature import signature

# In a detector's options: the grid and the sets of its search.
TUNED = "tuned"


def detectors(
    nodes: Mapping[str, dict[str, Any]], grids: Mapping[str, Any], validation: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Each detector with its options; pytorch-ood's are expanded to one each.

    Under `TUNED` is what is searched for one that is tuned; its other options are then those of the rest.

    Args:
        nodes: those chosen, by the name of their file.
        grids: what is searched, by detector.
        validation: the OOD sets of the search.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, node in nodes.items():
        options = as_declared(node)
        found |= expanded(options) if name == PEERS else {name: options}
    return {
        name: {**node, TUNED: {"grid": grids[name], "sets": list(validation)}} if name in grids else node
        for name, node in found.items()
    }


def as_declared(node: dict[str, Any]) -> dict[str, Any]:
    """A detector's options with whole numbers as fractions where these are declared: 90 and 90.0 are one value."""
    declared = signature(node["_target_"]).parameters
    return {
        key: float(value) if type(value) is int and _is_fraction(declared.get(key)) else value
        for key, value in node.items()
    }


def _is_fraction(annotation: ast.expr | None) -> bool:
    return isinstance(annotation, ast.Name) and accepts(annotation, 1) and accepts(annotation, 0.5)

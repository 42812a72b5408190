"""The detectors of pytorch-ood by name, read from its source: importing it would import torch."""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ood_lab.config.suggest import nearest
from ood_lab.errors import RequestError

PEERS = "pood"
# They need the images, whole feature maps, text embeddings or weights of their own.
NEED_MORE = {
    "ODIN", "MahalanobisODIN", "MCD", "Gram", "MultiMahalanobis", "NACUE", "GradUncertainty", "RankFeat", "MCM",
    "WeightedEBO",
}  # fmt: skip


@cache
def usable() -> tuple[str, ...]:
    """The detectors that work on features or logits.

    Raises:
        RequestError: pytorch-ood is not installed.
    """
    spec = find_spec("pytorch_ood")
    if spec is None or not spec.submodule_search_locations:
        raise RequestError("scorer=pood needs pytorch-ood: pip install 'ood-lab[pood]'")
    tree = ast.parse((Path(spec.submodule_search_locations[0]) / "detector" / "__init__.py").read_text())
    names = [alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    return tuple(sorted(name for name in names if not name.islower() and "_" not in name and name not in NEED_MORE))


def check_peers(node: dict[str, Any]) -> None:
    """Refuse a name that is no detector, or one that needs more than features.

    Raises:
        RequestError: see above.
    """
    if not node["detectors"]:
        raise RequestError(f"scorer.{PEERS}.detectors=[]: name at least one.{nearest('', usable())}")
    for name in (*node["detectors"], *node["options"]):
        if name in NEED_MORE:
            raise RequestError(
                f"scorer.{PEERS}: {name} of pytorch-ood needs more than saved features; those that do not: "
                + ", ".join(usable())
            )
        if name not in usable():
            raise RequestError(f"scorer.{PEERS}: pytorch-ood has no detector {name!r}.{nearest(name, usable())}")
    for name in node["options"]:
        if name not in node["detectors"]:
            raise RequestError(f"scorer.{PEERS}.options.{name}: {name} is not among scorer.{PEERS}.detectors")


def expanded(node: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """One node for each detector named, under the name that its scores go by."""
    return {
        f"{PEERS}.{name}": {
            **node,
            "detectors": [name],
            "options": {k: v for k, v in node["options"].items() if k == name},
        }
        for name in node["detectors"]
    }

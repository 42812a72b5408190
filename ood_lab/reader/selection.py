"""Which classes of a listing make up a set: named ones, all but some, or a seeded draw."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from ood_lab.errors import RunError
from ood_lab.reader.base import Listing


def drawn_classes(names: Sequence[str], count: int, seed: int, rest: bool = False) -> list[str]:
    """`count` of the classes, the same everywhere: those whose SHA-256 of "seed/name" comes first.

    Args:
        rest: all but those.
    """
    order = sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).hexdigest())
    return sorted(order[count:] if rest else order[:count])


def kept_classes(names: Sequence[str], node: dict[str, Any]) -> list[str]:
    """What a set's `include`, `draw` and `exclude` leave of the classes that are there."""
    include = node.get("include")
    wanted = list(names) if include is None else [name for name in include if name in set(names)]
    if node.get("draw") is not None:
        wanted = drawn_classes(wanted, **node["draw"])
    exclude = node.get("exclude", {})
    left_out = {*exclude.get("any", ()), *exclude.get(node.get("benchmark"), ())}
    return [name for name in wanted if name not in left_out]


def chosen(listing: Listing, node: dict[str, Any], complete: bool = True) -> Listing:
    """The part of a listing whose classes a set keeps.

    Args:
        complete: every class that the set names must be there; a test split may lack some.

    Raises:
        RunError: a class that the set names isn't there, or nothing is left.
    """
    if listing.classes is None:
        return listing
    absent = sorted(set(node.get("include") or ()) - set(listing.classes))
    if absent and complete:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise RunError(f"{listing.origin}: {node['name']} needs class {absent[0]!r}{more}, which isn't there")
    part = listing.keep_classes(set(kept_classes(listing.classes, node)).__contains__)
    if not len(part):
        raise RunError(f"{listing.origin}: no image is left of {node['name']}; check dataset.include and exclude")
    return part

"""The splits of an ID set: what a label means is said by the training split, by the names of its classes.

A test split may lack classes; a list has numbers, and names where each class has a folder of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ood_lab.errors import RequestError, RunError
from ood_lab.reader import image_list
from ood_lab.reader.base import UNLABELLED, Listing, check_no_class_is_empty, same_name
from ood_lab.reader.layout import layouts_of, read_layout, reader_of, source_of
from ood_lab.reader.selection import kept_classes


def read_id_split(node: dict[str, Any], layout: str, split: str) -> Listing:
    """A split of an ID set, labelled by the training split's classes.

    Raises:
        RunError: a training class without images; a class that training doesn't know (both sides are named).
    """
    listing = read_layout(node, layout, split)
    if split == "train":
        check_no_class_is_empty(listing)
        return listing
    classes = training_classes(node, layout)
    if classes is None:
        return listing
    if listing.classes is None:
        raise RunError(f"{listing.origin}: has no classes; an ID set needs a folder or a label for each")
    trained = str(Path(node["root"]) / _first(source_of(layouts_of(node)[layout], "train")))
    source, training = (source_of(layouts_of(node)[layout], part) for part in (split, "train"))
    if "list" in source:
        root = Path(node["root"])
        given = image_list.folder_names(root, source)
        known = image_list.folder_names(root, training) if "list" in training else dict(enumerate(classes))
        ranks = _of_list(listing, classes, trained, given, known)
    else:
        ranks = _by_name(listing, classes, trained)
    labels = np.array([*ranks, UNLABELLED], np.int64)[listing.labels]
    return replace(listing, labels=labels, classes=classes)


def training_classes(node: dict[str, Any], layout: str) -> tuple[str, ...] | None:
    """The classes of the training split by label; None where the layout has no names or no such split."""
    sources = layouts_of(node)[layout]
    if "train" not in sources:
        return None
    source = sources["train"]
    reader = reader_of(source, node["name"])
    if not hasattr(reader, "class_names"):
        return None
    names = reader.class_names(Path(node["root"]), source)
    return tuple(names) if "list" in source else tuple(kept_classes(names, node))


def held_out_per_class(listing: Listing, asked: int) -> int:
    """How many test images of each class are kept for validation when `asked` are wanted in all.

    Raises:
        RequestError: that would leave a class without a test image; a number that works is named.
    """
    counts = np.bincount(listing.labels)
    present = np.flatnonzero(counts)
    per_class = max(1, asked // int(listing.labels.max() + 1))
    smallest = int(present[counts[present].argmin()])
    if per_class < counts[smallest]:
        return per_class
    name = listing.classes[smallest] if listing.classes else str(smallest)
    most = int(counts[smallest] - 1) * int(listing.labels.max() + 1)
    raise RequestError(
        f"protocol.id_val={asked}: {per_class} test images of each class would be kept for validation, but class "
        f"{name!r} has {counts[smallest]} of {len(listing):,} in {listing.origin}. At most protocol.id_val={most} works"
        + ("" if most else ", which keeps none: thresholds are then taken from the test images")
    )


def default_held_out(labels: NDArray[np.int64]) -> int:
    """How many test images are kept for validation where nobody says: a fifth at most, the same of each class."""
    counts = np.bincount(labels)
    classes = len(counts)
    return classes * int(min(len(labels) // 5 // classes, counts[counts > 0].min() - 1))


def _first(source: Mapping[str, Any]) -> str:
    value = next(iter(source.values()))
    return str(value if isinstance(value, str) else value[0])


def _by_name(listing: Listing, classes: tuple[str, ...], trained: str) -> list[int]:
    assert listing.classes is not None
    known = {same_name(name): rank for rank, name in enumerate(classes)}
    counts = np.bincount(listing.labels[listing.labels >= 0], minlength=len(listing.classes))
    unknown = [n for n, count in zip(listing.classes, counts, strict=True) if count and same_name(n) not in known]
    if unknown:
        raise _unknown(listing, unknown, classes, trained)
    return [known.get(same_name(name), UNLABELLED) for name in listing.classes]


def _of_list(
    listing: Listing, classes: tuple[str, ...], trained: str, given: Mapping[int, str], known: Mapping[int, str]
) -> list[int]:
    """Numbers of a list are those of training; where both have names (label to name), they must not say otherwise."""
    assert listing.classes is not None
    if len(listing.classes) > len(classes):
        raise RunError(
            f"{listing.origin}: label {len(listing.classes) - 1} is unknown to training: {trained} has "
            f"{len(classes)} classes, 0 to {len(classes) - 1} ({_some(classes)}). Correct the label, or take it off"
        )
    rank_of = {same_name(name): rank for rank, name in known.items()}
    unknown = [name for name in given.values() if same_name(name) not in rank_of]
    if known and 0 < len(unknown) < len(given):  # with none known, the folders aren't named by classes
        raise _unknown(listing, unknown, classes, trained)
    for label, name in given.items() if known and not unknown else ():
        rank = rank_of[same_name(name)]
        if rank != label:
            raise RunError(
                f"{listing.origin}: class {name!r} has label {label}, but {rank} in training "
                f"({trained}: {_some(classes)}). Number the list as training does, or rename its folders"
            )
    return list(range(len(classes)))


def _unknown(listing: Listing, unknown: list[str], classes: tuple[str, ...], trained: str) -> RunError:
    more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
    return RunError(
        f"{listing.origin}: class {unknown[0]!r}{more} is unknown to training: {trained} has {_some(classes)}. "
        "Rename the class as in training, or take it out"
    )


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:6]) + (f", ... ({len(names)} classes)" if len(names) > 6 else "")

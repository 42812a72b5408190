"""From a set's description to its listing: which layout is on the disk, and the reader that belongs to it.

A description (`conf/dataset/<name>.yaml`) names, for each layout, where each split lies:

    layouts:
      torchvision: {test: {mat: test_32x32.mat}}
      openood: {test: {list: benchmark_imglist/cifar10/test_svhn.txt, images: images_classic}}

The first layout that is complete is used, and every table and `task=data` says which one it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from ood_lab.errors import RequestError
from ood_lab.reader import cifar_batches, folder, idx, image_list, mat, npy, npz, shards
from ood_lab.reader.base import Listing
from ood_lab.reader.scope import read_once
from ood_lab.reader.selection import chosen, kept_classes

READERS: dict[str, ModuleType] = {
    "folder": folder,
    "list": image_list,
    "batches": cifar_batches,
    "idx": idx,
    "mat": mat,
    "npy": npy,
    "npz": npz,
    "shards": shards,
}

# The keys of a layout that serve a split, the first that is there.
FALLBACK = {
    "train": ("train",),
    "val": ("val", "test"),
    "test": ("test",),
    "ood": ("ood", "test"),
    "auxiliary": ("auxiliary", "train", "test"),
}


def reader_of(source: dict[str, Any], name: str) -> ModuleType:
    """The reader that a source's first key names.

    Raises:
        RequestError: there is none of that name.
    """
    kind = next(iter(source), "")
    if kind not in READERS:
        raise RequestError(f"{name}: a source begins with one of {', '.join(READERS)}; found {kind!r}")
    return READERS[kind]


def source_of(layout: dict[str, Any], split: str) -> dict[str, Any]:
    """Where a split lies in a layout; a held-out, scored or auxiliary split falls back on what the set has."""
    for key in FALLBACK[split]:
        if key in layout:
            found: dict[str, Any] = layout[key]
            return found
    raise RequestError(f"the layout has no {split!r} split, only {', '.join(layout)}")


def layouts_of(node: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The layouts that a set has; a variant takes one of its base away by null."""
    return {name: layout for name, layout in node["layouts"].items() if layout is not None}


def find_layout(node: dict[str, Any], role: str) -> str | None:
    """The first layout that is there; "embedded" for a set that needs no file, None if none is complete.

    Args:
        node: the set's description.
        role: "id" (every split that the layout has), "ood" or "auxiliary".
    """
    if not node["layouts"]:
        return "embedded"
    return next((str(name) for name in layouts_of(node) if not missing_files(node, name, role)), None)


def missing_files(node: dict[str, Any], layout: str, role: str) -> list[str]:
    """The files and folders (relative to the root) that a layout lacks for a role."""
    sources = layouts_of(node)[layout]
    named = [sources[key] for key in ("train", "val", "test") if key in sources]
    wanted = named if role == "id" else [source_of(sources, role)]
    root = Path(node["root"])
    absent = [name for source in wanted for name in reader_of(source, node["name"]).is_there(root, source)]
    return list(dict.fromkeys(absent))


def read_layout(node: dict[str, Any], layout: str, split: str) -> Listing:
    """The images of a split in a layout, without the classes that the set leaves out.

    Raises:
        RunError: a file is missing, damaged, or not what the layout says; it is named.
    """
    source, root = source_of(layouts_of(node)[layout], split), Path(node["root"])
    labelled, complete = split in ("train", "val", "test"), split not in ("val", "test")
    choice = {key: node.get(key) for key in ("include", "exclude", "benchmark", "draw")}

    def read() -> Listing:
        if "list" in source:  # taken as it is; include, exclude and draw are for the other layouts
            return image_list.read(root, source, labelled)
        if "folder" in source:
            return chosen(folder.read(root, source, labelled), node, complete)
        return chosen(reader_of(source, node["name"]).read(root, source), node)

    # A set in one file is not kept, since its listing holds all pixels.
    asked = json.dumps(["listing", node["root"], source, labelled, complete, choice])
    return read_once(asked, read, keep=lambda listing: listing.paths is not None)


def files_of(node: dict[str, Any], layout: str, split: str) -> tuple[Path, ...]:
    """The files that a split is read from; those of images, lists and archives alike.

    Raises:
        RunError: see `read_layout`.
    """
    source = source_of(layouts_of(node)[layout], split)
    if {"folder", "list"} & set(source):
        return read_layout(node, layout, split).files
    reader = reader_of(source, node["name"])
    if hasattr(reader, "files"):
        listed: tuple[Path, ...] = reader.files(Path(node["root"]), source)
        return listed
    return tuple(Path(node["root"]) / name for name in _names(list(source.values())))


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    else:
        for child in value:
            yield from _names(child)


def count(node: dict[str, Any], layout: str, split: str) -> int | None:
    """How many images a split has, from names and file heads alone; None where that takes reading everything."""
    if layout == "embedded":
        stated: int | None = node.get("count")
        return stated
    source = source_of(layouts_of(node)[layout], split)
    reader = reader_of(source, node["name"])
    if hasattr(reader, "count"):
        found: int | None = reader.count(Path(node["root"]), source)
        return found
    return len(read_layout(node, layout, split))


def class_names(node: dict[str, Any], layout: str, split: str) -> tuple[str, ...]:
    """The names of the classes that a set keeps, as far as its layout has names (folders, CIFAR's batches)."""
    source = {} if layout == "embedded" else source_of(layouts_of(node)[layout], "test" if split == "id" else split)
    if not source or "list" in source:
        return ()
    reader = reader_of(source, node["name"])
    names = reader.class_names(Path(node["root"]), source) if hasattr(reader, "class_names") else ()
    return tuple(kept_classes(names, node))

"""A folder of images, with one folder a class or without: `folder: path`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ood_lab.errors import RunError
from ood_lab.reader.base import UNLABELLED, Listing, check_names

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".tif", ".tiff")


def read(root: Path, source: dict[str, Any]) -> Listing:
    """Every image below `root/folder`, sorted by path; labels are the ranks of the first level of folders.

    Images lie directly in the folder (a set without classes) or in class folders, however deep below them.

    Raises:
        RunError: no image at all, images both beside and in folders, two classes of one name.
    """
    base = root / source["folder"]
    if not base.is_dir():
        raise RunError(f"{base}: no such folder")
    names = class_names(root, source)
    loose = sorted(entry.path for entry in os.scandir(base) if _is_image(entry))
    if names and loose:
        raise RunError(
            f"{base} holds both class folders ({names[0]}, ...) and images ({Path(loose[0]).name}, ...). "
            "Sort the images into the folders, or move either away."
        )
    found = [(path, rank) for rank, name in enumerate(names) for path in sorted(_walk(str(base / name)))]
    if not found and not loose:
        raise RunError(f"no image below {base}; expected files ending in {', '.join(SUFFIXES)}")
    if loose:
        labels = np.full(len(loose), UNLABELLED, np.int64)
        return Listing(labels, None, str(base), paths=tuple(map(Path, loose)), files=tuple(map(Path, loose)))
    check_names(names, str(base))
    labels = np.array([rank for _, rank in found], np.int64)
    paths = tuple(Path(path) for path, _ in found)
    return Listing(labels, names, str(base), paths=paths, files=paths)


def is_there(root: Path, source: dict[str, Any]) -> list[str]:
    """What the source lacks: the folder, or anything in it."""
    base = root / source["folder"]
    there = base.is_dir() and any(not entry.name.startswith(".") for entry in os.scandir(base))
    return [] if there else [source["folder"] + "/"]


def class_names(root: Path, source: dict[str, Any]) -> tuple[str, ...]:
    """The names of the class folders."""
    base = root / source["folder"]
    return tuple(sorted(entry.name for entry in os.scandir(base) if entry.is_dir() and not entry.name.startswith(".")))


def _is_image(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith(".") and entry.is_file()


def _walk(folder: str) -> Iterator[str]:
    for entry in os.scandir(folder):
        if entry.is_dir():
            yield from _walk(entry.path)
        elif _is_image(entry):
            yield entry.path

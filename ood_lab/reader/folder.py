"""A folder of images, with one folder a class or without: `folder: path`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ood_lab.errors import RunError
from ood_lab.reader.base import UNLABELLED, Listing, check_names

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".pgm", ".ppm", ".tif", ".tiff")
# Formats that Pillow has a name for but reads only with a program of its own, or that are no pictures.
NO_PICTURES = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF", "EPS"}


def read(root: Path, source: dict[str, Any], labelled: bool = True) -> Listing:
    """Every image below `root/folder`, sorted by path; labels are the ranks of the first level of folders.

    Images lie directly in the folder (a set without classes) or in class folders, however deep below them. Files and
    folders whose name begins with a dot are no images.

    Args:
        labelled: whether the set is an ID set; else images may lie both beside and in folders, and have no labels then.

    Raises:
        RunError: no image at all, images both beside and in folders, two classes of one name, a name that is no UTF-8.
    """
    base = root / source["folder"]
    if not base.is_dir():
        raise RunError(f"{base}: no such folder")
    names = class_names(root, source)
    passed_over = _PassedOver()
    loose = sorted(path for path in _images(str(base), passed_over, deep=False))
    if names and loose and labelled:
        raise RunError(
            f"{base} holds both class folders ({names[0]}, ...) and images ({Path(loose[0]).name}, ...). "
            "Sort the images into the folders, or move either away."
        )
    found = [
        (path, rank)
        for rank, name in enumerate(names)
        for path in sorted(_images(str(base / name), passed_over, above=(os.path.realpath(base),)))
    ]
    notes = passed_over.notes(str(base))
    if not found and not loose:
        more = "".join(f". {note}" for note in notes)
        raise RunError(f"no image below {base}; expected files ending in {', '.join(SUFFIXES)}{more}")
    _check_utf8([*loose, *(path for path, _ in found)], str(base))
    if loose:
        paths = tuple(map(Path, [*loose, *(path for path, _ in found)]))
        labels = np.full(len(paths), UNLABELLED, np.int64)
        return Listing(labels, None, str(base), paths=paths, files=paths, notes=notes)
    check_names(names, str(base))
    labels = np.array([rank for _, rank in found], np.int64)
    paths = tuple(Path(path) for path, _ in found)
    return Listing(labels, names, str(base), paths=paths, files=paths, notes=notes)


def is_there(root: Path, source: dict[str, Any]) -> list[str]:
    """What the source lacks: the folder, or anything in it."""
    base = root / source["folder"]
    there = base.is_dir() and any(not entry.name.startswith(".") for entry in os.scandir(base))
    return [] if there else [source["folder"] + "/"]


def class_names(root: Path, source: dict[str, Any]) -> tuple[str, ...]:
    """The names of the class folders."""
    base = root / source["folder"]
    return tuple(sorted(entry.name for entry in os.scandir(base) if entry.is_dir() and not entry.name.startswith(".")))


@dataclass
class _PassedOver:
    """Files that look like pictures and aren't read."""

    suffixes: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def notes(self, origin: str) -> tuple[str, ...]:
        found = []
        pictures = {s: n for s, n in sorted(self.suffixes.items()) if s in _picture_suffixes()} if self.suffixes else {}
        if pictures:
            counts = ", ".join(f"{number:,} {suffix}" for suffix, number in pictures.items())
            found.append(f"{origin}: {counts} not read; convert to one of {', '.join(SUFFIXES)}")
        if self.broken:
            more = f" and {len(self.broken) - 1:,} more" if len(self.broken) > 1 else ""
            found.append(f"{origin}: broken link {min(self.broken)}{more} not read; mend or remove it")
        return tuple(found)


def _picture_suffixes() -> set[str]:
    known = Image.registered_extensions()
    return {suffix for suffix, kind in known.items() if kind in Image.OPEN and kind not in NO_PICTURES}


def _images(folder: str, passed_over: _PassedOver, deep: bool = True, above: tuple[str, ...] = ()) -> Iterator[str]:
    """The images in and below a folder; `above` has the real paths of those that it was reached through."""
    above = (*above, os.path.realpath(folder)) if deep else ()
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        if entry.name.lower().endswith(SUFFIXES):
            if entry.is_file():
                yield entry.path
                continue
            if entry.is_symlink() and not entry.is_dir():
                passed_over.broken.append(entry.path)
                continue
        if entry.is_dir():
            if deep and entry.is_symlink() and os.path.realpath(entry.path) in above:
                passed_over.broken.append(entry.path)  # it leads back: walking on would never end
            elif deep:
                yield from _images(entry.path, passed_over, above=above)
        else:
            passed_over.suffixes[Path(entry.name).suffix.lower()] += 1


def _check_utf8(paths: list[str], origin: str) -> None:
    try:
        "".join(paths).encode()
    except UnicodeEncodeError:
        bad = next(path for path in paths if not _is_utf8(path))
        raise RunError(f"{origin}: the name {os.fsencode(bad)!r} is not UTF-8; rename the file") from None


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True

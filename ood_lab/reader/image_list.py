"""OpenOOD's image lists, one line "path label" an image: `list: file`, `images: folder`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ood_lab.errors import RunError
from ood_lab.reader.base import Listing, one_file


def read(root: Path, source: dict[str, Any]) -> Listing:
    """The images of a list, in its order, with its labels (-1 where a set is only scored).

    A path may hold spaces; the label is what follows the last one. Class names aren't part of the format: where each
    class has a folder of its own, its name is taken.

    Raises:
        RunError: a line without a label, a file that isn't there (the first is named with its line, and how many).
    """
    listed = one_file(root, source["list"])
    base = root / source["images"]
    paths, labels = [], []
    for number, line in enumerate(listed.read_text().splitlines(), 1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        if not name or not label.lstrip("-").isdigit():
            raise RunError(f"{listed}, line {number}: expected 'path label', found {line.strip()!r}")
        paths.append(base / name)
        labels.append(int(label))
    if not paths:
        raise RunError(f"{listed}: an empty list")
    absent = [i for i, path in enumerate(paths) if not path.is_file()]
    if absent:
        more = f" and {len(absent) - 1} more of {len(paths)}" if len(absent) > 1 else ""
        raise RunError(
            f"{listed}, line {absent[0] + 1}: {paths[absent[0]]} is not there{more}. "
            "Get the images that belong to the list, or a list that fits them."
        )
    values = np.array(labels, np.int64)
    return Listing(values, _classes(paths, values, listed), str(listed), paths=tuple(paths), files=(listed, *paths))


def count(root: Path, source: dict[str, Any]) -> int:
    """The lines of the list."""
    return sum(bool(line.strip()) for line in one_file(root, source["list"]).read_text().splitlines())


def is_there(root: Path, source: dict[str, Any]) -> list[str]:
    """What the source lacks: the list, or the folder of images."""
    lacks = [] if (root / source["list"]).is_file() else [source["list"]]
    return lacks + ([] if (root / source["images"]).is_dir() else [source["images"] + "/"])


def _classes(paths: list[Path], labels: np.ndarray, listed: Path) -> tuple[str, ...] | None:
    count = int(labels.max()) + 1
    if count <= 0:
        return None
    names: dict[int, set[str]] = {}
    for path, label in zip(paths, labels.tolist(), strict=True):
        names.setdefault(label, set()).add(path.parent.name)
    empty = [label for label in range(count) if label not in names]
    if empty:
        raise RunError(f"{listed}: label {empty[0]} has no image, but labels go up to {count - 1}")
    single = [next(iter(found)) for label, found in sorted(names.items()) if label >= 0 and len(found) == 1]
    return tuple(single) if len(set(single)) == count else tuple(map(str, range(count)))

"""Image sets that are named by their paths: `image_folder` as a set of training, and folders in a protocol."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from ood_lab.config.groups import TRAINED_ON
from ood_lab.errors import RequestError

TARGET = "ood_lab.dataset.image_folder.ImageFolder"
UNNAMED = "image_folder"
# What features, records and roles are called already.
RESERVED = ("train", "val", "test", "id", *TRAINED_ON, "near", "far", "validation")


def is_own(node: dict[str, Any]) -> bool:
    """Whether a set is a folder of one's own."""
    return node.get("_target_") == TARGET


def located(node: dict[str, Any], role: str, data: str) -> dict[str, Any]:
    """A set of one's own with the folders that it is read from, and the name of its folder.

    Args:
        role: "id", or another one of training.
        data: paths.data, where the set lies that names no folder.

    Raises:
        RequestError: a set without a name of its own.
    """
    trained = {name: layout for name, layout in node["layouts"].items() if layout is not None and "train" in layout}
    if role == "id" and trained:  # a file of one's own says where the splits are
        return {**node, "layouts": trained}
    if role == "id":
        places = {split: absolute(node[split] or f"{node['root']}/{split}") for split in ("train", "test")}
        val = absolute(node["val"] or f"{node['root']}/val")
        if node["val"] or os.path.isdir(val):  # noqa: PTH112
            places["val"] = val
        node = {**node, "layouts": {"folder": {split: {"folder": place} for split, place in places.items()}}}
        home = absolute(node["root"]) if node["root"] != data or not node["train"] else _home(places["train"])
    elif role in TRAINED_ON and node["root"] != data:
        home = absolute(node["root"])
        node = {**node, "root": home, "layouts": {"folder": {"auxiliary": {"folder": "."}}}}
    else:
        return node
    if node["name"] == UNNAMED:
        node = {**node, "name": last_part(home)}
    return node


def absolute(path: str) -> str:
    """A path from the root of the file system; `~` is the user's home."""
    return str(Path(os.path.expanduser(path)).absolute())  # noqa: PTH111 (keeps "~x")


def last_part(path: str) -> str:
    """What a folder is called; of `.` and `..`, what they stand for.

    Raises:
        RequestError: the root of the file system.
    """
    name = Path(path).resolve().name if Path(path).name in ("", ".", "..") else Path(path).name
    if not name:
        raise RequestError(f"{path}: a folder that has no name; name one below it, or give dataset.name=")
    return name


def _home(train: str) -> str:
    return str(Path(train).parent) if Path(train).name == "train" else train


def is_path(entry: str) -> bool:
    """Whether an entry of a protocol is a folder, not the name of a set."""
    return "/" in entry or entry.startswith("~")


def named_path(entry: str) -> tuple[str, str]:
    """(name, absolute path) of a folder in a protocol, written as `path` or `name:path`.

    Raises:
        RequestError: its name is taken by a part of the ID set.
    """
    match = re.fullmatch(r"([^/~:]+):(.*[/~].*)", entry, re.DOTALL)
    named = match is not None and not Path(entry).exists()
    path = absolute(match[2] if match and named else entry)
    name = match[1] if match and named else last_part(path)
    if name in RESERVED:
        raise RequestError(
            f"protocol: {entry!r} would be called {name!r}, as parts of the ID set are; give it a name of its own: "
            f"'some_name:{path}'"
        )
    return name, path


def written(name: str, path: str) -> str:
    """The entry of a protocol that `named_path` reads as this name and path."""
    return path if name == last_part(path) else f"{name}:{path}"


def folder_set(node: dict[str, Any], name: str, path: str) -> dict[str, Any]:
    """The description of a folder in a protocol, from that of `image_folder`: all images below it."""
    how = "Put the images there, or name another folder in the protocol."
    layouts = {"folder": {"ood": {"folder": "."}}}
    return {**node, "name": name, "root": path, "layouts": layouts, "how_to_get": how}

"""Which image sets a request reads, and whether their files are there: a look at the disk, no torch."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from ood_lab.config.check import check_groups, nearest, parse
from ood_lab.config.compose import Composed, compose, groups
from ood_lab.config.errors import RequestError


@cache
def image_set_config(name: str, data: str, folder: Path | None = None) -> dict[str, Any]:
    """The node of `conf/dataset/<name>.yaml`, composed beside `paths.data`."""
    overrides = [f"dataset={name}", f"paths.data={quote(data)}"]
    check_groups(parse(overrides), folder)
    node = compose(overrides, config_name="image_set", folder=folder).plain("dataset")
    assert isinstance(node, dict)
    return node


def quote(value: str) -> str:
    """A string as one value of Hydra's override grammar."""
    if re.fullmatch(r"[A-Za-z_/.][\w/.-]*", value) and value not in ("null", "true", "false"):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def find_layout(node: dict[str, Any]) -> str | None:
    """The first layout whose files all exist; "embedded" for a set that needs none."""
    if not node["layouts"]:
        return "embedded"
    root = Path(node["root"])
    for layout, files in node["layouts"].items():
        if all((root / file).exists() for file in files):
            return str(layout)
    return None


def describe_missing(node: dict[str, Any]) -> str:
    """What was looked for and how to get it."""
    root = Path(node["root"])
    wanted = []
    for layout, files in node["layouts"].items():
        absent = [file for file in files if not (root / file).exists()]
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        wanted.append(f"{root / absent[0]}{more} ({layout} layout)")
    return f"{node['name']}: missing {', or '.join(wanted)}. {node['how_to_get']}"


def check_image_sets(composed: Composed, folder: Path | None = None) -> list[str]:
    """The names of the OOD sets that can be scored.

    Raises:
        RequestError: the ID set is missing, an OOD set is unknown, named twice or the ID set itself, or an OOD set is
            missing and `protocol.missing` is "error"; or no set is left to score.
    """
    data = str(composed.cfg.paths.data)
    id_node = composed.plain("dataset")
    if find_layout(id_node) is None:
        raise RequestError(f"the data set is not there. {describe_missing(id_node)}{_remedy(data)}")
    names = [*composed.plain("protocol.near"), *composed.plain("protocol.far")]
    known = groups(folder)["dataset"]
    present: list[str] = []
    for name in names:
        if name == id_node["name"] or names.count(name) > 1:
            why = "is the ID set itself" if name == id_node["name"] else "is named twice"
            raise RequestError(f"protocol.near and protocol.far: {name!r} {why}; name each OOD set once")
        if name not in known:
            raise RequestError(f"protocol: {name!r} is no data set.{nearest(name, known)}")
        node = image_set_config(name, data, folder)
        if find_layout(node) is not None:
            present.append(name)
        elif composed.cfg.protocol.missing == "error":
            skip = " To score only what is there: protocol.missing=skip."
            raise RequestError(f"an OOD set is not there. {describe_missing(node)}{_remedy(data)}{skip}")
    if not present:
        raise RequestError("no OOD set to score: name some in protocol.near or protocol.far, or set paths.data")
    return present


def _remedy(data: str) -> str:
    return f" The folder searched is paths.data={data} (or the environment variable OOD_LAB_DATA)."

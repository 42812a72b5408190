"""The networks of timm by name, read from its source: importing it would import torch."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ood_lab.config.experiment import Part
from ood_lab.config.suggest import nearest
from ood_lab.errors import RequestError

TARGET = "ood_lab.backbone.timm.Timm"
_REGISTERED = re.compile(r"^@register_model\s+def (\w+)\(", re.MULTILINE)


def check_installed() -> Path:
    """The folder of timm.

    Raises:
        RequestError: it is not installed.
    """
    spec = find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        raise RequestError("backbone=timm needs timm: pip install 'ood-lab[timm]'")
    return Path(spec.submodule_search_locations[0])


@cache
def _source() -> str:
    files = sorted((check_installed() / "models").glob("*.py"))
    return "\n".join(file.read_text(errors="replace") for file in files)


@cache
def names() -> frozenset[str]:
    """Every network that timm registers."""
    return frozenset(_REGISTERED.findall(_source()))


def check_tag(architecture: str, tag: str) -> None:
    """Refuse a tag of published weights that timm's source does not mention.

    A tag that another network has is seen when the network is built: some of timm's lists are made by loops.

    Raises:
        RequestError: see above.
    """
    if not tag or re.search(rf"""\.{re.escape(tag)}['"]""", _source()) is None:
        known = re.findall(rf"""['"]{re.escape(architecture)}\.(\w+)['"]""", _source())
        has = f"it has {', '.join(dict.fromkeys(known))}" if known else "leave the tag out"
        raise RequestError(f"backbone.name={architecture}.{tag}: {architecture} has no weights {tag!r}; {has}")


def check_timm(backbone: Part) -> None:
    """Refuse a network that timm does not have, and two places for its weights.

    Raises:
        RequestError: see above; the nearest name is given.
    """
    if backbone.target != TARGET:
        return
    name = str(backbone.get("name"))
    if name == "???":
        raise RequestError("backbone=timm: name the network, for example backbone.name=resnet50")
    architecture, _, tag = name.partition(".")
    if architecture not in names():
        close = nearest(architecture, names())
        if not close.startswith(" Did"):
            close = " timm.list_models() has them all"
        raise RequestError(f"backbone.name={name}: timm has no such network.{close}")
    if "." in name:
        check_tag(architecture, tag)
    file = backbone.get("file")
    if file is not None and backbone.get("pretrained"):
        raise RequestError(
            f"backbone.pretrained=true and backbone.file={file}: two sources of initial weights; give only one"
        )
    if file is not None and not Path(file).expanduser().is_file():
        raise RequestError(f"backbone.file={file}: no such file")

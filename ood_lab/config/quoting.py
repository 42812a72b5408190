"""Strings that Hydra and OmegaConf must take as they are: paths and names with any character."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from ood_lab.errors import RequestError

# Values that are paths: on a command line they are taken as they are typed.
PATHS = (
    "paths.data", "paths.output", "paths.cache",
    "dataset.root", "dataset.train", "dataset.val", "dataset.test", "auxiliary.root",
    "pictures.root",
    "init.checkpoint", "init.weights.file", "producer.weights", "features", "backbone.file",
)  # fmt: skip
# Lists in which an entry may be a folder.
LISTS_OF_SETS = ("protocol.near", "protocol.far", "protocol.validation")

PLAIN = re.compile(r"[A-Za-z_/][\w/.-]*", re.ASCII)
WORDS = {"null", "true", "false", "nan", "inf"}
BRACKETS = re.compile(r"\[.*\]", re.DOTALL)
SWEEPS = re.compile(r"(choice|range|interval|glob|shuffle|sort|extend_list)\(")


def quote(value: str) -> str:
    """A string as one value of a configuration in Hydra's override grammar, which gives that string back."""
    return quoted(uninterpolated(value))


def quoted(value: str) -> str:
    """A string as one value of Hydra's override grammar alone; OmegaConf may find interpolations in it."""
    if PLAIN.fullmatch(value) and value.lower() not in WORDS:
        return value
    # Backslashes escape before a quote only, so these are doubled there.
    inner = re.sub(r"(\\*)('|\Z)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)
    return f"'{inner}'"


def uninterpolated(node: Any) -> Any:
    """A plain node whose strings OmegaConf gives back as they are: `${` in them is no interpolation."""
    if isinstance(node, str):
        return re.sub(r"(\\*)\$\{", lambda m: m[1] * 2 + "\\${", node)
    if isinstance(node, dict):
        return {key: uninterpolated(child) for key, child in node.items()}
    return [uninterpolated(child) for child in node] if isinstance(node, list) else node


def as_override(value: Any) -> str:
    """A plain value in Hydra's override grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ",".join(map(as_override, value)) + "]"
    return quote(value) if isinstance(value, str) else repr(value)


def as_typed(override: str, multirun: bool = False) -> str:
    """A command line's override in Hydra's grammar: the value of a path is the path, whatever characters it holds.

    Quotes around the whole are Hydra's, unless there is such a file; with `multirun`, so are commas in the value of
    anything but `paths.*`. Nothing in a path is an interpolation. The overrides of a prerequisite (`init.overrides`,
    `needs`) need no quotes.

    Raises:
        RequestError: a name that is not UTF-8.
    """
    key, equals, value = override.partition("=")
    name = key.lstrip("+")
    check_utf8(override, f"{name}=")
    if equals and name in LISTS_OF_SETS:
        found = _parsed(override)
        if found is None and BRACKETS.fullmatch(value):
            found = [part.strip("'\"") for part in _parted(value[1:-1])]  # a home folder, say, has no quotes
        return f"{key}={as_override(found)}" if isinstance(found, list) else override
    if equals and _is_command(name) and _parsed(override) is None and BRACKETS.fullmatch(value):
        return f"{key}={as_override(_parted(value[1:-1]))}"
    nullable = not name.startswith("paths.")
    if not equals or name not in PATHS or (nullable and value == "null") or value == "":
        return override
    if not _exists(value):
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            found = _parsed(override)
            return f"{key}={quote(found)}" if isinstance(found, str) else override
        if multirun and nullable and ("," in value or SWEEPS.match(value)):
            return override
    return f"{key}={quote(value)}"


def _is_command(key: str) -> bool:
    """Whether an option is a list of overrides, those of a prerequisite."""
    return key == "init.overrides" or ".needs." in key


def check_utf8(text: str, what: str) -> None:
    """Refuse a name that can't be printed or stored.

    Raises:
        RequestError: it holds bytes that are not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        shown = text.encode(errors="backslashreplace").decode()
        raise RequestError(f"{what}: {shown!r} is not UTF-8; rename it") from None


def _parted(text: str) -> list[str]:
    """What is between commas, those within brackets left alone."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[({") - (character in "])}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _parsed(override: str) -> Any:
    try:
        value = OverridesParser.create().parse_override(override).value()
    except HydraException:
        return None  # which is said when the whole request is parsed
    return [_without_escapes(entry) for entry in value] if isinstance(value, list) else _without_escapes(value)


def _without_escapes(value: Any) -> Any:
    """What `uninterpolated` has made undone, so that a quoted value may be quoted again."""
    if not isinstance(value, str):
        return value
    return re.sub(r"(\\+)\$\{", lambda m: m[1][: len(m[1]) // 2] + "${" if len(m[1]) % 2 else m[0], value)


def _exists(value: str) -> bool:
    try:
        return Path(value).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long a name; a zero byte; no home
        return False

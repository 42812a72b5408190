"""`--help`: every group's choices; `--help group=name`: a choice's own file and the docstring of its class.

Nothing is imported for it.
"""

from __future__ import annotations

import ast
import inspect
import re
import shutil
import textwrap
from pathlib import Path

from ood_lab.config.check import EVERY, MAY_BE_EMPTY, check_groups, parse
from ood_lab.config.compose import target
from ood_lab.config.groups import LIST_GROUPS, OPTIONAL, PACKAGE, ROLES, config_file, groups
from ood_lab.config.source import definition, module_file
from ood_lab.errors import RequestError

WIDTH = 96  # of the first lines in a list of choices
GROUP_WIDTH = 31  # of the column of groups, with what they take
TEXT_WIDTH = 100  # of a line in the overview, where the terminal is no narrower


def describe_choice(group: str, name: str, folder: Path | None = None) -> str:
    """The file of one choice, and the docstring of its class with its place.

    Raises:
        RequestError: there is no such choice.
    """
    check_groups(parse([f"{group}={name}"]), folder)
    group = ROLES.get(group, group)
    path = config_file(group, name, folder)
    assert path is not None
    lines = [f"{group}={name}  {path}", "", path.read_text().rstrip()]
    found = _class_of(group, name, folder)
    if found is not None:
        place, node = found
        documented = inspect.cleandoc(ast.get_docstring(node) or "")
        lines += [
            "",
            f"class {node.name}  {place}:{node.lineno}",
            *(f"  {line}".rstrip() for line in documented.splitlines()),
        ]
    return "\n".join(lines)


def describe_groups(folder: Path | None = None) -> str:
    """Every group with what it takes (one choice; several; none) and the names of its choices."""
    width = min(TEXT_WIDTH, shutil.get_terminal_size((TEXT_WIDTH, 0)).columns)
    lines = ["groups, as GROUP=NAME (several: GROUP=[NAME,NAME]; without: GROUP=null or GROUP=[]):"]
    for group, names in groups(folder).items():
        if group.startswith("hydra"):
            continue
        takes = [
            *(["several"] if group in LIST_GROUPS else []),
            *(["or null"] if group in OPTIONAL else []),
            *(["or []"] if group in MAY_BE_EMPTY else []),
        ]
        head = f"  {group} ({', '.join(takes)})" if takes else f"  {group}"
        same = ROLES.get(group)
        text = ", ".join([*EVERY.get(group, []), *names]) if same is None else f"as {same}"
        blank = " " * GROUP_WIDTH
        lines += textwrap.wrap(
            text, width, initial_indent=f"{head:<{GROUP_WIDTH - 1}} ", subsequent_indent=blank, break_on_hyphens=False
        )
    return "\n".join(lines)


def describe_group(group: str, folder: Path | None = None) -> str:
    """The choices of a group, each with the first line that is said of it."""
    names = groups(folder)[group]
    width = max((len(name) for name in names), default=0)
    return "\n".join(
        [f"{group}:", *(f"  {name:<{width}}  {_first_line(group, name, folder)}".rstrip() for name in names)]
    )


def _first_line(group: str, name: str, folder: Path | None) -> str:
    """The first sentence of a file's comment, or else of its class."""
    path = config_file(ROLES.get(group, group), name, folder)
    said = []
    for line in path.read_text().splitlines() if path is not None else ():
        if line.startswith("#"):
            said += [] if line.startswith("# @package") else [line.lstrip("# ")]
        elif said or line.strip():
            break
    text = " ".join(said)
    if not text and (found := _class_of(ROLES.get(group, group), name, folder)) is not None:
        text = " ".join((ast.get_docstring(found[1]) or "").partition("\n\n")[0].split())
    sentence = re.split(r"(?<=[.;]) (?=[A-Z])", text, maxsplit=1)[0].rstrip(".;")
    return sentence if len(sentence) <= WIDTH else f"{sentence[: WIDTH - 3].rstrip()}..."


def _class_of(group: str, name: str, folder: Path | None) -> tuple[Path, ast.ClassDef] | None:
    """The source of the class that a choice names, and its file; None where it names none."""
    try:
        module, _, class_name = target(group, name, folder).rpartition(".")
        found = definition(class_name, module)
    except RequestError:  # a file that chooses from other groups, or only sets values
        return None
    if found is None or not isinstance(found.value, ast.ClassDef):
        return None
    file = module_file(found.module)
    assert file is not None
    return file.relative_to(PACKAGE.parent) if file.is_relative_to(PACKAGE.parent) else file, found.value

"""OpenOOD's image lists, one line "path label" an image: `list: file`, `images: folder`."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ood_lab.errors import RunError
from ood_lab.reader.base import UNLABELLED, Listing, one_file

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# A blank line is passed over, and a path may hold blanks: the label is what follows the last one.
LINE = re.compile(r"[ \t]*(?P<path>.*?)(?:[ \t]+(?P<label>-?[0-9]{1,18}))?[ \t]*")


@dataclass(frozen=True)
class Entry:
    """One line: its number from 1, the path as it is written, and the label; None where there is no whole number."""

    line: int
    path: str
    label: int | None


def read(root: Path, source: dict[str, Any], labelled: bool = True) -> Listing:
    """The images of a list, in its order.

    A path is relative to `root/images`, or absolute. Class names aren't part of the format: where each class has a
    folder of its own, its name is taken.

    Args:
        labelled: whether the set is an ID set; else labels mean nothing, may be left out, and all are -1.

    Raises:
        RunError: no text, a line without a label or with a negative one, a file that isn't there (the first is named
            with its line, and how many).
    """
    listed, base = one_file(root, source["list"]), root / source["images"]
    entries = list(_entries(listed))
    if not entries:
        raise RunError(f"{listed}: an empty list")
    paths = [base / entry.path for entry in entries]
    if labelled:
        _check_labels(listed, entries)
        values = np.array([entry.label for entry in entries], np.int64)
    else:
        values = np.full(len(entries), UNLABELLED, np.int64)
    absent = [i for i, path in enumerate(paths) if not path.is_file()]
    if absent:
        more = f" and {len(absent) - 1} more of {len(paths)}" if len(absent) > 1 else ""
        raise RunError(
            f"{listed}, line {entries[absent[0]].line}: {paths[absent[0]]} is not there{more}. "
            "Get the images that belong to the list, or a list that fits them."
        )
    classes = _classes(paths, values) if labelled else None
    return Listing(values, classes, str(listed), paths=tuple(paths), files=(listed, *paths))


def count(root: Path, source: dict[str, Any]) -> int:
    """The lines of the list that aren't blank."""
    return sum(1 for _ in _entries(one_file(root, source["list"])))


def class_names(root: Path, source: dict[str, Any]) -> tuple[str, ...]:
    """The name of each label, as `read` gives it, without a look at the images."""
    paths, labels = _labelled(root, source)
    return _classes(paths, np.array(labels, np.int64))


def folder_names(root: Path, source: dict[str, Any]) -> dict[int, str]:
    """For each label the folder that all its images, and no others, lie in; empty unless that is so for all labels."""
    return _folders(*_labelled(root, source))


def is_there(root: Path, source: dict[str, Any]) -> list[str]:
    """What the source lacks: the list, or the folder of images."""
    lacks = [] if (root / source["list"]).is_file() else [source["list"]]
    return lacks + ([] if (root / source["images"]).is_dir() else [source["images"] + "/"])


def _labelled(root: Path, source: dict[str, Any]) -> tuple[list[Path], list[int]]:
    """The paths and labels of an ID set's list, without a look at the images."""
    listed, base = one_file(root, source["list"]), root / source["images"]
    entries = list(_entries(listed))
    _check_labels(listed, entries)
    return [base / entry.path for entry in entries], [entry.label for entry in entries if entry.label is not None]


def _entries(listed: Path) -> Iterator[Entry]:
    # Not `splitlines`: a file's name may hold what that takes for the end of a line.
    lines = text_of(listed).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for number, line in enumerate(lines, 1):
        match = LINE.fullmatch(line)
        assert match is not None  # every line fits: the path takes what the label doesn't
        if match["path"]:
            yield Entry(number, match["path"], None if match["label"] is None else int(match["label"]))


def text_of(file: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 where a byte-order mark says so.

    Raises:
        RunError: another encoding; the first line that shows it is named.
    """
    data = file.read_bytes()
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise RunError(
            f"{file}, line {line}: byte {data[error.start]:#04x} is not {encoding.upper()}. Save the file as UTF-8."
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise RunError(f"{file}, line {line}: holds a zero byte, as UTF-16 without its mark. Save the file as UTF-8.")
    return text


def _check_labels(listed: Path, entries: list[Entry]) -> None:
    for entry in entries:
        if entry.label is None:
            raise RunError(
                f"{listed}, line {entry.line}: expected 'path label' with a whole number, found {entry.path!r}"
            )
        if entry.label < 0:
            raise RunError(
                f"{listed}, line {entry.line}: label {entry.label} of {entry.path!r}: an ID image needs a class, "
                "0 or above. Take the line off the list, or use the list for an OOD set."
            )


def _classes(paths: list[Path], labels: np.ndarray) -> tuple[str, ...]:
    """A name for each label up to the largest: of its folder (see `folder_names`), else its number."""
    folders = _folders(paths, labels.tolist())
    return tuple(folders.get(label, str(label)) for label in range(int(labels.max()) + 1))


def _folders(paths: list[Path], labels: list[int]) -> dict[int, str]:
    found: dict[int, set[str]] = {}
    for path, label in zip(paths, labels, strict=True):
        found.setdefault(label, set()).add(path.parent.name)
    single = {label: next(iter(names)) for label, names in found.items() if len(names) == 1}
    return single if len(set(single.values())) == len(found) else {}

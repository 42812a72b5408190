"""Image lists: encodings, blank lines, absolute paths, labels; whatever is wrong is named with file and line."""

from __future__ import annotations

import codecs
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ood_lab.errors import RunError
from ood_lab.reader import image_list
from tests.cases import each

SOURCE: dict[str, Any] = {"list": "a.txt", "images": "pictures"}
NAMES = ("a/1.png", "b/2.png", "a/three words.png", "c/4.png")
LABELS = (0, 1, 0, 2)


def images(root: Path, names: tuple[str, ...] = NAMES) -> None:
    for name in names:
        (root / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "pictures" / name).touch()


def text(names: tuple[str, ...] = NAMES, labels: tuple[object, ...] = LABELS) -> str:
    return "".join(f"{name} {label}\n" for name, label in zip(names, labels, strict=True))


def read(root: Path, data: bytes | str, labelled: bool = True) -> image_list.Listing:
    (root / "a.txt").write_bytes(data.encode() if isinstance(data, str) else data)
    return image_list.read(root, SOURCE, labelled)


@each(
    "encoded",
    [
        text().encode(),
        codecs.BOM_UTF8 + text().encode(),
        text().encode("utf-16"),
        codecs.BOM_UTF16_BE + text().encode("utf-16-be"),
        text().encode("utf-32"),
        text().replace("\n", "\r\n").encode(),
        text().replace("\n", "\r").encode(),
        f"\n \n{text()}\n\t\n".encode(),
        text().replace(" 0\n", "\t0 \n").encode(),
    ],
)
def test_every_writing_of_a_list_gives_the_same_images(encoded: bytes, tmp_path: Path) -> None:
    images(tmp_path)
    listing = read(tmp_path, encoded)
    assert listing.labels.tolist() == list(LABELS)
    assert [str(p.relative_to(tmp_path / "pictures")) for p in listing.paths or ()] == list(NAMES)
    assert listing.classes == ("a", "b", "c")
    assert image_list.count(tmp_path, SOURCE) == 4
    assert image_list.class_names(tmp_path, SOURCE) == ("a", "b", "c")


def test_absolute_paths_may_lie_anywhere(tmp_path: Path) -> None:
    images(tmp_path / "elsewhere")
    names = tuple(str(tmp_path / "elsewhere/pictures" / name) for name in NAMES)
    assert read(tmp_path, text(names)).paths == tuple(map(Path, names))


@each(
    ("line", "message"),
    [
        ("a/1.png", "line 3: expected 'path label' with a whole number, found 'a/1.png'"),
        ("a/1.png 1.5", "line 3: expected 'path label'"),
        ("a/1.png ²", "line 3: expected 'path label'"),
        ("a/1.png 12345678901234567890123", "line 3: expected 'path label'"),
        ("a/1.png -1", r"line 3: label -1 of 'a/1\.png': an ID image needs a class"),
        ("a/not_there.png 0", r"line 3: .*not_there\.png is not there\. Get"),
    ],
)
def test_a_wrong_line_is_named_by_its_number_in_the_file(line: str, message: str, tmp_path: Path) -> None:
    images(tmp_path)
    with pytest.raises(RunError, match=rf"a\.txt, {message}"):
        read(tmp_path, f"\na/1.png 0\n{line}\nb/2.png 1\n")


@each(
    ("data", "message"),
    [
        ("a/1.png 0\nb/ü.png 1\n".encode("latin-1"), "line 2: byte 0xfc is not UTF-8. Save the file as UTF-8"),
        ("a/1.png 0\nb/2.png 1\n".encode("utf-16-le"), "line 1: holds a zero byte, as UTF-16 without its mark"),
    ],
)
def test_another_encoding_is_named(data: bytes, message: str, tmp_path: Path) -> None:
    images(tmp_path)
    for labelled in (True, False):
        with pytest.raises(RunError, match=message):
            read(tmp_path, data, labelled)


@each("labels", [(3, 7, 3, 7), (-1, -1, -1, -1), (0, -1, 5, 0), ("", "", "", "")])
def test_labels_of_an_ood_list_mean_nothing(labels: tuple[object, ...], tmp_path: Path) -> None:
    images(tmp_path)
    listing = read(tmp_path, text(labels=labels), labelled=False)
    assert listing.labels.tolist() == [-1] * 4
    assert listing.classes is None
    assert [str(p.relative_to(tmp_path / "pictures")) for p in listing.paths or ()] == list(NAMES)


def test_a_list_may_lack_a_class_and_has_numbers_where_folders_tell_nothing(tmp_path: Path) -> None:
    images(tmp_path)
    assert read(tmp_path, text(labels=(0, 3, 0, 2))).classes == ("a", "1", "c", "b")
    assert read(tmp_path, text(labels=(0, 1, 2, 2))).classes == ("0", "1", "2")


# What a Linux file name may hold, but a line end, and blanks at the ends, which a list can't show.
FILE_NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\0\n\r"), min_size=1, max_size=20
).filter(lambda name: name.strip(" \t") == name and name not in (".", "..") and len(name.encode()) < 200)


@settings(deadline=None)
@given(
    st.lists(st.tuples(FILE_NAMES, st.integers(0, 99)), min_size=1, max_size=5), st.sampled_from(["utf-8", "utf-16"])
)
def test_any_file_name_goes_through_a_list(lines: list[tuple[str, int]], encoding: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, _ in lines:
            (root / "pictures").mkdir(exist_ok=True)
            (root / "pictures" / name).touch()
        listing = read(root, "".join(f"{name} {label}\n" for name, label in lines).encode(encoding))
        assert [path.name for path in listing.paths or ()] == [name for name, _ in lines]
        assert listing.labels.tolist() == [label for _, label in lines]


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_by_name(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for labelled in (True, False):
            with pytest.raises(RunError, match=r"a\.txt"):  # no image is there
                read(Path(folder), data, labelled)

"""Labels go by the training split's class names, and validation never empties a class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ood_lab.dataset.base import held_out
from ood_lab.errors import RequestError, RunError
from ood_lab.reader.base import Listing
from ood_lab.reader.id_splits import default_held_out, held_out_per_class, read_id_split, training_classes
from tests.cases import each


def put(root: Path, split: str, *names: str, count: int = 2) -> None:
    for name in names:
        folder = root / split / name
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new("RGB", (4, 4)).save(folder / f"{i}.png")


def listed(root: Path, split: str, *lines: str) -> None:
    (root / f"{split}.txt").write_text("\n".join(lines))


def node(root: Path, train: str = "folder", test: str = "folder") -> dict[str, Any]:
    kinds = {"folder": lambda s: {"folder": s}, "list": lambda s: {"list": f"{s}.txt", "images": "."}}
    layouts = {"own": {"train": kinds[train]("train"), "test": kinds[test]("test")}}
    return {"name": "own", "root": str(root), "layouts": layouts}


def test_a_test_split_that_lacks_a_class_keeps_the_training_splits_labels(tmp_path: Path) -> None:
    put(tmp_path, "train", "a", "b", "c", "d")
    put(tmp_path, "test", "a", "c", "d", count=1)
    listing = read_id_split(node(tmp_path), "own", "test")
    assert listing.classes == ("a", "b", "c", "d")
    assert listing.labels.tolist() == [0, 2, 3]


def test_letter_case_and_unicode_form_do_not_tell_classes_apart(tmp_path: Path) -> None:
    put(tmp_path, "train", "b", "\u00e9")
    put(tmp_path, "test", "B", "e\u0301", count=1)
    assert read_id_split(node(tmp_path), "own", "test").labels.tolist() == [0, 1]


@each("extra", ["bb", "z"])
def test_a_class_unknown_to_training_is_refused_with_both_sides(extra: str, tmp_path: Path) -> None:
    put(tmp_path, "train", "a", "b", "c")
    put(tmp_path, "test", "a", extra)
    with pytest.raises(RunError, match=rf"test: class '{extra}' is unknown to training: .*train has a, b, c\. Rename"):
        read_id_split(node(tmp_path), "own", "test")


def test_a_training_class_without_images_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "train", "a", "b")
    (tmp_path / "train/empty").mkdir()
    with pytest.raises(RunError, match="class 'empty' has no image"):
        read_id_split(node(tmp_path), "own", "train")


def test_a_list_beside_training_folders_goes_by_its_folders_names(tmp_path: Path) -> None:
    put(tmp_path, "train", "a", "b", "c")
    put(tmp_path, "images", "a", "c", "bb")
    listed(tmp_path, "test", "images/c/0.png 2", "images/a/0.png 0")
    assert read_id_split(node(tmp_path, test="list"), "own", "test").labels.tolist() == [2, 0]
    listed(tmp_path, "test", "images/c/0.png 1", "images/a/0.png 0")
    with pytest.raises(RunError, match="class 'c' has label 1, but 2 in training"):
        read_id_split(node(tmp_path, test="list"), "own", "test")
    listed(tmp_path, "test", "images/bb/0.png 1", "images/a/0.png 0")
    with pytest.raises(RunError, match="class 'bb' is unknown to training"):
        read_id_split(node(tmp_path, test="list"), "own", "test")


def test_a_lists_numbers_count_where_its_folders_are_not_named_by_classes(tmp_path: Path) -> None:
    put(tmp_path, "train", "a", "b", "c")
    put(tmp_path, "images", "one", "two")
    listed(tmp_path, "test", "images/one/0.png 2", "images/two/0.png 0", "images/one/1.png 0")
    assert read_id_split(node(tmp_path, test="list"), "own", "test").labels.tolist() == [2, 0, 0]
    listed(tmp_path, "test", "images/one/0.png 3")
    with pytest.raises(RunError, match=r"label 3 is unknown to training: .*3 classes, 0 to 2 \(a, b, c\)"):
        read_id_split(node(tmp_path, test="list"), "own", "test")


def test_a_training_list_names_the_classes_of_test_folders(tmp_path: Path) -> None:
    put(tmp_path, "images", "x", "y")
    put(tmp_path, "test", "y", count=1)
    listed(tmp_path, "train", "images/y/0.png 0", "images/x/0.png 1")
    described = node(tmp_path, train="list")
    assert training_classes(described, "own") == ("y", "x")
    assert read_id_split(described, "own", "test").labels.tolist() == [0]
    listed(tmp_path, "train", "images/y/0.png 0", "images/x/0.png 2")
    with pytest.raises(RunError, match="class '1' has no image"):
        read_id_split(described, "own", "train")


def test_folders_named_by_numbers_are_names_too(tmp_path: Path) -> None:
    names = [str(i) for i in range(11)]
    put(tmp_path, "train", *names, count=1)
    put(tmp_path, "images", *names, count=1)
    right = {name: rank for rank, name in enumerate(sorted(names))}
    listed(tmp_path, "test", *(f"images/{name}/0.png {right[name]}" for name in names))
    assert read_id_split(node(tmp_path, test="list"), "own", "test").labels.tolist() == [right[n] for n in names]
    listed(tmp_path, "test", *(f"images/{name}/0.png {name}" for name in names))
    with pytest.raises(RunError, match="class '2' has label 2, but 3 in training"):
        read_id_split(node(tmp_path, test="list"), "own", "test")
    listed(tmp_path, "train", *(f"train/{name}/0.png {rank}" for rank, name in enumerate(("1", "2", "3"))))
    listed(tmp_path, "test", "images/1/0.png 1", "images/2/0.png 2")
    with pytest.raises(RunError, match="class '1' has label 1, but 0 in training"):
        read_id_split(node(tmp_path, train="list", test="list"), "own", "test")


def test_an_empty_folder_beside_the_test_classes_is_no_class(tmp_path: Path) -> None:
    put(tmp_path, "train", "a", "b")
    put(tmp_path, "test", "a", "b", count=1)
    (tmp_path / "test/__MACOSX").mkdir()
    assert read_id_split(node(tmp_path), "own", "test").labels.tolist() == [0, 1]


def test_chosen_classes_may_be_missing_from_the_test_split_only(tmp_path: Path) -> None:
    put(tmp_path, "train", "a", "b", "c")
    put(tmp_path, "test", "c", "b", count=1)
    described = {**node(tmp_path), "include": ["a", "c"]}
    assert read_id_split(described, "own", "test").labels.tolist() == [1]
    with pytest.raises(RunError, match="needs class 'z'"):
        read_id_split({**described, "include": ["a", "z"]}, "own", "train")


def a_listing(counts: list[int]) -> Listing:
    labels = np.repeat(np.arange(len(counts)), counts)
    return Listing(labels, tuple(f"c{i}" for i in range(len(counts))), "test", paths=tuple(map(Path, map(str, labels))))


def test_too_large_a_validation_part_is_refused_with_a_number_that_works() -> None:
    rare = a_listing([15, 3, 15, 15])
    with pytest.raises(
        RequestError, match=r"protocol\.id_val=40: 10 test .*'c1' has 3 of 48 .*protocol\.id_val=8 works"
    ):
        held_out(rare, "val", 40)
    assert len(held_out(rare, "val", 8)) == 8
    with pytest.raises(RequestError, match=r"protocol\.id_val=0 works, which keeps none"):
        held_out(a_listing([5, 1]), "val", 1)


COUNTS = st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(lambda counts: counts[-1] > 0)


@settings(deadline=None)
@given(COUNTS, st.integers(1, 100))
def test_a_split_covers_all_images_and_leaves_every_class_some_or_is_refused(counts: list[int], asked: int) -> None:
    listing = a_listing(counts)
    try:
        per_class = held_out_per_class(listing, asked)
    except RequestError as error:
        works = int(str(error).partition("protocol.id_val=")[2].partition("At most protocol.id_val=")[2].split()[0])
        assert works < max(asked, len(counts))
        if works:
            assert len(held_out(listing, "val", works)) > 0
        return
    val, test = held_out(listing, "val", asked), held_out(listing, "test", asked)
    assert np.bincount(val.labels, minlength=len(counts)).tolist() == [min(n, per_class) for n in counts]
    left = np.bincount(test.labels, minlength=len(counts))
    assert all((here > 0) == (n > 0) for here, n in zip(left.tolist(), counts, strict=True))
    assert len(val) + len(test) == len(listing)


@settings(deadline=None)
@given(COUNTS)
def test_by_default_a_fifth_at_most_is_held_out_and_that_always_works(counts: list[int]) -> None:
    listing = a_listing(counts)
    kept = default_held_out(listing.labels)
    assert 0 <= kept <= len(listing) / 5
    if kept:
        assert len(held_out(listing, "val", kept)) <= kept
        assert len(held_out(listing, "test", kept)) >= 0.8 * len(listing)

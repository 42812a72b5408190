"""Every stored set, in a small tree of each of its real layouts: pixels, labels, splits, choice of classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ood_lab.config.compose import target
from ood_lab.config.groups import groups
from ood_lab.config.image_sets import image_set_config
from ood_lab.dataset.base import ImageSet
from ood_lab.errors import RunError
from ood_lab.reader.layout import find_layout, layouts_of
from ood_lab.reader.selection import drawn_classes
from ood_lab.task.build import build
from tests.cases import each
from tests.trees import plant

STORED = [name for name in groups()["dataset"] if target("dataset", name).endswith("Stored") and name != "stored"]
BENCHMARK = {"textures": "imagenet", "imagenet1k": "imagenet"}


def described(name: str, root: Path, benchmark: str = "cifar10") -> dict[str, Any]:
    return image_set_config(name, str(root), benchmark=benchmark)


def class_names(node: dict[str, Any]) -> list[str]:
    """As many classes as the set's choice of them needs, and some that it leaves out."""
    if node["include"]:
        return sorted([*node["include"], "n00000000", "n99999999"])
    left_out = [name for names in node["exclude"].values() for name in names]
    return sorted([*left_out, *(f"class{i:02d}" for i in range(12))])


def kept(node: dict[str, Any], classes: list[str]) -> list[str]:
    names = node["include"] or classes
    if node["draw"]:
        names = drawn_classes(names, **node["draw"])
    left_out = {*node["exclude"].get("any", []), *node["exclude"].get(node["benchmark"], [])}
    return [name for name in names if name not in left_out]


def named(node: dict[str, Any], layout: str) -> bool:
    """Whether the layout has names of classes, by which a set chooses."""
    return all(next(iter(source)) in ("folder", "batches") for source in layouts_of(node)[layout].values())


def layouts() -> list[tuple[str, str]]:
    """Every set in each of its layouts."""
    return [(name, layout) for name in STORED for layout in layouts_of(image_set_config(name, "x"))]


@each(("name", "layout"), layouts)
def test_every_layout_is_found_and_read_pixel_for_pixel(name: str, layout: str, tmp_path: Path) -> None:
    node = described(name, tmp_path)
    digits = not named(node, layout) and next(iter(layouts_of(node)[layout]["test"])) != "list"
    classes = [str(i) for i in range(10)] if digits else class_names(node)
    written = plant(node, layout, classes)
    assert find_layout(node, "ood") == layout
    source: ImageSet = build(node)
    for split in ("train", "test", "ood", "auxiliary"):
        fallback = {"ood": "test", "auxiliary": "train" if "train" in written else "test"}
        images, labels = written.get(split) or written.get(fallback.get(split, ""), (None, None))
        if images is None or labels is None or (split == "test" and "val" in written):
            continue
        if split in ("train", "test") and labels[0] == -1:
            continue  # a set without classes is no ID set
        listing = source.listing(split)
        wanted = list(range(len(images)))
        if named(node, layout):
            chosen = kept(node, classes)
            wanted = [i for i in wanted if classes[labels[i]] in chosen]
            assert [listing.classes[label] for label in listing.labels] == [classes[labels[i]] for i in wanted]
            assert listing.classes == tuple(c for c in classes if c in chosen)
        elif split in ("ood", "auxiliary") and next(iter(layouts_of(node)[layout]["test"])) == "list":
            assert (listing.labels == -1).all()
            assert listing.classes is None
        else:
            assert listing.labels.tolist() == [labels[i] for i in wanted]
        assert len(listing) == len(wanted) > 0
        for row, i in enumerate(wanted):
            assert np.array_equal(np.asarray(listing.image(row)), images[i])


@each("name", ["cifar10", "cifar100"])
def test_the_lists_validation_images_are_used_and_the_whole_test_set_is_both(name: str, tmp_path: Path) -> None:
    node = described(name, tmp_path)
    written = plant(node, "openood", class_names(node))
    source = build(node)
    assert len(source.listing("val", 1000)) == len(written["val"][1])
    assert len(source.listing("test", 1000)) == len(written["test"][1])
    whole = source.listing("test", 0)
    assert len(whole) == len(written["val"][1]) + len(written["test"][1])
    assert np.array_equal(np.asarray(whole.image(len(written["val"][1]))), written["test"][0][0])


def test_without_own_validation_images_they_are_drawn_evenly_from_the_test_set(tmp_path: Path) -> None:
    node = described("cifar10", tmp_path)
    plant(node, "torchvision", [f"class{i}" for i in range(10)], per_class=5)
    source = build(node)
    val, test = source.listing("val", 20), source.listing("test", 20)
    assert np.bincount(val.labels).tolist() == [2] * 10
    assert np.bincount(test.labels).tolist() == [3] * 10
    rows = {listing.image(i).tobytes() for listing in (val, test) for i in range(len(listing))}
    assert rows == {image.tobytes() for image in map(source.listing("test", 0).image, range(50))}
    assert np.array_equal(val.labels, source.listing("val", 20).labels)


def test_beside_imagenet_four_textures_are_left_out(tmp_path: Path) -> None:
    for benchmark, count in (("cifar10", 16), ("imagenet", 12)):
        node = described("textures", tmp_path / benchmark, benchmark)
        plant(node, "archive", class_names(node), per_class=1)
        assert len(build(node).listing("ood")) == count


def test_imagenet10_and_imagenet990_share_no_class_and_make_up_the_whole(tmp_path: Path) -> None:
    ten, rest = described("imagenet10", tmp_path), described("imagenet990", tmp_path)
    classes = sorted([*ten["include"], *(f"n{i:08d}" for i in range(20))])
    plant(ten, "torchvision", classes, per_class=1)
    named, others = build(ten).listing("train").classes, build(rest).listing("auxiliary").classes
    assert sorted(named) == sorted(ten["include"])
    assert len(named) == 10
    assert sorted([*named, *others]) == classes
    drawn = build({**ten, "include": None, "draw": {"count": 10, "seed": 1}}).listing("train").classes
    assert len(drawn) == 10
    assert drawn != named


def test_imagenet100_has_the_hundred_classes_of_bood() -> None:
    include = described("imagenet100", Path("x"))["include"]
    assert len(include) == len(set(include)) == 100
    assert (include[0], include[-1]) == ("n01498041", "n07745940")


def test_a_missing_set_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"svhn: .*test_32x32\.mat is not there\. Public"):
        build(described("svhn", tmp_path)).listing("ood")


def test_an_empty_class_folder_of_an_id_set_is_named_and_of_an_ood_set_passed_over(tmp_path: Path) -> None:
    node = described("cifar10", tmp_path)
    plant(node, "folder", [f"class{i}" for i in range(10)])
    (tmp_path / "cifar10/train/zebra").mkdir()
    with pytest.raises(RunError, match="class 'zebra' has no image"):
        build(node).listing("train")
    (tmp_path / "cifar10/test/zebra").mkdir()
    assert len(build(node).listing("ood")) == 20


def test_a_class_that_the_set_names_must_be_there(tmp_path: Path) -> None:
    node = described("imagenet100", tmp_path)
    plant(node, "torchvision", node["include"][1:], per_class=1)
    with pytest.raises(RunError, match="imagenet100 needs class 'n01498041'"):
        build(node).listing("train")

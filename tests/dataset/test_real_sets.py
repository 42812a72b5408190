"""Real image sets under OOD_LAB_DATA (make test-data DATA=folder): sizes, labels, and what a protocol finds."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from ood_lab.config import prepare
from ood_lab.config.image_sets import image_set_config
from ood_lab.images.pixels import Reading
from ood_lab.reader.base import Listing
from ood_lab.reader.layout import find_layout
from ood_lab.task.build import build
from tests.cases import each

pytestmark = pytest.mark.data


def listing(name: str, split: str, id_val: int = 1000) -> Listing:
    node = image_set_config(name, os.environ["OOD_LAB_DATA"])
    assert find_layout(node, "ood") is not None, f"{name} is not below {os.environ['OOD_LAB_DATA']}"
    found: Listing = build(node).listing(split, id_val)
    return found


@each("name", ["cifar10", "cifar100"])
def test_cifar_has_its_images_and_even_classes(name: str) -> None:
    sizes = {split: np.bincount(listing(name, split).labels) for split in ("train", "val", "test")}
    assert {split: int(counts.sum()) for split, counts in sizes.items()} == {"train": 50000, "val": 1000, "test": 9000}
    for counts in sizes.values():
        assert counts.min() == counts.max()
    assert len(listing(name, "test", id_val=0)) == 10000


@each("name", ["mnist_test", "textures", "sun397", "tiny_imagenet"])
def test_an_ood_set_is_read_as_uint8_squares(name: str, tmp_path: Path) -> None:
    found = listing(name, "ood")
    opened = Reading(32, 32, tmp_path, 1.0, 0).open(found, name)
    pixels = next(opened.chunks(500))
    assert pixels.shape[1:] == (3, 32, 32)
    assert str(pixels.dtype) == "torch.uint8"
    assert len(opened) == len(found) > 100
    assert pixels.float().std() > 10


def test_the_cifar_protocol_finds_every_set(tmp_path: Path) -> None:
    places = [f"paths.data={os.environ['OOD_LAB_DATA']}", f"paths.output={tmp_path}"]
    experiment = prepare(["dataset=cifar10", "protocol=cifar", "method=ce", *places])
    assert experiment.ood_sets == ("cifar100", "tiny_imagenet", "mnist_test", "textures", "sun397")

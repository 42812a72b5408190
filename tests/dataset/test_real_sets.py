"""Real image sets under OOD_LAB_DATA (make test-data DATA=folder): sizes, labels, and what a protocol finds."""

from __future__ import annotations

import os

import pytest
from hydra.utils import instantiate

from ood_lab.config import prepare
from ood_lab.config.image_sets import find_layout, image_set_config

pytestmark = pytest.mark.data


def load(name: str, split: str):
    node = image_set_config(name, os.environ["OOD_LAB_DATA"])
    assert find_layout(node) is not None, f"{name} is not below {os.environ['OOD_LAB_DATA']}"
    return instantiate(node, _convert_="all").load(split)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_has_its_images_and_even_classes(name: str) -> None:
    classes = {"cifar10": 10, "cifar100": 100}[name]
    sizes = {split: load(name, split).labels.bincount(minlength=classes) for split in ("train", "val", "test")}
    assert {split: int(counts.sum()) for split, counts in sizes.items()} == {"train": 50000, "val": 1000, "test": 9000}
    for counts in sizes.values():
        assert counts.min() == counts.max()


@pytest.mark.parametrize("name", ["mnist", "textures", "sun397", "tiny_imagenet"])
def test_an_ood_set_is_read_as_uint8_squares(name: str) -> None:
    images = load(name, "test")
    assert images.pixels.shape[1:] == (3, 32, 32)
    assert str(images.pixels.dtype) == "torch.uint8"
    assert len(images.pixels) > 100
    assert images.pixels.float().std() > 10


def test_the_cifar_protocol_finds_every_set() -> None:
    request = prepare(["dataset=cifar10", f"paths.data={os.environ['OOD_LAB_DATA']}", "method=ce"])
    assert request.ood_sets == ("cifar100", "tiny_imagenet", "mnist", "textures", "sun397")

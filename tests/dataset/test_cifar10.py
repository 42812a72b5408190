"""CIFAR from torchvision's python batches and from image folders; the test images split into validation and test."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import cifar as torchvision_cifar

from ood_lab.config.image_sets import image_set_config
from ood_lab.dataset import cifar10
from ood_lab.task.build import build
from ood_lab.types import Images

CLASSES = {"cifar10": 10, "cifar100": 100}


def load(name: str, root: Path, split: str) -> Images:
    return build(image_set_config(name, str(root))).load(split)


def fake(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, 3, 32, 32), dtype=np.uint8)


def write_tree(root: Path, name: str, part: str, per_class: int) -> dict[str, np.ndarray]:
    written = {}
    for label in range(CLASSES[name]):
        folder = root / name / part / f"class{label:03d}"
        folder.mkdir(parents=True)
        for i, image in enumerate(fake(per_class, seed=label + 1000 * (part == "test"))):
            Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{i}.png")
            written[f"{label}/{i}"] = image
    return written


@pytest.fixture(params=["cifar10", "cifar100"])
def tree(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path, dict[str, np.ndarray]]:
    name = request.param
    monkeypatch.setattr(cifar10, "VAL_IMAGES", CLASSES[name])
    write_tree(tmp_path, name, "train", 1)
    return name, tmp_path, write_tree(tmp_path, name, "test", 3)


def test_training_images_are_read_whole_in_class_order(tree: tuple[str, Path, dict[str, np.ndarray]]) -> None:
    name, root, _ = tree
    images = load(name, root, "train")
    assert images.labels.tolist() == list(range(CLASSES[name]))
    assert images.pixels.dtype == torch.uint8
    for label in range(CLASSES[name]):
        assert np.array_equal(images.pixels[label].numpy(), fake(1, seed=label)[0])


def test_validation_and_test_share_the_test_images_evenly(tree: tuple[str, Path, dict[str, np.ndarray]]) -> None:
    name, root, written = tree
    val, test = load(name, root, "val"), load(name, root, "test")
    assert val.labels.bincount().tolist() == [1] * CLASSES[name]
    assert test.labels.bincount().tolist() == [2] * CLASSES[name]
    both = sorted(p.numpy().tobytes() for p in torch.cat([val.pixels, test.pixels]))
    assert both == sorted(image.tobytes() for image in written.values())
    again = load(name, root, "val")
    assert torch.equal(again.pixels, val.pixels)


def test_each_image_keeps_its_label_through_the_split(tree: tuple[str, Path, dict[str, np.ndarray]]) -> None:
    name, root, written = tree
    label_of = {image.tobytes(): int(key.partition("/")[0]) for key, image in written.items()}
    for split in ("val", "test"):
        images = load(name, root, split)
        assert [label_of[p.numpy().tobytes()] for p in images.pixels] == images.labels.tolist()


def write_batches(root: Path, name: str) -> tuple[np.ndarray, list[int]]:
    """Python batches as the CIFAR archives hold them, with few images; gives all of them, training first."""
    pixels, labels = fake(60, seed=1), [i % CLASSES[name] for i in range(60)]
    folder = root / {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[name]
    folder.mkdir()
    if name == "cifar10":
        parts = {f"data_batch_{i + 1}": slice(8 * i, 8 * i + 8) for i in range(5)} | {"test_batch": slice(40, 60)}
        label_key, meta, names = "labels", "batches.meta", "label_names"
    else:
        parts = {"train": slice(0, 40), "test": slice(40, 60)}
        label_key, meta, names = "fine_labels", "meta", "fine_label_names"
    for file, rows in parts.items():
        content = {"data": pixels[rows].reshape(-1, 3072), label_key: labels[rows]}
        (folder / file).write_bytes(pickle.dumps(content))
    (folder / meta).write_bytes(pickle.dumps({names: [str(i) for i in range(CLASSES[name])]}))
    return pixels, labels


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_python_batches_are_read_as_channels_first(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, labels = write_batches(tmp_path, name)
    monkeypatch.setattr(torchvision_cifar, "check_integrity", lambda *_: True)
    train = load(name, tmp_path, "train")
    assert np.array_equal(train.pixels.numpy(), pixels[:40])
    assert train.labels.tolist() == labels[:40]
    assert train.labels.dtype == torch.int64
    monkeypatch.setattr(cifar10, "VAL_IMAGES", 10 if name == "cifar10" else 100)
    val, test = load(name, tmp_path, "val"), load(name, tmp_path, "test")
    assert len(val.labels) + len(test.labels) == 20


def test_the_full_split_is_1000_and_9000() -> None:
    assert cifar10.VAL_IMAGES == 1000
    assert [cifar10.VAL_IMAGES % classes for classes in CLASSES.values()] == [0, 0]


def test_without_files_the_error_names_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="cifar-10-batches-py/data_batch_1"):
        load("cifar10", tmp_path, "test")

"""Sets in the idx format: read from files written here, enlarged like any other image."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ood_lab.config.image_sets import image_set_config
from ood_lab.task.build import build

FOLDERS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}


def write(root: Path, name: str, count: int) -> tuple[np.ndarray, list[int]]:
    images = np.random.default_rng(3).integers(0, 256, (count, 28, 28), dtype=np.uint8)
    labels = [(7 * i) % 10 for i in range(count)]
    folder = root / FOLDERS[name] / "raw"
    folder.mkdir(parents=True)
    (folder / "t10k-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, count, 28, 28) + images.tobytes())
    (folder / "t10k-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + bytes(labels))
    return images, labels


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_images_and_labels_are_those_of_the_files(name: str, tmp_path: Path) -> None:
    images, labels = write(tmp_path, name, 12)
    loaded = build(image_set_config(name, str(tmp_path))).load("test")
    assert loaded.pixels.shape == (12, 3, 32, 32)
    assert loaded.pixels.dtype == torch.uint8
    assert loaded.labels.tolist() == labels
    assert loaded.labels.dtype == torch.int64
    for ours, image in zip(loaded.pixels, images, strict=True):
        expected = np.asarray(Image.fromarray(image).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR))
        assert np.array_equal(ours.numpy(), expected.transpose(2, 0, 1))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write(tmp_path, "mnist", 1)
    (tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="t10k-labels-idx1-ubyte") as caught:
        build(image_set_config("mnist", str(tmp_path))).load("test")
    assert "t10k-images" not in str(caught.value)

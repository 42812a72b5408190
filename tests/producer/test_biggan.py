"""A trained BigGAN as a producer: images and labels by number, however they are asked for, and the classes' names."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from ood_lab.biggan.networks import Generator
from ood_lab.biggan.sampling import block
from ood_lab.producer.biggan import BigGAN
from tests.cases import each

COUNT, BATCH = 22, 6
NAMES = ("cat", "dog", "bird", "fish")


def weights(folder: Path, names: tuple[str, ...] | None = NAMES) -> Path:
    """As the training of a generator writes them; the network has seen a few batches."""
    torch.manual_seed(0)
    network = Generator(len(NAMES), width=6, noise=5)
    with torch.no_grad():
        for _ in range(20):
            network(torch.randn(32, 5), torch.arange(32) % len(NAMES))
    path = folder / "final.safetensors"
    save_file(network.state_dict(), path, None if names is None else {"classes": json.dumps(names)})
    return path


def producer(path: Path, **changes: Any) -> BigGAN:
    options = {
        "count": COUNT, "shard_items": 10, "seed": 3, "z_std": 2.0, "bn_mode": "batch", "batch": BATCH,
        "weights": None, "key": None, "needs": {"generator": path},
    }  # fmt: skip
    return BigGAN(**{**options, **changes})


@each("bn_mode", ["batch", "running"])
@each("parts", [[0, 6, 12, 18, 22], [0, 10, 20, 22], [0, 1, 5, 6, 7, 13, 22], [0, 17, 18, 22]])
def test_an_image_does_not_depend_on_what_it_is_asked_with(parts: list[int], bn_mode: str, tmp_path: Path) -> None:
    made = producer(weights(tmp_path), bn_mode=bn_mode)
    whole = made.produce(0, COUNT)
    for _ in range(2):
        pieces = [made.produce(a, b) for a, b in reversed(list(pairwise(parts)))][::-1]
        for name, values in whole.items():
            assert np.array_equal(np.concatenate([piece[name] for piece in pieces]), values), name


def test_a_set_of_more_images_begins_with_the_same(tmp_path: Path) -> None:
    path = weights(tmp_path)
    short, long = producer(path).produce(0, COUNT), producer(path, count=40).produce(0, 40)
    for name, values in short.items():
        assert np.array_equal(long[name][:COUNT], values), name


def test_images_have_their_channels_last_and_labels_go_through_the_classes(tmp_path: Path) -> None:
    made = producer(weights(tmp_path))
    items = made.produce(5, 16)
    assert set(items) == {"images", "labels"}
    images, labels = items["images"], items["labels"]
    assert (images.dtype, images.shape) == (np.uint8, (11, 32, 32, 3))
    assert (labels.dtype, labels.tolist()) == (np.int64, [i % 4 for i in range(5, 16)])
    assert images.flags["C_CONTIGUOUS"]
    for i in range(5, 16):
        options: dict[str, Any] = {"seed": 3, "z_std": 2.0, "statistics": "batch"}
        expected = block(made.network, i // BATCH, BATCH, **options)[i % BATCH]
        for channel in range(3):
            assert np.array_equal(images[i - 5, :, :, channel], expected[channel].numpy()), (i, channel)


@each("change", [{"seed": 4}, {"z_std": 1.0}, {"bn_mode": "running"}])
def test_what_was_asked_for_decides_the_images(change: dict[str, Any], tmp_path: Path) -> None:
    path = weights(tmp_path)
    first, other = (producer(path, **options).produce(0, BATCH) for options in ({}, change))
    assert not np.array_equal(first["images"], other["images"])
    assert np.array_equal(first["labels"], other["labels"])


@each(("names", "expected"), [(NAMES, NAMES), (None, ("0", "1", "2", "3"))])
def test_classes_have_the_names_of_the_training_or_numbers(
    names: tuple[str, ...] | None, expected: tuple[str, ...], tmp_path: Path
) -> None:
    assert producer(weights(tmp_path, names)).classes == expected


def test_weights_take_the_place_of_a_generator_that_is_trained(tmp_path: Path) -> None:
    path = weights(tmp_path)
    state = producer(path).network.state_dict()
    torch.manual_seed(1)
    other = Generator(7, width=6, noise=5)
    torch.save({"D": {"a.b": torch.ones(1)}, "G_ema": other.state_dict()}, tmp_path / "G_ema.pth")
    made = producer(path, weights=str(tmp_path / "G_ema.pth"), key="G_ema", needs={})
    assert made.classes == tuple("0123456")
    assert made.produce(0, 9)["labels"].tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 1]
    assert not torch.equal(made.network.state_dict()["linear.weight"], state["linear.weight"])

"""The embedded digits: sizes, disjoint stratified splits, and pixels that are scikit-learn's."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from ood_lab.config.image_sets import image_set_config
from ood_lab.dataset.digits import Digits, enlarge
from ood_lab.task.build import build
from ood_lab.types import Images
from tests.cases import each

SIZES = {"train": 1197, "val": 150, "test": 450}


@pytest.fixture(scope="module")
def splits() -> dict[str, Images]:
    source: Digits = build(image_set_config("digits", "nowhere"))
    return {name: source.load(name) for name in ("train", "val", "test")}


def fingerprints(images: Images) -> Counter[tuple[bytes, int]]:
    return Counter(zip((p.numpy().tobytes() for p in images.pixels), images.labels.tolist(), strict=True))


def test_sizes_and_types(splits: dict[str, Images]) -> None:
    for name, images in splits.items():
        assert images.pixels.shape == (SIZES[name], 3, 32, 32)
        assert images.pixels.dtype == torch.uint8
        assert images.labels.shape == (SIZES[name],)
        assert images.labels.dtype == torch.int64


def test_the_splits_are_disjoint_and_make_up_the_whole_set(splits: dict[str, Images]) -> None:
    data = load_digits()
    whole = fingerprints(Images(enlarge(data.images), torch.as_tensor(data.target)))
    parts = sum((fingerprints(images) for images in splits.values()), Counter())
    assert parts == whole


@each(("split", "count"), [("val", 15), ("test", 45)])
def test_each_class_has_the_same_share_of_what_is_held_out(splits: dict[str, Images], split: str, count: int) -> None:
    assert splits[split].labels.bincount().tolist() == [count] * 10


def test_loading_again_gives_the_same_split_whatever_the_global_seed(splits: dict[str, Images]) -> None:
    torch.manual_seed(123)
    np.random.seed(123)  # noqa: NPY002
    again = build(image_set_config("digits", "nowhere")).load("val")
    assert torch.equal(again.pixels, splits["val"].pixels)
    assert torch.equal(again.labels, splits["val"].labels)


def test_enlarging_is_pils_bicubic_on_the_full_grey_scale() -> None:
    levels = np.random.default_rng(0).integers(0, 17, (3, 8, 8))
    levels[0] = 16
    result = enlarge(levels)
    for image, level in zip(result, levels, strict=True):
        grey = Image.fromarray(np.round(level * 255 / 16).astype(np.uint8)).resize((32, 32), Image.Resampling.BICUBIC)
        assert np.array_equal(image.numpy(), np.stack([np.asarray(grey)] * 3))
    assert (result[0] == 255).all()


def test_the_configured_mean_and_deviation_are_those_of_the_training_images(splits: dict[str, Images]) -> None:
    node = image_set_config("digits", "nowhere")
    pixels = splits["train"].pixels.double() / 255
    assert node["mean"] == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=0.01)
    assert node["std"] == pytest.approx(pixels.std((0, 2, 3)).tolist(), abs=0.01)

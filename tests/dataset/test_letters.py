"""Letters: grey, in the digits' style, a function of their seed alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ood_lab.config.image_sets import image_set_config
from ood_lab.dataset import letters
from ood_lab.dataset.digits import enlarge
from ood_lab.dataset.letters import ALPHABET
from ood_lab.task.build import build
from ood_lab.types import Images


def load(**changes: Any) -> Images:
    return build(image_set_config("letters", "nowhere") | changes).load("test")


def test_sizes_types_and_no_labels() -> None:
    images = load(count=13)
    assert images.pixels.shape == (13, 3, 32, 32)
    assert images.pixels.dtype == torch.uint8
    assert images.labels.tolist() == [-1] * 13


def test_the_configured_set_has_800_images() -> None:
    assert len(load().pixels) == 800


def test_letters_are_grey_and_not_alike() -> None:
    pixels = load(count=50).pixels
    assert torch.equal(pixels[:, 0], pixels[:, 1])
    assert torch.equal(pixels[:, 0], pixels[:, 2])
    assert len(pixels.flatten(1).unique(dim=0)) == 50


def test_the_seed_decides_the_set_and_the_global_seed_does_not() -> None:
    first = load(count=5).pixels
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    assert torch.equal(load(count=5).pixels, first)
    assert not torch.equal(load(count=5, seed=1).pixels, first)


def test_letters_are_drawn_as_8_by_8_images_of_17_levels_that_fill_their_height(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = []
    monkeypatch.setattr(letters, "enlarge", lambda levels: drawn.append(levels) or enlarge(levels))
    pixels = load(count=60).pixels
    (levels,) = drawn
    assert levels.shape == (60, 8, 8)
    assert set(np.unique(levels)) == set(range(17))
    assert (levels[:, 0].max(1) > 0).all()
    assert (levels[:, -1].max(1) > 0).all()
    assert torch.equal(pixels, enlarge(levels))


def test_the_alphabet_has_no_letter_that_reads_as_a_digit() -> None:
    assert len(set(ALPHABET)) == len(ALPHABET) == 40
    assert not set(ALPHABET) & set("0123456789OoIlZzSsbgqB")

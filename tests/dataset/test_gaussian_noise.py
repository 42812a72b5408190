"""Gaussian noise: clipped normal pixels, a function of their seed alone."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from scipy.stats import kstest, norm

from ood_lab.config.image_sets import image_set_config
from ood_lab.task.build import build
from ood_lab.types import Images
from tests.cases import each


def load(**changes: Any) -> Images:
    return build(image_set_config("gaussian_noise", "nowhere") | changes).load("test")


def test_sizes_types_and_no_labels() -> None:
    images = load(count=9)
    assert images.pixels.shape == (9, 3, 32, 32)
    assert images.pixels.dtype == torch.uint8
    assert images.labels.tolist() == [-1] * 9


@each("sigma", [0.05, 0.25, 1.0])
def test_pixels_are_normal_around_a_half_and_clipped(sigma: float) -> None:
    values = load(count=40, sigma=sigma).pixels.double().flatten() / 255
    assert abs(values.median().item() - 0.5) < 0.02 * sigma + 1 / 255
    for end in (0.0, 1.0):
        # Rounding to 256 levels sends half a level more to either end.
        assert abs((values == end).double().mean().item() - norm.cdf((0.5 / 255 - 0.5) / sigma)) < 0.01
    inside = values[(values > 0.1) & (values < 0.9)]
    inside = inside + (torch.rand(len(inside), generator=torch.Generator().manual_seed(0)) - 0.5) / 255
    low, high = inside.min().item(), inside.max().item()
    mass = norm.cdf(high, 0.5, sigma) - norm.cdf(low, 0.5, sigma)
    statistic = kstest(inside.numpy(), lambda x: (norm.cdf(x, 0.5, sigma) - norm.cdf(low, 0.5, sigma)) / mass).statistic
    assert statistic < 0.02


def test_the_seed_decides_the_set_and_the_global_seed_does_not() -> None:
    first = load(count=5).pixels
    torch.manual_seed(99)
    assert torch.equal(load(count=5).pixels, first)
    assert not torch.equal(load(count=5, seed=1).pixels, first)
    assert not torch.equal(first[0, 0], first[0, 1])


def test_the_default_set_is_the_one_that_earlier_results_are_of() -> None:
    digest = hashlib.sha256(load().pixels.numpy().tobytes()).hexdigest()
    assert digest.startswith("4dc61b340dbbe2d0")

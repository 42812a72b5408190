"""Uniform noise: even between its bounds, a function of its seed alone; the sizes of AOE."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy.stats import kstest

from ood_lab.config.image_sets import image_set_config
from ood_lab.task.build import build
from ood_lab.types import Images
from tests.cases import each


def load(name: str = "uniform_noise", **changes: Any) -> Images:
    return build(image_set_config(name, "nowhere") | changes).load("ood")


@each(("low", "high"), [(0.0, 1.0), (0.2, 0.6)])
def test_pixels_are_even_between_the_bounds(low: float, high: float) -> None:
    pixels = load(count=30, low=low, high=high).pixels
    assert pixels.shape == (30, 3, 32, 32)
    assert pixels.min() == round(low * 255)
    assert pixels.max() == round(high * 255)
    draw = torch.Generator().manual_seed(0)
    values = pixels.double().flatten() + torch.rand(pixels.numel(), generator=draw).double() - 0.5  # undo the rounding
    assert kstest(values.numpy(), "uniform", args=(low * 255, (high - low) * 255)).statistic < 0.01


def test_the_seed_decides_the_set() -> None:
    first = load(count=3).pixels
    torch.manual_seed(99)
    assert torch.equal(load(count=3).pixels, first)
    assert not torch.equal(load(count=3, seed=1).pixels, first)


@each("name", ["uniform_noise", "gaussian_noise"])
def test_noise_drawn_large_keeps_its_spread_only_without_antialiasing(name: str) -> None:
    spread = {flag: load(name, count=8, noise_side=224, antialias=flag).pixels.double().std() for flag in (True, False)}
    plain = load(name, count=8).pixels.double().std()
    assert spread[True] < 0.25 * plain
    # 224 is seven times 32: each new pixel's centre is the centre of an old one.
    assert float(spread[False]) == pytest.approx(float(plain), rel=0.02)


def test_aoes_sets_have_a_thousand_images_and_its_constants() -> None:
    assert load("uniform_noise_aoe").pixels.shape == (1000, 3, 32, 32)
    gaussian = load("gaussian_noise_aoe").pixels
    assert gaussian.shape == (1000, 3, 32, 32)
    # N(128, 128) clipped to 0..255: 15.9 % at either end.
    assert (gaussian == 0).double().mean().item() == pytest.approx(0.159, abs=0.002)
    assert (gaussian == 255).double().mean().item() == pytest.approx(0.161, abs=0.002)

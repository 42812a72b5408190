"""White noise on images: its distribution, its scale, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from ood_lab.network import Network
from ood_lab.perturbation.base import Beside
from ood_lab.perturbation.gaussian_noise import GaussianNoise
from tests.cases import each


def unused(*_: Any) -> Any:
    raise AssertionError("noise asks no network")


NETWORK = Network(torch.nn.Identity(), unused)
SHAPE = (40, 3, 16, 16)


def images(seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)).to(dtype)


def beside(rank: int = 0, world: int = 1) -> Beside:
    """Fewer ID images than outliers."""
    return Beside(images(seed=5)[:3], torch.tensor([2, 0, 1]), 4, 5, NETWORK, rank, world)


def changed(sigma: float, given: Tensor, seed: int = 1, rank: int = 0, world: int = 1, **options: Any) -> Tensor:
    made = GaussianNoise(sigma=sigma, **options)(given, beside(rank, world), torch.Generator().manual_seed(seed))
    assert made.targets is None
    return made.images


@each("sigma", [0.1, 2.0])
def test_what_is_added_is_normal_with_the_given_deviation(sigma: float) -> None:
    noise = (changed(sigma, images()) - images()).double()
    assert kstest((noise / sigma).flatten().numpy(), "norm").pvalue > 1e-3
    assert float(noise.std()) == pytest.approx(sigma, rel=0.02)


@each("variance", [0.0, 0.04, 2.25])
@each("shared", [False, True])
def test_a_variance_is_the_square_of_the_deviation_and_counts_in_its_place(shared: bool, variance: float) -> None:
    found = changed(0.7, images(), variance=variance, shared=shared)
    torch.testing.assert_close(found, changed(variance**0.5, images(), shared=shared), atol=0, rtol=0)
    added = (found - images()).double()
    assert float((added**2).mean()) == pytest.approx(variance, rel=0.2 if shared else 0.03, abs=1e-12)


def test_no_variance_leaves_the_deviation() -> None:
    assert torch.equal(changed(0.7, images(), variance=None), changed(0.7, images()))


def test_every_value_has_its_own_noise() -> None:
    noise = (changed(1.0, images().double()) - images().double()).numpy()
    pairs = {
        "images": (noise[:-1], noise[1:]),
        "channels": (noise[:, :-1], noise[:, 1:]),
        "rows": (noise[:, :, :-1], noise[:, :, 1:]),
        "columns": (noise[..., :-1], noise[..., 1:]),
        "noise and image": (noise, images().double().numpy()),
    }
    for name, (a, b) in pairs.items():
        correlation = (a * b).mean() / (a.std() * b.std())
        assert abs(correlation) < 5 / a.size**0.5, name


def test_noise_does_not_depend_on_the_images_and_is_a_function_of_the_generator() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    noise = changed(0.5, images()) - images()
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(changed(0.5, images(seed=9)) - images(seed=9), noise, atol=1e-6, rtol=0)
    torch.manual_seed(4)
    assert torch.equal(changed(0.5, images()) - images(), noise)
    assert (changed(0.5, images(), seed=2) - images() - noise).abs().max() > 0.1


@each("world", [2, 4])
def test_devices_that_hold_every_so_many_images_make_together_what_one_makes(world: int) -> None:
    whole = changed(0.5, images())
    for rank in range(world):
        assert torch.equal(changed(0.5, images()[rank::world], rank=rank, world=world), whole[rank::world])


def test_shared_noise_is_one_picture_for_all_images_and_another_in_the_next_step() -> None:
    perturbation, draw = GaussianNoise(sigma=0.5, shared=True), torch.Generator().manual_seed(1)
    given = images().double()
    first, second = (perturbation(given, beside(), draw).images - given for _ in range(2))
    for picture in (first, second):
        torch.testing.assert_close(picture, picture[:1].expand(SHAPE), atol=1e-12, rtol=0)
        assert kstest((picture[0] / 0.5).flatten().numpy(), "norm").pvalue > 1e-3
        assert len(picture[0].unique()) == picture[0].numel()
    a, b = first[0].flatten(), second[0].flatten()
    assert abs((a * b).mean() / (a.std() * b.std())) < 5 / a.numel() ** 0.5


@each(("world", "rows"), [(2, 40), (4, 40), (3, 40), (2, 1)])
def test_shared_noise_is_the_same_on_all_devices_and_for_any_number_of_images(world: int, rows: int) -> None:
    whole = changed(0.5, images(), shared=True)
    assert torch.equal(changed(0.5, images()[:rows], shared=True), whole[:rows])
    for rank in range(world):
        found = changed(0.5, images()[:rows][rank::world], rank=rank, world=world, shared=True)
        assert torch.equal(found, whole[:rows][rank::world])


def test_without_deviation_images_come_back_as_they_were() -> None:
    assert torch.equal(changed(0.0, images()), images())


@each("dtype", [torch.float32, torch.float64, torch.float16])
def test_the_given_images_stay_and_shape_and_precision_are_kept(dtype: torch.dtype) -> None:
    for shared in (False, True):
        given = images(dtype=dtype)
        found = changed(0.3, given, shared=shared)
        assert torch.equal(given, images(dtype=dtype))
        assert (found.shape, found.dtype) == (given.shape, dtype)
        assert not found.requires_grad


def test_terms_may_read_no_soft_labels() -> None:
    assert GaussianNoise.gives == ()

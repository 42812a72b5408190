"""Convolution with a second derivative of its own, beside torch's and by finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import ood_lab.autograd.convolution as convolution
from ood_lab.autograd.convolution import Geometry, convolved
from tests.cases import each

# Stride, padding, dilation, groups; input channels, output channels, kernel.
CASES = [
    (Geometry((1, 1), (1, 1), (1, 1), 1), 2, 3, (3, 3)),
    (Geometry((2, 2), (0, 0), (1, 1), 1), 3, 2, (1, 1)),  # leaves out every other pixel
    (Geometry((2, 1), (2, 0), (1, 2), 2), 4, 2, (3, 2)),
    (Geometry((2,), (1,), (1,), 1), 2, 3, (3,)),
]


def inputs(case: tuple[Geometry, int, int, Sequence[int]], biased: bool = True) -> list[Tensor]:
    geometry, into, out, kernel = case
    draw = torch.Generator().manual_seed(0)
    size = [6, 5][: len(kernel)]
    shapes = [(2, into, *size), (out, into // geometry.groups, *kernel), (out,)]
    made = [torch.randn(shape, generator=draw, dtype=torch.float64).requires_grad_() for shape in shapes]
    return made if biased else made[:2]


def ours(geometry: Geometry) -> Callable[..., Tensor]:
    return lambda x, w, b=None: convolved(x, w, b, geometry)


def torchs(geometry: Geometry) -> Callable[..., Tensor]:
    of = F.conv2d if len(geometry.stride) == 2 else F.conv1d
    return lambda x, w, b=None: of(x, w, b, *geometry)  # type: ignore[operator]


@each("case", CASES)
def test_both_derivatives_agree_with_finite_differences(case: tuple[Geometry, int, int, Sequence[int]]) -> None:
    given = inputs(case)
    assert torch.autograd.gradcheck(ours(case[0]), given)
    assert torch.autograd.gradgradcheck(ours(case[0]), given)


@each("biased", [True, False])
@each("case", CASES)
def test_all_of_it_agrees_with_torch(case: tuple[Geometry, int, int, Sequence[int]], biased: bool) -> None:
    found = []
    for convolve in (ours(case[0]), torchs(case[0])):
        given = inputs(case, biased)
        y = convolve(*given)
        first = torch.autograd.grad(y.pow(3).sum(), given, create_graph=True)
        second = torch.autograd.grad(sum(slope.square().sum() for slope in first), given)
        found.append((y, *first, *second))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


def test_the_gradient_on_the_images_is_taken_without_that_on_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    plain = Geometry._backward

    def counted(self: Geometry, d: Tensor, x: Tensor, weight: Tensor, which: int) -> Tensor:
        asked.append(which)
        return plain(self, d, x, weight, which)

    monkeypatch.setattr(convolution.Geometry, "_backward", counted)
    x, weight, bias = inputs(CASES[0])
    y = convolved(convolved(x, weight, bias, CASES[0][0])[:, :2], weight, bias, CASES[0][0])
    (slope,) = torch.autograd.grad(y.pow(2).sum(), x, create_graph=True)
    assert asked == [0, 0]
    slope.square().sum().backward()
    assert asked.count(1) == 2 + 2, "each use of the weights, in y and in the slope"


@each("frozen", [0, 1, 2])
def test_what_needs_no_gradient_gets_none(frozen: int) -> None:
    given = inputs(CASES[0])
    given[frozen].requires_grad_(False)
    convolved(*given, CASES[0][0]).square().sum().backward()
    assert [one.grad is None for one in given] == [number == frozen for number in range(3)]

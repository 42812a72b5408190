"""Batch normalisation with a second derivative of its own, beside torch's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.autograd.batch_norm import normalised
from tests.cases import each

SHAPES = [(5, 3), (4, 3, 2, 3), (1, 2, 3, 3)]


def inputs(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    sizes = (shape, (shape[1],), (shape[1],))
    return tuple(torch.randn(s, generator=draw, dtype=torch.float64).requires_grad_() for s in sizes)  # type: ignore[return-value]


def ours(eps: float) -> Callable[..., Tensor]:
    return lambda x, w, b: normalised(x, w, b, None, None, 0.1, eps)


@each("eps", [1e-5, 0.3])
@each("shape", SHAPES)
def test_both_derivatives_agree_with_finite_differences(shape: tuple[int, ...], eps: float) -> None:
    given = inputs(shape)
    assert torch.autograd.gradcheck(ours(eps), given)
    assert torch.autograd.gradgradcheck(ours(eps), given)


@each("shape", SHAPES)
def test_all_of_it_agrees_with_torch(shape: tuple[int, ...]) -> None:
    found = []
    for norm in (ours(1e-3), lambda x, w, b: F.batch_norm(x, None, None, w, b, True, 0.1, 1e-3)):
        given = inputs(shape)
        y = norm(*given)
        first = torch.autograd.grad(y.pow(3).sum(), given, create_graph=True)
        second = torch.autograd.grad(first[0].square().sum() + first[1].sin().sum() + first[2].cos().sum(), given)
        found.append((y, *first, *second))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)

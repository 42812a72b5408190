"""Batch normalisation with a second derivative of its own, beside torch's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ood_lab.backbone.resnet import ResNet
from ood_lab.batch_norm import normalised, twice_differentiable

SHAPES = [(5, 3), (4, 3, 2, 3), (1, 2, 3, 3)]


def inputs(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    sizes = (shape, (shape[1],), (shape[1],))
    return tuple(torch.randn(s, generator=draw, dtype=torch.float64).requires_grad_() for s in sizes)  # type: ignore[return-value]


def ours(eps: float) -> Callable[..., Tensor]:
    return lambda x, w, b: normalised(x, w, b, None, None, 0.1, eps)


@pytest.mark.parametrize("eps", [1e-5, 0.3])
@pytest.mark.parametrize("shape", SHAPES)
def test_both_derivatives_agree_with_finite_differences(shape: tuple[int, ...], eps: float) -> None:
    given = inputs(shape)
    assert torch.autograd.gradcheck(ours(eps), given)
    assert torch.autograd.gradgradcheck(ours(eps), given)


@pytest.mark.parametrize("shape", SHAPES)
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


def network() -> ResNet:
    torch.manual_seed(0)
    return ResNet(4, block="basic", depths=[1, 1, 1, 1], width=4, stem="cifar", norm="batch").double()


def stepped(patched: bool) -> dict[str, Tensor]:
    """Parameters' gradients of a penalty on the gradient of the inputs, and what the pass has left behind."""
    net = network()
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    if patched:
        with twice_differentiable(net):
            energy = -net(images).logits.logsumexp(1)
    else:
        energy = -net(images).logits.logsumexp(1)
    (slopes,) = torch.autograd.grad(energy.sum(), images, create_graph=True)
    (energy.sum() + slopes.flatten(1).norm(dim=1).sum()).backward()
    gradients = {name: parameter.grad for name, parameter in net.named_parameters() if parameter.grad is not None}
    return {**gradients, **dict(net.named_buffers()), "energy": energy.detach()}


def test_a_network_has_the_same_values_statistics_and_gradients() -> None:
    mine, theirs = stepped(patched=True), stepped(patched=False)
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-8, atol=1e-10, msg=name)


def test_it_is_over_with_the_context_also_after_an_error() -> None:
    net = network()

    class FailedError(Exception):
        pass

    def fail() -> None:
        with twice_differentiable(net):
            assert any("forward" in module.__dict__ for module in net.modules())
            raise FailedError

    with pytest.raises(FailedError):
        fail()
    assert not any("forward" in module.__dict__ for module in net.modules())


def test_what_evaluates_is_left_alone() -> None:
    net = network().eval()
    with twice_differentiable(net):
        assert not any("forward" in module.__dict__ for module in net.modules())


def test_a_normalisation_without_weights_is_torchs_own() -> None:
    norm, x = nn.BatchNorm2d(3, affine=False), torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    plain = norm(x)
    norm.reset_running_stats()
    with twice_differentiable(norm):
        assert torch.equal(norm(x), plain)


def test_bfloat16_rows_keep_statistics_in_float32_and_a_second_derivative() -> None:
    norm = nn.BatchNorm2d(3)
    x = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    with twice_differentiable(norm):
        y = norm(x)
    (slope,) = torch.autograd.grad(y.float().pow(3).sum(), x, create_graph=True)
    slope.float().square().sum().backward()
    assert norm.running_mean is not None
    assert (y.dtype, norm.running_mean.dtype) == (torch.bfloat16, torch.float32)
    assert x.grad is not None
    assert x.grad.isfinite().all()

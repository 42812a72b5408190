"""Within the context a network has the values, statistics and gradients that it has outside."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ood_lab.autograd.twice_differentiable import twice_differentiable
from ood_lab.backbone.resnet import ResNet
from ood_lab.backbone.timm import Timm
from ood_lab.network import Network
from tests.cases import each


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


def test_normalisations_that_evaluate_are_left_alone() -> None:
    net = network().eval()
    with twice_differentiable(net):
        changed = {type(module) for module in net.modules() if "forward" in module.__dict__}
    assert changed == {nn.Conv2d}


@each("options", [{"padding": "same"}, {"padding": 1, "padding_mode": "reflect"}])
def test_convolutions_with_other_paddings_are_torchs_own(options: dict[str, Any]) -> None:
    with twice_differentiable(layer := nn.Conv2d(2, 3, 3, **options)):
        assert "forward" not in layer.__dict__


def test_under_autocast_values_and_gradients_are_those_of_torch() -> None:
    found = []
    for change in (twice_differentiable, lambda _: nullcontext()):
        torch.manual_seed(0)
        layer, x = nn.Conv2d(2, 3, 3), torch.randn(4, 2, 5, 5).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16), change(layer):
            y = layer(x)
        y.float().square().sum().backward()
        found.append((y, x.grad, *(parameter.grad for parameter in layer.parameters())))
    for mine, theirs in zip(*found, strict=True):
        assert mine.dtype == theirs.dtype
        torch.testing.assert_close(mine, theirs, rtol=0.02, atol=0.02)


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


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet", "test_resnet"])
def test_networks_of_timm_keep_their_outputs_and_are_differentiated_twice(name: str) -> None:
    """Attention, and batch normalisations with an activation behind them."""
    torch.manual_seed(0)
    network = Timm(3, name=name, side=32).double().train()
    for module in network.modules():
        module.p = 0.0 if isinstance(module, nn.Dropout) else getattr(module, "p", 0.0)
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)

    def penalty(images: torch.Tensor) -> torch.Tensor:
        logits = network(images).logits
        (slope,) = torch.autograd.grad(logits.logsumexp(1).sum(), images, create_graph=True)
        return slope.square().sum()

    usual = network(x).logits.detach()
    with twice_differentiable(network):
        torch.testing.assert_close(network(x).logits.detach(), usual)
        x.requires_grad_()
        value = penalty(x)
        (found,) = torch.autograd.grad(value, network.fc.weight)
        step = torch.randn_like(network.fc.weight)
        with torch.no_grad():
            network.fc.weight += 1e-6 * step
        above = penalty(x)
        with torch.no_grad():
            network.fc.weight -= 2e-6 * step
        below = penalty(x)
    assert float((above - below) / 2e-6) == pytest.approx(float((found * step).sum()), rel=1e-4)


def test_held_statistics_keep_the_activation_of_timms_normalisations() -> None:
    torch.manual_seed(0)
    backbone = Timm(3, name="test_efficientnet", side=32).train()
    network = Network(backbone, backbone)
    x = torch.randn(6, 3, 32, 32)
    torch.testing.assert_close(network(x, "held").logits, network(x, "train").logits, rtol=1e-3, atol=1e-4)

"""Wide residual networks: published parameter counts, and a naive functional forward in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.backbone.wide_resnet import WideResNet
from ood_lab.config.compose import compose
from ood_lab.task.build import build
from tests.cases import each


def small(dropout: float = 0.0, depth: int = 16) -> WideResNet:
    torch.manual_seed(0)
    return WideResNet(5, depth=depth, widen=2, dropout=dropout, norm="batch").double()


@each(("name", "count", "dim"), [("wrn40_2", 2_243_546, 128), ("wrn40_4", 8_949_210, 256)])
def test_parameters_and_features_are_as_published(name: str, count: int, dim: int) -> None:
    network = build(compose([f"backbone={name}"]).plain("backbone"), 10)
    assert sum(p.numel() for p in network.parameters()) == count
    assert network.feature_dim == network.fc.in_features == dim


def naive(state: dict[str, Tensor], x: Tensor, blocks: int) -> Tensor:
    """The network as the paper draws it, with its tensors taken one by one."""

    def norm(x: Tensor, name: str) -> Tensor:
        stats = (state[f"{name}.running_mean"], state[f"{name}.running_var"])
        return F.batch_norm(x, *stats, state[f"{name}.weight"], state[f"{name}.bias"], training=False)

    x = F.conv2d(x, state["stem.weight"], padding=1)
    for number in range(3 * blocks):
        name = f"blocks.{number}"
        stride = 2 if number in (blocks, 2 * blocks) else 1
        active = norm(x, f"{name}.norm1").relu()
        out = F.conv2d(active, state[f"{name}.conv1.weight"], stride=stride, padding=1)
        out = F.conv2d(norm(out, f"{name}.norm2").relu(), state[f"{name}.conv2.weight"], padding=1)
        key = f"{name}.shortcut.weight"
        x = out + (F.conv2d(active, state[key], stride=stride) if key in state else x)
    return norm(x, "norm").relu().mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]


def test_the_forward_is_the_papers() -> None:
    network = small()
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()
    network.train()
    network(images)  # so that running statistics are not 0 and 1
    network.eval()
    output = network(images)
    torch.testing.assert_close(output.logits, naive(network.state_dict(), images, 2))
    assert output.features.shape == (3, 128)
    assert (output.features >= 0).all()


def test_only_where_the_width_changes_is_there_a_shortcut_convolution() -> None:
    with_shortcut = [name for name in small().state_dict() if "shortcut" in name]
    assert with_shortcut == [f"blocks.{i}.shortcut.weight" for i in (0, 2, 4)]


def test_dropout_acts_in_training_alone() -> None:
    network, images = small(dropout=0.5), torch.randn(2, 3, 32, 32).double()
    network.eval()
    torch.testing.assert_close(network(images).logits, network(images).logits)
    network.train()
    assert not torch.equal(network(images).logits, network(images).logits)


@each(("depth", "near"), [(41, 40), (9, 10), (17, 16), (5, 10)])
def test_a_depth_of_another_form_is_refused_with_the_nearest(depth: int, near: int) -> None:
    with pytest.raises(ValueError, match=f"backbone.depth={depth}.*for example {near}"):
        small(depth=depth)

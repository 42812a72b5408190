"""Residual networks: the published parameter counts, shapes, and what the head says."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models

from ood_lab.backbone.base import normalisation
from ood_lab.backbone.resnet import ResNet
from ood_lab.config.compose import compose
from ood_lab.task.build import build
from ood_lab.training.weights import by_order
from tests.cases import each


def configured(name: str, classes: int = 10) -> ResNet:
    return build(compose([f"backbone={name}"]).plain("backbone"), classes)


def tiny(block: str = "basic") -> ResNet:
    torch.manual_seed(0)
    return ResNet(7, block=block, depths=[1, 1, 1, 1], width=4, stem="cifar", norm="batch").eval()  # type: ignore[arg-type]


@each(("name", "count"), [("resnet18", 11_173_962), ("resnet34", 21_282_122), ("resnet50", 23_520_842)])
def test_a_cifar_resnet_has_the_published_number_of_parameters(name: str, count: int) -> None:
    assert sum(p.numel() for p in configured(name).parameters()) == count


def test_the_narrow_network_has_a_third_of_a_million_parameters() -> None:
    assert 250_000 < sum(p.numel() for p in configured("narrow").parameters()) < 350_000


@each(("name", "dim"), [("narrow", 128), ("resnet18", 512), ("resnet34", 512), ("resnet50", 2048)])
def test_the_width_of_the_features(name: str, dim: int) -> None:
    network = configured(name, 3)
    assert network.feature_dim == network.fc.in_features == dim
    assert network.fc.out_features == 3


@each("block", ["basic", "bottleneck"])
def test_features_and_logits_have_their_shapes_and_agree(block: str) -> None:
    network, images = tiny(block), torch.randn(5, 3, 32, 32)
    output = network(images)
    assert output.features.shape == (5, network.feature_dim)
    assert output.logits.shape == (5, 7)
    torch.testing.assert_close(output.features, network.features(images))
    torch.testing.assert_close(output.logits, network.fc(output.features))


def test_features_are_the_mean_over_a_rectified_map() -> None:
    assert (tiny()(torch.randn(4, 3, 32, 32)).features >= 0).all()


def test_each_stage_but_the_first_halves_the_side() -> None:
    network = tiny()
    sides, images = [], network.stem(torch.randn(1, 3, 32, 32))
    for block in network.stages:
        images = block(images)
        sides.append((images.shape[1], images.shape[-1]))
    assert sides == [(4, 32), (8, 16), (16, 8), (32, 4)]


def test_depths_count_blocks() -> None:
    assert len(configured("resnet34").stages) == 3 + 4 + 6 + 3


def test_a_block_with_a_dead_branch_is_its_rectified_shortcut() -> None:
    block = tiny().stages[0]
    for parameter in block.branch.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(block(x), x.relu())


def test_the_head_is_the_classifier_detached() -> None:
    network = tiny()
    head = network.head
    assert not head.weight.requires_grad
    assert not head.bias.requires_grad
    output = network(torch.randn(3, 3, 32, 32))
    torch.testing.assert_close(output.features @ head.weight.T + head.bias, output.logits)


def test_every_parameter_takes_part() -> None:
    network = tiny("bottleneck").train()
    network(torch.randn(4, 3, 32, 32)).logits.square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_rows_do_not_influence_each_other_in_eval_mode() -> None:
    network, images = tiny(), torch.randn(4, 3, 32, 32)
    alone = torch.cat([network(images[i : i + 1]).logits for i in range(4)])
    torch.testing.assert_close(network(images).logits, alone, atol=1e-5, rtol=1e-4)


def test_channels_last_input_changes_nothing() -> None:
    network, images = tiny(), torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(network(images).logits, network(images.to(memory_format=torch.channels_last)).logits)


def test_weights_are_a_function_of_the_seed() -> None:
    a, b = tiny().state_dict(), tiny().state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)


@each("name", ["resnet18", "resnet34", "resnet50"])
def test_with_imagenets_stem_it_is_torchvisions_network(name: str) -> None:
    network = configured(f"{name}_imagenet", 1000).double().eval()
    theirs = getattr(models, name)().double().eval()
    assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in theirs.parameters())
    network.load_state_dict(by_order(theirs.state_dict(), network.state_dict()))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(network(images).logits, theirs(images))


@each("depths", [[2, 2, 2], [1, 1, 1, 1, 1]])
def test_another_number_of_stages_is_refused(depths: list[int]) -> None:
    with pytest.raises(ValueError, match="each of 4 stages"):
        ResNet(10, block="basic", depths=depths, width=8, stem="cifar", norm="batch")


def test_with_group_norm_an_image_has_the_same_features_alone_and_among_others() -> None:
    torch.manual_seed(0)
    network = ResNet(3, block="basic", depths=[1, 1, 1, 1], width=8, stem="cifar", norm="group").train()
    images = torch.randn(5, 3, 32, 32)
    alone = torch.cat([network(image[None]).logits for image in images])
    torch.testing.assert_close(network(images).logits, alone, atol=1e-5, rtol=1e-4)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())


@each(("channels", "groups"), [(64, 32), (48, 16), (12, 4), (7, 1)])
def test_groups_divide_the_channels(channels: int, groups: int) -> None:
    norm = normalisation("group", channels)
    assert isinstance(norm, nn.GroupNorm)
    assert norm.num_groups == groups

"""Densely connected networks: torchvision's outputs, published counts, and a naive forward of the CIFAR form."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision import models

from ood_lab.backbone.densenet import DenseNet
from ood_lab.config.compose import compose
from ood_lab.task.build import build
from ood_lab.training.weights import by_order
from tests.cases import each


def configured(name: str, classes: int) -> DenseNet:
    return build(compose([f"backbone={name}"]).plain("backbone"), classes)


@each(("name", "classes", "count", "dim"), [("densenet100", 10, 769_162, 342), ("densenet121", 1000, 7_978_856, 1024)])
def test_parameters_and_features_are_as_published(name: str, classes: int, count: int, dim: int) -> None:
    network = configured(name, classes)
    assert sum(p.numel() for p in network.parameters()) == count
    assert network.feature_dim == network.fc.in_features == dim


def test_densenet121_is_torchvisions_network() -> None:
    network, theirs = configured("densenet121", 20).double().eval(), models.densenet121(num_classes=20).double().eval()
    network.load_state_dict(by_order(theirs.state_dict(), network.state_dict()))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(network(images).logits, theirs(images))


def naive(state: dict[str, Tensor], x: Tensor, blocks: list[int]) -> Tensor:
    """The CIFAR form with its tensors taken one by one."""

    def norm(x: Tensor, name: str) -> Tensor:
        stats = (state[f"{name}.running_mean"], state[f"{name}.running_var"])
        return F.batch_norm(x, *stats, state[f"{name}.weight"], state[f"{name}.bias"], training=False).relu()

    x, part = F.conv2d(x, state["stem.0.weight"], padding=1), 0
    for number, layers in enumerate(blocks):
        for _ in range(layers):
            out = F.conv2d(norm(x, f"body.{part}.norm1"), state[f"body.{part}.conv1.weight"])
            out = F.conv2d(norm(out, f"body.{part}.norm2"), state[f"body.{part}.conv2.weight"], padding=1)
            x, part = torch.cat([x, out], 1), part + 1
        if number + 1 < len(blocks):
            x = F.avg_pool2d(F.conv2d(norm(x, f"body.{part}.norm"), state[f"body.{part}.conv.weight"]), 2)
            part += 1
    return norm(x, "norm").mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]


def test_the_forward_of_the_cifar_form_is_the_papers() -> None:
    torch.manual_seed(0)
    sizes = {"blocks": [2, 1, 2], "growth": 4, "initial": 8, "compression": 0.5}
    network = DenseNet(3, stem="cifar", dropout=0.0, norm="batch", **sizes).double()  # type: ignore[arg-type]
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)).double()
    network.train()
    network(images)  # so that running statistics are not 0 and 1
    network.eval()
    torch.testing.assert_close(network(images).logits, naive(network.state_dict(), images, [2, 1, 2]))
    # 8 + 2 * 4 = 16, halved; 8 + 4 = 12, halved; 6 + 2 * 4
    assert network.feature_dim == 14


def test_dropout_acts_in_training_alone() -> None:
    torch.manual_seed(0)
    sizes = {"blocks": [1, 1], "growth": 4, "initial": 8, "compression": 0.5}
    network = DenseNet(3, stem="cifar", dropout=0.5, norm="group", **sizes)  # type: ignore[arg-type]
    images = torch.randn(2, 3, 16, 16)
    assert not torch.equal(network(images).logits, network(images).logits)
    network.eval()
    assert torch.equal(network(images).logits, network(images).logits)


def test_the_memory_layout_changes_no_gradient() -> None:
    torch.manual_seed(0)
    sizes = {"blocks": [2, 2], "growth": 12, "initial": 24, "compression": 0.5}
    network = DenseNet(3, stem="cifar", dropout=0.0, norm="batch", **sizes)  # type: ignore[arg-type]
    images = torch.randn(8, 3, 16, 16)
    gradients = []
    for channels_last in (True, False):
        network.arrange(channels_last)
        network.zero_grad()
        network(images).logits.square().sum().backward()
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, atol=1e-3, rtol=1e-3)

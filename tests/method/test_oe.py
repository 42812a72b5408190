"""Outlier Exposure: its loss beside a naive loop, its minimum, and the path of its gradient."""

from __future__ import annotations

import math

import pytest
import torch

from ood_lab.backbone.resnet import ResNet
from ood_lab.loss.outlier_exposure import outlier_exposure
from ood_lab.method.oe import OE
from ood_lab.optimizer import SGD
from ood_lab.types import BackboneOutput, Batch


def oe(weight: float = 0.5) -> OE:
    torch.manual_seed(0)
    backbone = ResNet(3, block="basic", depths=[1, 1, 1, 1], width=8, stem="cifar", norm="group")
    optimizer = SGD(lr=0.1, momentum=0.0, weight_decay=0.0, warmup=0.0)
    return OE(backbone, 3, 7, stage="finetune", w_oe=weight, optimizer=optimizer)


def batch() -> Batch:
    draw = torch.Generator().manual_seed(0)
    images, auxiliary = torch.randn(4, 3, 8, 8, generator=draw), torch.randn(6, 3, 8, 8, generator=draw)
    return Batch(images, torch.tensor([0, 1, 2, 0]), auxiliary)


def test_the_loss_is_the_cross_entropy_to_the_uniform_distribution_up_to_log_c() -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(1)).double()
    total = 0.0
    for row in logits.tolist():
        norm = math.log(sum(math.exp(x) for x in row))
        total -= sum((x - norm) / 4 for x in row) / 5
    assert outlier_exposure(logits).item() == pytest.approx(total, abs=1e-12)


def test_it_is_least_where_all_classes_are_alike_and_blind_to_a_shift() -> None:
    assert outlier_exposure(torch.full((3, 10), 7.0)).item() == pytest.approx(math.log(10), abs=1e-5)
    logits = torch.randn(3, 10, generator=torch.Generator().manual_seed(2))
    assert outlier_exposure(logits) > math.log(10)
    torch.testing.assert_close(outlier_exposure(logits + 5), outlier_exposure(logits))


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_the_total_is_ce_on_the_id_rows_and_the_weighted_term_on_the_others(weight: float) -> None:
    method, given = oe(weight), batch()
    logits = torch.randn(10, 3, generator=torch.Generator().manual_seed(3))
    losses = method.loss(given, BackboneOutput(torch.empty(0), logits))
    ce = torch.nn.functional.cross_entropy(logits[:4], given.labels)
    torch.testing.assert_close(losses["total"], ce + weight * outlier_exposure(logits[4:]))
    assert set(losses) == {"ce", "oe", "total"}


def test_auxiliary_images_change_the_gradient_of_the_backbone() -> None:
    gradients = []
    for auxiliary in (batch().auxiliary, torch.zeros(6, 3, 8, 8)):
        method = oe()
        method.training_step(batch()._replace(auxiliary=auxiliary), 0)["loss"].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in method.backbone.parameters() if p.grad is not None]))
    assert not torch.allclose(gradients[0], gradients[1])


def test_the_accuracy_is_of_the_id_rows() -> None:
    method = oe()
    method.training_step(batch(), 0)
    predicted = method.backbone(batch().images).logits.argmax(1)
    expected = (predicted == batch().labels).double().mean().item()
    assert method.epoch_summary()["train_accuracy"] == pytest.approx(expected)

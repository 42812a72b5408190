"""Turned images: who sees them, in which order, and what is trained on them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ood_lab.config import RequestError, prepare
from ood_lab.head.shifts import Shifts
from ood_lab.id_loss.ce import CE
from ood_lab.id_loss.csi import CSI
from ood_lab.id_loss.csi_joint import CSIJoint
from ood_lab.method.base import Method
from ood_lab.moment import Progress
from ood_lab.optimizer import SGD
from ood_lab.parts import SHIFTS, Dimensions, Parts, Term, turned
from ood_lab.types import Batch
from tests.small import C, D, backbone, batch


def module(*names: str, trainable: Any = "whole", **csi: Any) -> Method:
    net = backbone("group")
    dims = Dimensions(C, net.feature_dim, D)
    made: dict[str, Term] = {
        "ce": CE(dims),
        "csi": CSI(dims, temperature=0.5, **csi),
        "csi_joint": CSIJoint(dims),
    }
    for name, term in made.items():
        term.group, term.name = "id_loss", name
    torch.manual_seed(1)
    parts = Parts(
        backbone=net,
        head=Shifts(net.feature_dim, True, C, projection_dim=D),
        terms={name: made[name] for name in names},
        classes=C,
        seed=7,
        dims=dims,
    )
    optimizer = SGD(lr=0.1, momentum=0.0, weight_decay=0.1, warmup=0.0)
    return Method(parts, stage="finetune", trainable=trainable, optimizer=optimizer)


def seen_by(made: Method, data: Batch, step: int = 0) -> tuple[list[Tensor], dict[str, Tensor]]:
    """The images that the backbone is given in a step, and the losses."""
    given: list[Tensor] = []
    hook = made.backbone.register_forward_pre_hook(lambda _, args: given.append(args[0].detach().clone()))
    progress = Progress(step, 100, 10)
    running = made.running(progress)
    output = made._forward_pass(data.images, data.auxiliary, running)
    losses, store = made.losses(data, output, progress, data.auxiliary)
    store()
    hook.remove()
    return given, losses


def test_the_network_sees_each_image_under_every_shift_the_plain_ones_first() -> None:
    data = batch()
    (given,), _ = seen_by(module("ce", "csi_joint"), data)
    assert torch.equal(given, torch.cat([turned(data.images, shift) for shift in range(SHIFTS)]))
    assert torch.equal(turned(data.images, 1)[0, 0, 0], data.images[0, 0, :, -1])


@pytest.mark.parametrize("names", [("ce",), ("ce", "csi")])
def test_nothing_is_turned_without_a_term_that_takes_part_and_reads_it(names: tuple[str, ...]) -> None:
    data = batch()
    (given,), losses = seen_by(module(*names, start=5), data)
    assert torch.equal(given, data.images)
    assert set(losses) == {"ce", "total"}


def test_other_terms_do_not_notice() -> None:
    data = batch()
    alone, beside = (seen_by(module(*names), data)[1]["ce"] for names in (("ce",), ("ce", "csi_joint", "csi")))
    torch.testing.assert_close(alone, beside, atol=1e-6, rtol=0)


def test_the_joint_loss_is_that_of_explicitly_turned_images() -> None:
    data, made = batch(), module("ce", "csi_joint")
    found = seen_by(made, data)[1]["csi_joint"]
    total = torch.zeros(())
    for shift in range(SHIFTS):
        logits = made.head.joint(made.backbone(turned(data.images, shift)).features)
        total += torch.nn.functional.cross_entropy(logits, data.labels + C * shift)
    torch.testing.assert_close(found, total / SHIFTS, atol=1e-5, rtol=0)


def test_detectors_are_given_the_turned_images_projections_and_the_plain_logits() -> None:
    made, images = module("ce").eval(), batch().images
    with torch.no_grad():
        seen = made.extract(images)
        assert made.head.projector is not None
        for shift in range(SHIFTS):
            projected = made.head.projector(made.backbone(turned(images, shift)).features)
            torch.testing.assert_close(seen["shifts"][:, shift], projected, atol=1e-5, rtol=0)
        torch.testing.assert_close(seen["logits"], made.backbone(images).logits, atol=1e-6, rtol=0)
    assert seen["joint"].shape == (len(images), C)


def test_heads_alone_are_trained_on_a_network_in_evaluation_mode() -> None:
    made = module("ce", "csi_joint", trainable="heads").train()
    assert not made.backbone.training
    before = {name: value.clone() for name, value in made.state_dict().items()}
    data = batch()
    _, losses = seen_by(made, data)
    groups = [{"params": p, "lr": made.optimizer_settings.lr} for p, _ in made.parameter_groups()]
    optimizer = made.optimizer_settings.build(groups)
    losses["total"].backward()
    made.on_after_backward()
    optimizer.step()
    moved = {name for name, value in made.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"backbone.fc.weight", "backbone.fc.bias", "head.joint.weight", "head.joint.bias"}


def test_the_second_stage_needs_the_first_and_that_a_classifier() -> None:
    request = prepare(["method=csi", "scorer=[csi,msp]"])
    (first,) = request.needs
    assert first.run_id.startswith("csi_contrast-")
    assert list(first.scorers) == ["csi", "msp"]
    (classifier,) = first.needs
    assert classifier.run_id.startswith("ce-")
    assert list(classifier.scorers) == ["msp"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["method=csi", "init=random"], "init=random does not give"),
        (["method=csi", "init=pretrained"], "scored by the projector of its first stage"),
        (["method=ce", "scorer=[csi]"], "scorer=csi reads what method=csi trains"),
        (["id_loss=[ce,csi_joint]"], "id_loss.csi_joint reads joint, which head=linear does not give; use head=shifts"),
    ],
)
def test_half_of_csi_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        prepare(overrides)

"""Turned images: who sees them, in which order, and what is trained on them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.head.shifts import Shifts
from ood_lab.id_loss.ce import CE
from ood_lab.id_loss.cider import CIDER
from ood_lab.id_loss.csi import CSI
from ood_lab.id_loss.csi_joint import CSIJoint
from ood_lab.method.base import Method
from ood_lab.optimizer import SGD
from ood_lab.outlier_loss.outlier_exposure import OutlierExposure
from ood_lab.parts import SHIFTS, Dimensions, Parts, Term, View, WholeBatch, turned
from ood_lab.regularizer.gradient import Gradient
from ood_lab.types import Batch
from tests import views
from tests.cases import each
from tests.small import PROTOTYPED, C, D, backbone, batch, unit
from tests.views import dot, log_softmax

TEMPERATURE = 0.5


class Watch(Term):
    """Keeps what it is shown of turned images."""

    reads_shifted: ClassVar = ("features", "logits", "z", "joint")
    views: ClassVar = 2

    def __init__(self, dims: Dimensions) -> None:
        super().__init__(dims)
        self.seen: list[WholeBatch] = []

    def loss(self, view: View) -> Tensor:
        self.seen.append(view.shifted_batch)
        return view.shifted_batch.rows.joint.square().mean()


def module(*names: str, norm: str = "group", trainable: Any = "whole", **schedule: Any) -> Method:
    """With these terms, whose network is the same for all; the schedule is that of terms on turned images."""
    net = backbone(norm)
    dims = Dimensions(C, net.feature_dim, D)
    made: dict[str, Term] = {
        "ce": CE(dims),
        "cider": CIDER(dims, w_compactness=0.5, w_dispersion=2.0, **PROTOTYPED),
        "csi": CSI(dims, temperature=TEMPERATURE, **schedule),
        "csi_joint": CSIJoint(dims, **schedule),
        "watch": Watch(dims),
        "outlier_exposure": OutlierExposure(dims),
        "gradient": Gradient(dims),
    }
    groups = {"outlier_exposure": "outlier_loss", "gradient": "regularizer"}
    for name, term in made.items():
        term.group, term.name = groups.get(name, "id_loss"), name
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
    found = Method(parts, stage="finetune", trainable=trainable, optimizer=optimizer)
    for name, memory in found.memories.items():
        if name == "prototypes":
            memory.get_buffer("values").copy_(unit(C, D, seed=1))
    return found


def watched(made: Method) -> WholeBatch:
    """What the term that watches was shown in the only step."""
    watch = made.terms["watch"]
    assert isinstance(watch, Watch)
    (shifted,) = watch.seen
    return shifted


def at(made: Method, step: int = 0, rank: int = 0, world: int = 1) -> Method:
    """Give the module a trainer that stands somewhere in ten epochs of ten steps."""
    made._trainer = SimpleNamespace(  # type: ignore[assignment]
        current_epoch=step // 10, global_step=step, global_rank=rank, world_size=world, max_epochs=10,
        datamodule=SimpleNamespace(steps_per_epoch=10), optimizers=[], log_every_n_steps=1, accumulate_grad_batches=1,
    )  # fmt: skip
    return made


def seen_by(made: Method, data: Batch, step: int = 0) -> tuple[list[Tensor], dict[str, Tensor]]:
    """The images that the backbone is given in a step, and the losses."""
    given: list[Tensor] = []
    hook = made.backbone.register_forward_pre_hook(lambda _, args: given.append(args[0].detach().clone()))
    losses = at(made, step).training_step(data, step % 10)
    hook.remove()
    return given, losses


def turns(images: Tensor) -> list[Tensor]:
    """The images under each shift, by PyTorch's own function."""
    return [torch.rot90(images, shift, (2, 3)) for shift in range(4)]


def affine(layer: Any, row: Sequence[float]) -> list[float]:
    rows = zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
    return [dot(row, w) + b for w, b in rows]


def projected(made: Method, row: Sequence[float]) -> list[float]:
    """Two linear layers with a ReLU between them."""
    assert made.head.projector is not None
    first, _, last = made.head.projector
    return affine(last, [max(x, 0.0) for x in affine(first, row)])


def features(made: Method, images: Tensor) -> list[list[list[float]]]:
    """Of the images under each shift, each of these in a pass of its own."""
    with torch.no_grad():
        return [made.backbone(of_shift).features.tolist() for of_shift in turns(images)]


# What the network sees.


def test_a_turn_is_by_ninety_degrees_in_the_plane_of_the_image() -> None:
    images = batch().images
    assert SHIFTS == 4
    for shift, expected in enumerate(turns(images)):
        assert torch.equal(turned(images, shift), expected)
    assert torch.equal(turned(images, 1)[0, 0, 0], images[0, 0, :, -1])


@each("names", [("ce", "csi_joint"), ("csi",), ("csi", "csi_joint", "ce")])
def test_the_network_sees_each_image_under_every_shift_the_plain_ones_first(names: tuple[str, ...]) -> None:
    data = batch()
    (given,), _ = seen_by(module(*names), data)
    assert len(given) == 4 * len(data.images)
    assert torch.equal(given, torch.cat(turns(data.images)))


def test_outlier_images_are_behind_the_turned_ones_and_as_they_are() -> None:
    data = batch(outliers=5)
    assert data.auxiliary is not None
    (given,), _ = seen_by(module("ce", "csi_joint", "outlier_exposure"), data)
    assert torch.equal(given, torch.cat([*turns(data.images), data.auxiliary]))


@each("names", [("ce",), ("ce", "cider")])
def test_nothing_is_turned_without_a_term_that_reads_it(names: tuple[str, ...]) -> None:
    data = batch()
    (given,), _ = seen_by(module(*names), data)
    assert torch.equal(given, data.images)


@each("name", ["csi", "csi_joint"])
def test_nothing_is_turned_before_the_term_starts(name: str) -> None:
    data, made = batch(), module("ce", name, start=2)
    for step in (0, 10, 19, 20, 21):
        (given,), losses = seen_by(made, data, step)
        assert len(given) == (1 if step < 20 else 4) * len(data.images)
        assert torch.equal(given[: len(data.images)], data.images)
        assert (name in losses) == (step >= 20)


def test_a_term_on_turned_images_that_has_weight_zero_turns_nothing() -> None:
    made, data = module("ce", "csi_joint", weight=0.0), batch()
    (given,), losses = seen_by(made, data)
    assert torch.equal(given, data.images)
    assert "csi_joint" not in losses


# What terms see.


@each("others", [("ce",), ("ce", "cider"), ("ce", "outlier_exposure"), ("ce", "gradient")])
def test_other_terms_do_not_notice(others: tuple[str, ...]) -> None:
    data = batch(outliers=5 if {"outlier_exposure", "gradient"} & set(others) else 0)
    alone, beside = (seen_by(module(*names), data)[1] for names in (others, (*others, "csi_joint", "csi")))
    scalars = set(alone) - {"loss", "total"}
    assert len(scalars) >= len(others)
    for name in scalars:
        assert alone[name].abs() > 1e-3
        torch.testing.assert_close(beside[name], alone[name], atol=1e-6, rtol=0)
    assert set(beside) == {*alone, "csi_joint", "csi"}


def test_the_total_is_the_sum_of_the_terms() -> None:
    found = seen_by(module("ce", "csi_joint", "csi"), batch())[1]
    total = float(found["ce"] + found["csi_joint"] + found["csi"])
    assert float(found["total"]) == pytest.approx(total, rel=1e-6)


def test_rows_of_turned_images_lie_in_a_block_for_each_shift_with_labels_of_class_and_shift() -> None:
    data, made = batch(rows=3), module("ce", "watch")
    seen_by(made, data)
    shifted = watched(made)
    count, of = len(data.labels), features(made, data.images)
    assert shifted.labels.tolist() == [int(y) + C * s for s in range(4) for y in data.labels]
    assert shifted.own.tolist() == list(range(4 * count))
    for s in range(4):
        for i, row in enumerate(of[s]):
            place = s * count + i
            assert shifted.rows.features[place].tolist() == pytest.approx(row, abs=1e-5)
            assert shifted.rows.logits[place].tolist() == pytest.approx(affine(made.backbone.fc, row), abs=1e-5)
            assert shifted.rows.joint[place].tolist() == pytest.approx(affine(made.head.joint, row), abs=1e-5)
            z = views.normalise(projected(made, row))
            assert shifted.rows.z[place].tolist() == pytest.approx(z, abs=1e-5)


def test_the_joint_loss_is_that_of_explicitly_turned_images() -> None:
    data, made = batch(), module("ce", "csi_joint")
    of = features(made, data.images)
    found = seen_by(made, data)[1]["csi_joint"]
    total = 0.0
    for s in range(4):
        for row, y in zip(of[s], data.labels.tolist(), strict=True):
            total -= log_softmax(affine(made.head.joint, row))[y + C * s]
    assert float(found) == pytest.approx(total / (4 * len(data.labels)), abs=1e-5)


def test_the_contrast_is_that_of_explicitly_turned_images() -> None:
    data, made = batch(rows=4), module("csi")
    z = [views.normalise(projected(made, row)) for block in features(made, data.images) for row in block]
    groups = [int(y) + C * s for s in range(4) for y in data.labels]
    found = seen_by(made, data)[1]["csi"]
    assert float(found) == pytest.approx(views.supcon(z, groups, TEMPERATURE), abs=1e-5)


def test_turned_images_train_the_network() -> None:
    made, data = module("csi_joint"), batch()
    at(made).training_step(data, 0)["loss"].backward()
    got = next(made.backbone.stem.parameters()).grad
    explicit = module("csi_joint")
    losses = [
        F.cross_entropy(explicit.head.joint(explicit.backbone(images).features), data.labels + C * s)
        for s, images in enumerate(turns(data.images))
    ]
    (sum(losses[1:], losses[0]) / 4).backward()
    expected = next(explicit.backbone.stem.parameters()).grad
    views.assert_close(got, expected, 1e-4)


# Two devices.


def on_two_devices(data: Batch, *names: str) -> tuple[list[Method], list[dict[str, Tensor]]]:
    """Each holds every second image of each view; they exchange rows as threads."""
    barrier, slots = threading.Barrier(2, timeout=60), [torch.empty(0)] * 2
    devices, found = [module(*names) for _ in range(2)], [dict[str, Tensor]() for _ in range(2)]

    def exchange(rank: int, rows: Tensor) -> Tensor:
        slots[rank] = rows.detach()
        barrier.wait()
        everywhere = torch.stack([rows if r == rank else slots[r] for r in range(2)])
        barrier.wait()
        return everywhere

    def run(rank: int) -> None:
        made = at(devices[rank], rank=rank, world=2)
        made.all_gather = lambda rows, **_: exchange(rank, rows)  # type: ignore[method-assign]
        found[rank] = made.training_step(Batch(data.images[rank::2], data.labels[rank::2], None), 0)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return devices, found


def test_each_of_two_devices_sees_the_rows_of_one_in_each_block_and_knows_its_own() -> None:
    data = batch(rows=4)
    one = module("ce", "watch")
    seen_by(one, data)
    expected, count = watched(one), len(data.labels)
    for rank, made in enumerate(on_two_devices(data, "ce", "watch")[0]):
        shifted = watched(made)
        assert shifted.labels.tolist() == expected.labels.tolist()
        torch.testing.assert_close(shifted.rows.z, expected.rows.z, atol=1e-5, rtol=0)
        torch.testing.assert_close(shifted.rows.joint, expected.rows.joint, atol=1e-5, rtol=0)
        own = [s * count + i for s in range(4) for i in range(rank, count, 2)]
        assert sorted(shifted.own.tolist()) == own
        assert shifted.rows.joint.requires_grad


def test_the_losses_of_two_devices_average_to_those_of_one() -> None:
    data, names = batch(rows=4), ("ce", "csi", "csi_joint")
    one = seen_by(module(*names), data)[1]
    _, (first, second) = on_two_devices(data, *names)
    for name in names:
        assert float(first[name]) != pytest.approx(float(second[name]), abs=1e-5)
        assert float(first[name] + second[name]) / 2 == pytest.approx(float(one[name]), abs=1e-5)


# What detectors see.


@each("norm", ["group", "batch"])
def test_detectors_are_given_what_the_turned_images_give_and_the_logits_of_the_image_as_it_is(norm: str) -> None:
    made, images = module("ce", norm=norm).eval(), batch().images
    of = features(made, images)
    with torch.no_grad():
        seen = made.extract(images)
    assert {"features", "logits", "shifts", "joint"} <= set(seen)
    assert seen["shifts"].shape == (len(images), 4, D)
    assert seen["joint"].shape == seen["logits"].shape == (len(images), C)
    for i in range(len(images)):
        assert seen["features"][i].tolist() == pytest.approx(of[0][i], abs=1e-5)
        assert seen["logits"][i].tolist() == pytest.approx(affine(made.backbone.fc, of[0][i]), abs=1e-5)
        for s in range(4):
            assert seen["shifts"][i, s].tolist() == pytest.approx(projected(made, of[s][i]), abs=1e-5)
        joint = [affine(made.head.joint, of[s][i]) for s in range(4)]
        ensemble = [sum(joint[s][y + C * s] for s in range(4)) / 4 for y in range(C)]
        assert seen["joint"][i].tolist() == pytest.approx(ensemble, abs=1e-5)


# What is trained.


@each("norm", ["group", "batch"])
def test_heads_alone_are_trained_on_a_network_in_evaluation_mode(norm: str) -> None:
    made = module("ce", "csi_joint", norm=norm, trainable="heads").train()
    assert made.training
    assert made.head.training
    assert not any(part.training for part in made.backbone.modules())
    before = {name: value.clone() for name, value in made.state_dict().items()}
    assert any("running_mean" in name for name in before) == (norm == "batch")
    at(made)
    optimizer = made.configure_optimizers()["optimizer"]
    for step in range(2):
        optimizer.zero_grad()
        made.training_step(batch(seed=step), step)["loss"].backward()
        made.on_after_backward()
        optimizer.step()
    after = made.state_dict()
    moved = {name for name in before if name.startswith(("backbone.", "head.")) and not after[name].equal(before[name])}
    assert moved == {"backbone.fc.weight", "backbone.fc.bias", "head.joint.weight", "head.joint.bias"}


def test_a_network_that_is_trained_as_a_whole_is_in_training_mode_and_moves_its_statistics() -> None:
    made, data = module("ce", "csi_joint", norm="batch").train(), batch()
    assert all(part.training for part in made.backbone.modules())
    statistics = {name: value.clone() for name, value in made.backbone.named_buffers() if "running_mean" in name}
    seen_by(made, data)
    assert statistics
    for name, value in made.backbone.named_buffers():
        assert name not in statistics or not torch.equal(value, statistics[name])


def test_after_evaluation_the_network_of_heads_alone_is_still_in_evaluation_mode() -> None:
    made = module("ce", "csi_joint", norm="batch", trainable="heads")
    for mode in (True, False, True):
        made.train(mode)
        assert made.head.training is mode
        assert not made.backbone.training

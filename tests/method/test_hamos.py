"""HamOS as a method: above all, that outliers change what the network learns."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.backbone.resnet import ResNet
from ood_lab.loss.cider import update_prototypes
from ood_lab.method.cider import CIDER
from ood_lab.method.hamos import HamOS
from ood_lab.optimizer import SGD
from ood_lab.synthesizer.base import Synthesizer
from ood_lab.synthesizer.hmc import HMC
from ood_lab.types import Batch, Outliers

C, D, SIZE, M, TAU = 3, 6, 4, 0.9, 0.2
FORMS = ["equidistant", "paper_eq7", "negatives", "logistic"]


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


class Fixed(Synthesizer):
    """Always the same outliers; keeps what it was asked with."""

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.banks: list[Tensor] = []
        self.draws: list[float] = []

    def sample(self, bank_CND: Tensor, generator: torch.Generator) -> Outliers:
        self.banks.append(bank_CND.clone())
        self.draws.append(float(torch.rand((), generator=generator)))
        return Outliers(self.values, torch.zeros(len(self.values), dtype=torch.int64), {"marker": torch.tensor(3.5)})


def trainer(epoch: int = 0, step: int = 0) -> SimpleNamespace:
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_idx=step))
    return SimpleNamespace(current_epoch=epoch, global_step=step, fit_loop=loop, world_size=1)


def shared_options() -> dict[str, Any]:
    return {
        "stage": "finetune",
        "trainable": "whole",
        "projection_dim": D,
        "prototype_momentum": M,
        "temperature": TAU,
        "w_ce": 1.0,
        "w_comp": 0.5,
        "w_disp": 1.0,
        "optimizer": SGD(lr=0.1, momentum=0.0, weight_decay=0.0, warmup=0.0),
    }


def backbone() -> ResNet:
    torch.manual_seed(0)
    return ResNet(C, block="basic", depths=[1, 1, 1, 1], width=8, stem="cifar", norm="batch")


def hamos(
    synthesizer: Synthesizer,
    *,
    form: str = "equidistant",
    w_ood: float = 1.0,
    filled: bool = True,
) -> HamOS:
    method = HamOS(
        backbone(),
        C,
        7,
        synthesizer,
        bank_size=SIZE,
        w_ood=w_ood,
        discernment=form,
        **shared_options(),
    )
    method._trainer = trainer()
    method.prototypes.copy_(unit(C, D, seed=1))
    if filled:
        method.bank.push(unit(C * SIZE, D, seed=2), torch.arange(C).repeat(SIZE))
    return method


def batch(rows: int = 8, seed: int = 0) -> Batch:
    """Two views of each image, the labels repeated."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(C, (rows,), generator=draw)
    return Batch(torch.randn(2 * rows, 3, 8, 8, generator=draw), labels.repeat(2))


def backward(method: CIDER, data: Batch) -> dict[str, Tensor]:
    method.zero_grad()
    losses = method.loss(data, method.backbone(data.images))
    losses["total"].backward()
    return losses


def gradient(method: CIDER, data: Batch) -> Tensor:
    """Of the total, with respect to the backbone's weights."""
    backward(method, data)
    return torch.cat([p.grad.flatten() for p in method.backbone.parameters() if p.grad is not None])


def relative_difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def dot(a: Tensor, b: Tensor) -> float:
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def ood_naive(form: str, method: HamOS, z: Tensor, labels: Tensor, mu: Tensor, outliers: Tensor) -> float:
    if form in ("equidistant", "paper_eq7"):
        sign, total = -1 if form == "equidistant" else 1, 0.0
        for o in outliers:
            weights = [math.exp(sign * dot(o, m) / TAU) for m in mu]
            total += sign * sum(math.log(w / sum(weights)) for w in weights) / C
        return total / len(outliers)
    if form == "negatives":
        total = 0.0
        for row, label in zip(z, labels.tolist(), strict=True):
            own = math.exp(dot(row, mu[label]) / TAU)
            total -= math.log(own / (own + sum(math.exp(dot(row, o) / TAU) for o in outliers)))
        return total / len(z)

    def probability(point: Tensor) -> float:
        logit = math.sqrt(D) * dot(point, method.outlier_head.weight[0]) + float(method.outlier_head.bias)
        return 1 / (1 + math.exp(-logit))

    id_loss = sum(-math.log(probability(row)) for row in z) / len(z)
    return (id_loss + sum(-math.log(1 - probability(o)) for o in outliers) / len(outliers)) / 2


ONE, OTHER = unit(5, D, seed=10), unit(5, D, seed=11)


# The gradient path.


@pytest.mark.parametrize("form", ["equidistant", "paper_eq7", "negatives"])
def test_outliers_change_the_gradient_of_the_backbone(form: str) -> None:
    one, again, other = (gradient(hamos(Fixed(values), form=form), batch()) for values in (ONE, ONE, OTHER))
    assert torch.equal(one, again)
    assert relative_difference(one, other) > 1e-3


@pytest.mark.parametrize("form", FORMS)
def test_outliers_change_the_backbone_within_two_training_steps(form: str) -> None:
    def trained(values: Tensor) -> Tensor:
        method = hamos(Fixed(values), form=form)
        optimizer = torch.optim.SGD(method.parameters(), lr=0.05)
        start = torch.cat([p.detach().flatten() for p in method.backbone.parameters()])
        for seed in range(2):
            backward(method, batch(seed=seed))
            optimizer.step()
        return torch.cat([p.detach().flatten() for p in method.backbone.parameters()]) - start

    one, again, other = trained(ONE), trained(ONE), trained(OTHER)
    assert torch.equal(one, again)
    assert relative_difference(one, other) > 1e-4


def test_outliers_reach_the_backbone_under_logistic_through_the_outlier_head_alone() -> None:
    methods = [hamos(Fixed(values), form="logistic") for values in (ONE, OTHER)]
    same_step = [gradient(method, batch()) for method in methods]
    heads = [method.outlier_head.weight.grad for method in methods]
    assert torch.equal(*same_step)
    assert relative_difference(*heads) > 1e-2


def test_the_logistic_head_trains_the_backbone_through_the_id_rows() -> None:
    with_term, without = (gradient(hamos(Fixed(ONE), form="logistic", w_ood=w), batch()) for w in (1.0, 0.0))
    assert relative_difference(with_term, without) > 1e-3


def test_in_the_released_form_outliers_have_no_effect_but_the_weight_has() -> None:
    one, other = (gradient(hamos(Fixed(v), form="released"), batch()) for v in (ONE, OTHER))
    without = gradient(hamos(Fixed(ONE), form="released", w_ood=0.0), batch())
    assert torch.equal(one, other)
    assert relative_difference(one, without) > 1e-3


def test_the_released_form_takes_the_rows_of_the_batch_and_detached_prototypes() -> None:
    method, data = hamos(Fixed(ONE), form="released"), batch()
    z = method.project(method.backbone(data.images).features).detach()
    mu = update_prototypes(method.prototypes, z, data.labels, M)
    losses = method.loss(data, method.backbone(data.images))
    assert float(losses["ood"]) == pytest.approx(ood_naive("equidistant", method, z, data.labels, mu, z), abs=1e-5)

    features = method.backbone(data.images).features.detach()
    z = method.project(features)
    got = torch.autograd.grad(method._discernment(z, data.labels, update_prototypes(mu, z, data.labels, M)), z)[0]
    detached = update_prototypes(mu, z, data.labels, M).detach()
    expected = torch.autograd.grad(-(-z @ detached.T / TAU).log_softmax(1).mean(), z)[0]
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("form", FORMS)
def test_outliers_of_the_sampler_get_no_gradient(form: str) -> None:
    made: list[Outliers] = []

    class Recorded(HMC):
        def sample(self, bank_CND: Tensor, generator: torch.Generator) -> Outliers:
            made.append(super().sample(bank_CND, generator))
            return made[-1]

    sampler = Recorded(
        neighbor=2,
        adjacent=2,
        rounds=2,
        leapfrog_steps=2,
        step_size=0.1,
        momentum="standard",
        centroids="unit",
        kappa=2.0,
        margin=0.1,
        density="paper",
        midpoint_noise=0.0,
    )
    method = hamos(sampler, form=form)
    losses = backward(method, batch())
    assert len(made) == 1
    assert not made[0].values.requires_grad
    assert made[0].values.grad is None
    assert not method.bank.values.requires_grad
    assert float(losses["ood"].detach()) != 0


# Values.


@pytest.mark.parametrize("form", FORMS)
def test_ood_term_matches_the_loop_and_enters_the_total_with_its_weight(form: str) -> None:
    method, data = hamos(Fixed(ONE), form=form, w_ood=0.3), batch()
    z = method.project(method.backbone(data.images).features).detach()
    mu = update_prototypes(method.prototypes, z, data.labels, M)
    losses = method.loss(data, method.backbone(data.images))
    assert float(losses["ood"]) == pytest.approx(ood_naive(form, method, z, data.labels, mu, ONE), abs=1e-5)
    total = losses["ce"] + 0.5 * losses["comp"] + losses["disp"] + 0.3 * losses["ood"]
    assert float(losses["total"]) == pytest.approx(float(total), abs=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_weight_zero_is_cider_exactly(form: str) -> None:
    method, data = hamos(Fixed(ONE), form=form, w_ood=0.0), batch()
    plain = CIDER(backbone(), C, 7, **shared_options())
    plain.load_state_dict(
        {name: method.state_dict()[name].clone() for name in plain.state_dict() if "_mean" not in name}, strict=False
    )
    losses, expected = backward(method, data), backward(plain, data)
    assert float(losses["ood"].detach()) == 0
    for name in expected:
        assert torch.equal(losses[name], expected[name])
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter.grad, method.get_parameter(name).grad), name


def test_before_the_bank_is_full_the_term_is_zero_and_nothing_is_sampled() -> None:
    sampler = Fixed(ONE)
    method, data = hamos(sampler, filled=False), batch(rows=3)
    plain = gradient(hamos(Fixed(ONE), w_ood=0.0), data)
    got = gradient(method, data)
    assert sampler.banks == []
    assert method.outliers() is None
    assert torch.equal(got, plain)


def test_the_term_starts_in_the_step_after_every_class_is_full() -> None:
    sampler = Fixed(ONE)
    method, rows = hamos(sampler, filled=False), torch.zeros(C, dtype=torch.int64)
    started = []
    for seed in range(8):
        data = batch(rows=3, seed=seed)
        was_full = bool((rows >= SIZE).all())
        losses = method.loss(data, method.backbone(data.images))
        assert (float(losses["ood"]) != 0) == was_full
        rows += data.labels.bincount(minlength=C)
        started.append(was_full)
    assert any(started)
    assert not all(started)


def test_the_sampler_sees_the_bank_of_the_steps_before_and_the_bank_takes_this_batch_after() -> None:
    sampler = Fixed(ONE)
    method, data = hamos(sampler), batch()
    before = method.bank.values.clone()
    z = method.project(method.backbone(data.images).features).detach()
    method.loss(data, method.backbone(data.images))
    assert torch.equal(sampler.banks[0], before)
    for c in range(C):
        newest = z[data.labels == c][-SIZE:]
        for row in newest:
            assert (method.bank.values[c] - row).norm(dim=1).min() < 1e-6


def test_prototypes_stay_detached_unit_vectors() -> None:
    method = hamos(Fixed(ONE))
    before = method.prototypes.clone()
    for seed in range(3):
        backward(method, batch(seed=seed))
    assert not method.prototypes.requires_grad
    torch.testing.assert_close(method.prototypes.norm(dim=1), torch.ones(C))
    assert (method.prototypes - before).abs().max() > 1e-3


# Stepping.


@pytest.mark.parametrize("form", FORMS)
def test_step_returns_the_losses_it_names_and_keeps_what_the_sampler_reports(form: str) -> None:
    method = hamos(Fixed(ONE), form=form)
    assert method.views == 2
    assert set(method.loss(batch(), method.backbone(batch().images))) == {"ce", "comp", "disp", "ood", "total"}
    assert set(method.training_step(batch(), 0)) == {"loss", "ce", "comp", "disp", "ood", "total"}
    assert float(method.info["marker"]) == 3.5


def test_draws_are_a_function_of_seed_epoch_and_step() -> None:
    sampler, drawn = Fixed(ONE), {}
    method = hamos(sampler)
    for seed, epoch, step in [(7, 0, 0), (7, 0, 1), (7, 1, 0), (8, 0, 0), (7, 0, 0)]:
        method.seed, method._trainer = seed, trainer(epoch, step)
        method.loss(batch(), method.backbone(batch().images))
        assert drawn.setdefault((seed, epoch, step), sampler.draws[-1]) == sampler.draws[-1]
    assert len(set(drawn.values())) == 4


def test_outliers_after_training_are_drawn_from_the_bank_and_repeatable() -> None:
    sampler = Fixed(ONE)
    method = hamos(sampler)
    assert torch.equal(method.outliers().values, ONE)
    method._trainer = trainer(5, 9)
    method.outliers()
    assert sampler.draws[0] == sampler.draws[1]
    assert torch.equal(sampler.banks[0], method.bank.values)


def test_a_checkpoint_holds_bank_and_prototypes() -> None:
    first, second = hamos(Fixed(ONE)), hamos(Fixed(ONE), filled=False)
    backward(first, batch())
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.bank.values, first.bank.values)
    assert torch.equal(gradient(second, batch(seed=1)), gradient(first, batch(seed=1)))

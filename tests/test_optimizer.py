"""The learning-rate schedules, and the optimizers that follow them."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from ood_lab.config import RequestError, prepare
from ood_lab.optimizer import SGD, Adam, Optimizer, ParameterGroup
from ood_lab.task.build import build_method
from tests.cases import each


def sgd(warmup: float = 0.0, momentum: float = 0.9) -> SGD:
    return SGD(lr=0.4, momentum=momentum, weight_decay=1e-3, warmup=warmup)


@each("total", [1, 2, 7, 1000])
def test_without_warmup_the_factor_is_the_half_cosine(total: int) -> None:
    for step in range(total + 1):
        assert sgd().factor(step, total) == pytest.approx((1 + math.cos(math.pi * step / total)) / 2, abs=1e-12)


def test_factor_starts_at_one_and_ends_at_zero() -> None:
    assert sgd().factor(0, 100) == 1
    assert sgd().factor(100, 100) == pytest.approx(0, abs=1e-15)
    assert 0 < sgd().factor(99, 100) < 1e-3


def test_factor_stays_at_zero_beyond_the_last_step() -> None:
    assert sgd().factor(130, 100) == pytest.approx(0, abs=1e-15)


@each(("warmup", "total", "rise"), [(0.05, 100, 5), (0.25, 8, 2), (0.05, 90, 5), (0.5, 10, 5)])
def test_warmup_rises_linearly_to_the_peak_over_its_share_of_steps(warmup: float, total: int, rise: int) -> None:
    factors = [sgd(warmup).factor(step, total) for step in range(total)]
    for step in range(rise):
        assert factors[step] == pytest.approx((step + 1) / rise)
    assert max(factors) == pytest.approx(1)
    assert factors[-1] < factors[rise]


@each("warmup", [0.0, 0.03, 0.05, 0.5])
def test_factor_rises_in_the_warmup_and_never_after_it(warmup: float) -> None:
    total = 200
    factors = [sgd(warmup).factor(step, total) for step in range(total + 1)]
    peak = factors.index(max(factors))
    assert all(a < b for a, b in pairwise(factors[: peak + 1]))
    assert all(a >= b for a, b in pairwise(factors[peak:]))
    assert factors[-1] == pytest.approx(0, abs=1e-12)
    assert min(factors) >= 0


def test_configured_optimizer_has_the_settings_and_follows_the_factor() -> None:
    settings, weight = sgd(0.2), nn.Parameter(torch.ones(3))
    made = settings.configure([ParameterGroup([weight])], 5, 2)
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    group = optimizer.param_groups[0]
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.9, True, 1e-3)
    assert made["lr_scheduler"]["interval"] == "step"
    for step in range(10):
        assert group["lr"] == pytest.approx(0.4 * settings.factor(step, 10))
        weight.grad = torch.ones(3)
        optimizer.step()
        schedule.step()
    assert group["lr"] == pytest.approx(0, abs=1e-12)


def test_zero_momentum_is_plain_sgd() -> None:
    groups = [ParameterGroup([nn.Parameter(torch.ones(1))])]
    assert sgd(momentum=0.0).configure(groups, 5, 1)["optimizer"].defaults["nesterov"] is False


# Other schedules.


def scheduled(schedule: str, **options: Any) -> SGD:
    settings = {"warmup": 0.0, **options}
    return SGD(lr=0.4, momentum=0.0, weight_decay=0.0, schedule=schedule, **settings)  # type: ignore[arg-type]


@each(
    ("milestones", "gamma"),
    [(("1", "3"), 0.1), (("0.5", "0.75"), 0.1), (("2", "0.25", "0.07"), 0.5), (("0.5", "2"), 0.2), ((), 0.1)],
)
@each(("per_epoch", "epochs"), [(5, 4), (1, 4), (7, 13)])
def test_the_rate_falls_by_gamma_at_each_milestone(
    milestones: tuple[str, ...], gamma: float, per_epoch: int, epochs: int
) -> None:
    total = per_epoch * epochs
    made = scheduled("milestones", milestones=[float(m) if "." in m else int(m) for m in milestones], gamma=gamma)
    for step in range(total):
        expected = 1.0
        for moment in milestones:
            over = Fraction(step, total) >= Fraction(moment) if "." in moment else step // per_epoch >= int(moment)
            expected *= gamma if over else 1.0
        assert made.factor(step, total, per_epoch) == pytest.approx(expected, rel=1e-12), step


def test_by_default_the_rate_falls_tenfold_after_a_half_and_three_quarters() -> None:
    factors = [scheduled("milestones").factor(step, 40, 10) for step in range(40)]
    assert factors == pytest.approx([1.0] * 20 + [0.1] * 10 + [0.01] * 10)


def test_a_whole_one_is_the_first_epoch_and_never_the_whole_run() -> None:
    factors = [scheduled("milestones", milestones=[1]).factor(step, 40, 10) for step in range(40)]
    assert factors == pytest.approx([1.0] * 10 + [0.1] * 30)


def test_a_constant_rate_stays_at_its_peak() -> None:
    assert [scheduled("constant").factor(step, 30, 10) for step in range(31)] == [1.0] * 31


@each(("schedule", "after"), [("constant", [1.0] * 6), ("milestones", [1.0, 0.1, 0.1, 0.1, 0.1, 0.1])])
def test_every_schedule_has_the_warmup_before_it(schedule: str, after: list[float]) -> None:
    made = scheduled(schedule, warmup=0.4, milestones=[0.5])
    factors = [made.factor(step, 10, 5) for step in range(10)]
    assert factors == pytest.approx([0.25, 0.5, 0.75, 1.0, *after])


def test_a_milestone_within_the_warmup_acts_after_it() -> None:
    made = scheduled("milestones", warmup=0.5, milestones=[0.2])
    assert [made.factor(step, 4, 1) for step in range(4)] == pytest.approx([0.5, 1.0, 0.1, 0.1])


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


def rates(settings: Optimizer, factors: list[float], per_epoch: int, epochs: int) -> list[list[float]]:
    """The rate of each group in each step of a run."""
    groups = [ParameterGroup([parameter(1.0)], factor) for factor in factors]
    made = settings.configure(groups, per_epoch, epochs)
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    found = []
    for _ in range(per_epoch * epochs):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return found


@each("schedule", ["cosine", "milestones", "constant"])
@each("kind", ["sgd", "adam"])
def test_the_rate_of_a_group_is_its_factor_times_the_scheduled_one(kind: str, schedule: str) -> None:
    shared: dict[str, Any] = {
        "lr": 0.4,
        "weight_decay": 0.0,
        "warmup": 0.2,
        "schedule": schedule,
        "milestones": [1, 0.7],
    }
    settings = SGD(momentum=0.9, **shared) if kind == "sgd" else Adam(**shared)
    for step, found in enumerate(rates(settings, [1.0, 10.0, 0.25], 5, 2)):
        share = settings.factor(step, 10, 5)
        assert found == pytest.approx([0.4 * share, 4.0 * share, 0.1 * share], rel=1e-12)


def test_milestones_of_a_run_are_counted_in_its_epochs() -> None:
    found = rates(scheduled("milestones", milestones=[1, 0.5]), [1.0], 5, 4)
    assert [rate for (rate,) in found] == pytest.approx([0.4] * 5 + [0.04] * 5 + [0.004] * 10)


def test_a_group_without_parameters_is_left_out() -> None:
    made = sgd().configure(
        [ParameterGroup([parameter(1.0)]), ParameterGroup([], 3.0), ParameterGroup([parameter(2.0)], 2.0)], 5, 1
    )["optimizer"]
    assert [len(group["params"]) for group in made.param_groups] == [1, 1]
    assert [group["initial_lr"] for group in made.param_groups] == pytest.approx([0.4, 0.8])


def test_a_step_of_sgd_moves_by_rate_gradient_and_decay_of_each_group() -> None:
    weights = [parameter(2.0, -1.0), parameter(0.5, 3.0)]
    settings = SGD(lr=0.1, momentum=0.0, weight_decay=0.3, warmup=0.0, schedule="constant")
    optimizer = settings.configure([ParameterGroup([weights[0]]), ParameterGroup([weights[1]], 5.0)], 5, 1)["optimizer"]
    before = [weight.tolist() for weight in weights]
    for weight in weights:
        weight.grad = torch.tensor([0.7, -0.2], dtype=torch.float64)
    optimizer.step()
    for weight, old, rate in zip(weights, before, (0.1, 0.5), strict=True):
        expected = [x - rate * (g + 0.3 * x) for x, g in zip(old, (0.7, -0.2), strict=True)]
        assert weight.tolist() == pytest.approx(expected, abs=1e-12)


# Adam.


@each("betas", [None, (0.8, 0.95), [0.5, 0.9]])
def test_adam_is_adam_with_decay_in_the_gradient(betas: Any) -> None:
    weight, rate, decay = parameter(1.0, -2.0, 0.3), 0.05, 0.1
    options = {} if betas is None else {"betas": betas}
    settings = Adam(lr=rate, weight_decay=decay, warmup=0.0, schedule="constant", **options)
    optimizer = settings.configure([ParameterGroup([weight])], 6, 1)["optimizer"]
    b1, b2 = betas or (0.9, 0.999)
    x, first, second = weight.tolist(), [0.0] * 3, [0.0] * 3
    for step in range(1, 7):
        gradient = torch.randn(3, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        weight.grad = gradient.clone()
        optimizer.step()
        for i, g in enumerate(gradient.tolist()):
            total = g + decay * x[i]
            first[i] = b1 * first[i] + (1 - b1) * total
            second[i] = b2 * second[i] + (1 - b2) * total**2
            x[i] -= rate * (first[i] / (1 - b1**step)) / (math.sqrt(second[i] / (1 - b2**step)) + 1e-8)
        assert weight.tolist() == pytest.approx(x, abs=1e-12)


def test_adam_has_its_settings() -> None:
    settings = Adam(lr=0.01, weight_decay=0.2, warmup=0.0, betas=(0.7, 0.99))
    optimizer = settings.configure([ParameterGroup([parameter(1.0)]), ParameterGroup([parameter(1.0)], 2.0)], 5, 1)[
        "optimizer"
    ]
    assert type(optimizer) is torch.optim.Adam
    for group in optimizer.param_groups:
        assert (group["betas"], group["weight_decay"], group["amsgrad"]) == ((0.7, 0.99), 0.2, False)


@each("make", [SGD, Adam])
def test_a_group_without_decay_keeps_a_weight_that_has_no_gradient(make: type[Optimizer]) -> None:
    options = {"momentum": 0.9} if make is SGD else {}
    decayed, kept = parameter(1.0), parameter(1.0)
    groups = [ParameterGroup([decayed]), ParameterGroup([kept], decay=0.0)]
    made = make(lr=0.1, weight_decay=0.5, warmup=0.0, **options).configure(groups, 5, 1)["optimizer"]
    for weight in (decayed, kept):
        weight.grad = torch.zeros_like(weight)
    made.step()
    assert decayed.item() < 1.0
    assert kept.item() == 1.0


def test_layer_decay_lowers_the_rate_from_the_head_to_the_image_and_vectors_do_not_decay() -> None:
    experiment = prepare(["method=ce", "optimizer=adamw", "optimizer.layer_decay=0.5", "backbone=narrow"])
    method = build_method(experiment)
    of_parameter = {p: (group.rate, group.decay) for group in method.parameter_groups() for p in group.parameters}
    assert of_parameter[method.backbone.fc.weight] == (1.0, 1.0)
    assert of_parameter[method.backbone.fc.bias] == (1.0, 0.0)
    for depth, block in enumerate([*reversed(method.backbone.stages), method.backbone.stem], 1):
        for parameter in block.parameters():
            assert of_parameter[parameter] == (pytest.approx(0.5**depth), 0.0 if parameter.dim() <= 1 else 1.0)
    assert len(of_parameter) == len(list(method.parameters()))


def test_without_layer_decay_every_parameter_has_one_rate_and_decays() -> None:
    method = build_method(prepare(["method=ce"]))
    assert {(group.rate, group.decay) for group in method.parameter_groups()} == {(1.0, 1.0)}


def test_an_optimizer_by_name_replaces_the_methods_own() -> None:
    own, chosen = (prepare(["method=ce", *more]) for more in ([], ["optimizer=adamw", "optimizer.lr=0.003"]))
    assert own.method.options["optimizer"]["_target_"] == "ood_lab.optimizer.SGD"
    assert chosen.method.options["optimizer"]["_target_"] == "ood_lab.optimizer.AdamW"
    assert chosen.method.options["optimizer"]["lr"] == 0.003
    assert "momentum" not in chosen.method.options["optimizer"]
    assert own.run_id != chosen.run_id
    assert prepare(["method=ce", "optimizer=sgd", "optimizer.warmup=0.05"]).run_id == own.run_id


def test_a_network_whose_layers_are_not_told_apart_has_no_layer_decay() -> None:
    with pytest.raises(RequestError, match=r"optimizer.layer_decay=0.75: the layers of backbone=wrn40_2 are not told"):
        prepare(["method=ce", "optimizer=adamw", "backbone=wrn40_2"])
    prepare(["method=ce", "optimizer=adamw", "optimizer.layer_decay=1", "backbone=wrn40_2"])

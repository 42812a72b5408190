"""The learning-rate schedule: warm-up, cosine, end points."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from ood_lab.optimizer import SGD


def sgd(warmup: float = 0.0, momentum: float = 0.9) -> SGD:
    return SGD(lr=0.4, momentum=momentum, weight_decay=1e-3, warmup=warmup)


@pytest.mark.parametrize("total", [1, 2, 7, 1000])
def test_without_warmup_the_factor_is_the_half_cosine(total: int) -> None:
    for step in range(total + 1):
        assert sgd().factor(step, total) == pytest.approx((1 + math.cos(math.pi * step / total)) / 2, abs=1e-12)


def test_factor_starts_at_one_and_ends_at_zero() -> None:
    assert sgd().factor(0, 100) == 1
    assert sgd().factor(100, 100) == pytest.approx(0, abs=1e-15)
    assert 0 < sgd().factor(99, 100) < 1e-3


def test_factor_stays_at_zero_beyond_the_last_step() -> None:
    assert sgd().factor(130, 100) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(("warmup", "total", "rise"), [(0.05, 100, 5), (0.25, 8, 2), (0.05, 90, 5), (0.5, 10, 5)])
def test_warmup_rises_linearly_to_the_peak_over_its_share_of_steps(warmup: float, total: int, rise: int) -> None:
    factors = [sgd(warmup).factor(step, total) for step in range(total)]
    for step in range(rise):
        assert factors[step] == pytest.approx((step + 1) / rise)
    assert max(factors) == pytest.approx(1)
    assert factors[-1] < factors[rise]


@pytest.mark.parametrize("warmup", [0.0, 0.03, 0.05, 0.5])
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
    made = settings.configure([weight], 10)
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
    assert sgd(momentum=0.0).configure([nn.Parameter(torch.ones(1))], 5)["optimizer"].defaults["nesterov"] is False

"""Logistic regression between ID rows and outliers against loops, and the weighted energy."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ood_lab.loss.logistic import Reduction, binary_losses, over_both_sides, weighted_energy
from tests.cases import each
from tests.views import assert_close, differences, normal

REDUCTIONS: tuple[Reduction, ...] = ("joint", "sum", "mean")


def naive_losses(id_logits: list, outlier_logits: list) -> tuple[list[float], list[float]]:
    """Binary cross-entropy of the probability of being ID, label 1 for ID rows and 0 for outliers."""

    def probability(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    return [-math.log(probability(x)) for x in id_logits], [-math.log(1 - probability(x)) for x in outlier_logits]


def naive(id_losses: list, outlier_losses: list, reduction: str) -> float:
    of_id, of_outliers = sum(id_losses) / len(id_losses), sum(outlier_losses) / len(outlier_losses)
    return {
        "joint": (sum(id_losses) + sum(outlier_losses)) / (len(id_losses) + len(outlier_losses)),
        "sum": of_id + of_outliers,
        "mean": (of_id + of_outliers) / 2,
    }[reduction]


def naive_energy(row: list, weights: list) -> float:
    return math.log(sum(max(w, 0.0) * math.exp(x) for x, w in zip(row, weights, strict=True)))


def both(id_logits: Tensor, outlier_logits: Tensor, reduction: Reduction = "joint") -> Tensor:
    return over_both_sides(*binary_losses(id_logits, outlier_logits), reduction)


def test_losses_of_rows_are_binary_cross_entropy_with_label_1_for_id() -> None:
    id_logits, outlier_logits = 3 * normal(7), 3 * normal(4, seed=1)
    expected = naive_losses(id_logits.tolist(), outlier_logits.tolist())
    for got, want in zip(binary_losses(id_logits, outlier_logits), expected, strict=True):
        torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64), atol=1e-12, rtol=0)


@each("reduction", REDUCTIONS)
@each(("rows", "outliers"), [(7, 4), (1, 1), (2, 9)])
def test_both_sides_are_reduced_as_in_the_loop(rows: int, outliers: int, reduction: Reduction) -> None:
    id_losses, outlier_losses = normal(rows), normal(outliers, seed=1)
    expected = naive(id_losses.tolist(), outlier_losses.tolist(), reduction)
    assert over_both_sides(id_losses, outlier_losses, reduction).item() == pytest.approx(expected, abs=1e-12)


def test_logistic_is_the_balanced_binary_cross_entropy() -> None:
    id_logits, outlier_logits = 3 * normal(7), 3 * normal(4, seed=1)
    id_losses, outlier_losses = naive_losses(id_logits.tolist(), outlier_logits.tolist())
    expected = (sum(id_losses) / 7 + sum(outlier_losses) / 4) / 2
    assert both(id_logits, outlier_logits, "mean").item() == pytest.approx(expected, abs=1e-12)


@each("reduction", REDUCTIONS)
def test_gradients_match_finite_differences(reduction: Reduction) -> None:
    id_logits, outlier_logits = normal(7).requires_grad_(), normal(4, seed=1).requires_grad_()
    both(id_logits, outlier_logits, reduction).backward()

    def value(ids: list, outliers: list) -> float:
        return naive(*naive_losses(ids, outliers), reduction)

    assert_close(id_logits.grad, differences(lambda rows: value(rows, outlier_logits.tolist()), id_logits))
    assert_close(outlier_logits.grad, differences(lambda rows: value(id_logits.tolist(), rows), outlier_logits))
    assert id_logits.grad is not None
    assert outlier_logits.grad is not None
    assert id_logits.grad.max() < 0 < outlier_logits.grad.min()


@each(("reduction", "expected"), [("joint", 1e4), ("sum", 2e4), ("mean", 1e4)])
def test_it_is_finite_for_huge_logits(reduction: Reduction, expected: float) -> None:
    assert both(torch.tensor([1e4]), torch.tensor([-1e4]), reduction).item() == 0
    wrong = torch.tensor([-1e4], requires_grad=True), torch.tensor([1e4], requires_grad=True)
    found = both(*wrong, reduction)
    found.backward()
    assert found.item() == pytest.approx(expected)
    for logits, sign in zip(wrong, (-1, 1), strict=True):
        assert logits.grad is not None
        assert logits.grad.item() == pytest.approx(sign * expected / 2e4)


def test_a_given_share_of_id_rows_takes_the_place_of_the_counts() -> None:
    id_losses, outlier_losses = normal(7), normal(4, seed=1)
    expected = 0.9 * sum(id_losses.tolist()) / 7 + 0.1 * sum(outlier_losses.tolist()) / 4
    assert over_both_sides(id_losses, outlier_losses, "joint", 0.9).item() == pytest.approx(expected, abs=1e-12)


@each("reduction", ["sum", "mean"])
def test_where_both_sides_weigh_the_same_the_share_changes_nothing(reduction: Reduction) -> None:
    id_losses, outlier_losses = normal(7), normal(4, seed=1)
    found = over_both_sides(id_losses, outlier_losses, reduction, 0.9)
    assert torch.equal(found, over_both_sides(id_losses, outlier_losses, reduction))


@each("reduction", REDUCTIONS)
def test_two_devices_with_the_same_outliers_have_the_mean_of_one(reduction: Reduction) -> None:
    id_losses, outlier_losses = normal(6), normal(4, seed=1)
    halves = [over_both_sides(id_losses[first::2], outlier_losses, reduction, 6 / 10) for first in (0, 1)]
    expected = naive(id_losses.tolist(), outlier_losses.tolist(), reduction)
    assert torch.stack(halves).mean().item() == pytest.approx(expected, abs=1e-12)


# The weighted energy.

WEIGHTS = torch.tensor([0.3, -0.7, 1.4, 0.9], dtype=torch.float64)


def test_the_energy_matches_the_loop() -> None:
    logits = 3 * normal(5, 4)
    expected = [naive_energy(row, WEIGHTS.tolist()) for row in logits.tolist()]
    found = weighted_energy(logits, WEIGHTS)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=0)


def test_with_weights_of_1_the_energy_is_the_log_sum_exp() -> None:
    logits = 3 * normal(5, 4)
    found = weighted_energy(logits, torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(found, logits.logsumexp(1), atol=1e-12, rtol=0)


def test_the_energy_trains_logits_and_weights_but_nothing_of_a_class_with_a_negative_weight() -> None:
    logits, weights = normal(5, 4).requires_grad_(), WEIGHTS.clone().requires_grad_()
    (weighted_energy(logits, weights) * torch.arange(1, 6)).sum().backward()

    def naive_sum(rows: list, given: list) -> float:
        return sum((i + 1) * naive_energy(row, given) for i, row in enumerate(rows))

    assert_close(logits.grad, differences(lambda rows: naive_sum(rows, weights.tolist()), logits))
    assert_close(weights.grad, differences(lambda given: naive_sum(logits.tolist(), given), weights))
    assert logits.grad is not None
    assert weights.grad is not None
    assert logits.grad[:, 1].abs().max() < 1e-12
    assert weights.grad[1] == 0


@each("scale", [1e4, -1e4])
def test_the_energy_of_huge_logits_is_finite(scale: float) -> None:
    logits, weights = torch.full((1, 4), scale, dtype=torch.float64).requires_grad_(), WEIGHTS.clone().requires_grad_()
    found = weighted_energy(logits, weights)
    found.sum().backward()
    assert found.item() == pytest.approx(scale + math.log(0.3 + 1.4 + 0.9), abs=1e-9)
    for values in (logits, weights):
        assert values.grad is not None
        assert values.grad.isfinite().all()


def test_a_huge_logit_of_a_class_with_a_negative_weight_counts_nothing() -> None:
    logits, weights = torch.tensor([[1e4, 2.0]], dtype=torch.float64), torch.tensor([-1.0, 1.0], dtype=torch.float64)
    assert weighted_energy(logits, weights).item() == pytest.approx(2, abs=1e-12)

"""Telling ID rows from outliers by their energy: values against loops, what is trained, and two devices."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ood_lab.outlier_loss.energy_logistic import EnergyLogistic
from ood_lab.parts import Dimensions, Rows, View
from tests.cases import each
from tests.views import assert_close, assert_reads_exactly, differences, dot, log_softmax, normal

C, ROWS, K = 3, 6, 4
LABELS = torch.zeros(ROWS, dtype=torch.int64)
KINDS = [("weighted", 0), ("weighted", 5), ("plain", 0), ("plain", 5)]
REDUCTIONS = ["joint", "sum", "mean"]


def energy_logistic(
    energy: Any = "weighted", hidden: int = 0, reduction: Any = "joint", **schedule: Any
) -> EnergyLogistic:
    """In float64; with one class whose weight is negative."""
    torch.manual_seed(0)
    term = EnergyLogistic(Dimensions(C, 8, 5), energy=energy, hidden=hidden, reduction=reduction, **schedule)
    if energy == "weighted":
        with torch.no_grad():
            term.get_parameter("class_weights")[1] = -0.4
    return term.double()


def view(logits: Tensor, outliers: Tensor, id_share: float | None = None) -> View:
    return View(id=Rows(logits=logits), labels=LABELS, kept={}, outliers=Rows(logits=outliers), id_share=id_share)


def state(term: EnergyLogistic) -> dict[str, list]:
    return {name: values.tolist() for name, values in term.named_parameters()}


def naive(logits: list, outliers: list, given: dict[str, list], reduction: str) -> float:
    """Cross-entropy of phi(E) with class 1 for ID rows and class 0 for outliers."""
    weights = given.get("class_weights", [1.0] * C)

    def outputs(row: list) -> list[float]:
        energy = math.log(sum(max(w, 0.0) * math.exp(x) for w, x in zip(weights, row, strict=True)))
        if "phi.weight" in given:
            return [w * energy + b for (w,), b in zip(given["phi.weight"], given["phi.bias"], strict=True)]
        inner = [max(w * energy + b, 0.0) for (w,), b in zip(given["phi.0.weight"], given["phi.0.bias"], strict=True)]
        return [dot(w, inner) + b for w, b in zip(given["phi.2.weight"], given["phi.2.bias"], strict=True)]

    of_id = [-log_softmax(outputs(row))[1] for row in logits]
    of_outliers = [-log_softmax(outputs(row))[0] for row in outliers]
    if reduction == "joint":
        return sum(of_id + of_outliers) / (len(of_id) + len(of_outliers))
    total = sum(of_id) / len(of_id) + sum(of_outliers) / len(of_outliers)
    return total if reduction == "sum" else total / 2


@each("reduction", REDUCTIONS)
@each(("energy", "hidden"), KINDS)
@each(("rows", "outliers"), [(6, 4), (1, 1), (2, 9)])
def test_it_matches_the_loop(rows: int, outliers: int, energy: str, hidden: int, reduction: str) -> None:
    term, logits, others = energy_logistic(energy, hidden, reduction), 2 * normal(rows, C), normal(outliers, C, seed=1)
    expected = naive(logits.tolist(), others.tolist(), state(term), reduction)
    assert term.loss(view(logits, others)).item() == pytest.approx(expected, abs=1e-10)


@each("reduction", REDUCTIONS)
@each(("energy", "hidden"), KINDS)
def test_it_trains_both_sides_and_all_that_it_owns(energy: str, hidden: int, reduction: str) -> None:
    term = energy_logistic(energy, hidden, reduction)
    logits, others = normal(ROWS, C).requires_grad_(), normal(K, C, seed=1).requires_grad_()
    term.loss(view(logits, others)).backward()
    given = state(term)
    assert_close(logits.grad, differences(lambda x: naive(x, others.tolist(), given, reduction), logits))
    assert_close(others.grad, differences(lambda x: naive(logits.tolist(), x, given, reduction), others))

    def of(name: str) -> Callable[[list], float]:
        return lambda x: naive(logits.tolist(), others.tolist(), given | {name: x}, reduction)

    for name, parameter in term.named_parameters():
        assert_close(parameter.grad, differences(of(name), parameter))


@each(("energy", "hidden"), KINDS)
def test_of_a_head_with_one_output_more_the_classes_alone_count_and_are_trained(energy: str, hidden: int) -> None:
    term, given = energy_logistic(energy, hidden), state(energy_logistic(energy, hidden))
    outputs, others = normal(ROWS, C + 1).requires_grad_(), normal(K, C + 1, seed=1).requires_grad_()
    sides = [Rows(logits=rows).of_classes(C) for rows in (outputs, others)]
    found = term.loss(View(id=sides[0], labels=LABELS, kept={}, outliers=sides[1]).of(term))

    def of_classes(logits: list, outliers: list) -> float:
        return naive([row[:C] for row in logits], [row[:C] for row in outliers], given, "joint")

    assert found.item() == pytest.approx(of_classes(outputs.tolist(), others.tolist()), abs=1e-10)
    found.backward()
    assert_close(outputs.grad, differences(lambda x: of_classes(x, others.tolist()), outputs))
    assert_close(others.grad, differences(lambda x: of_classes(outputs.tolist(), x), others))
    assert outputs.grad[:, C].abs().sum() == others.grad[:, C].abs().sum() == 0


@each("reduction", REDUCTIONS)
@each(("energy", "hidden"), KINDS)
def test_two_devices_with_the_same_outliers_have_the_mean_of_one(energy: str, hidden: int, reduction: str) -> None:
    term, logits, others = energy_logistic(energy, hidden, reduction), 2 * normal(ROWS, C), normal(K, C, seed=1)
    share = ROWS / (ROWS + K)
    halves = [term.loss(view(logits[first::2], others, share)) for first in (0, 1)]
    expected = naive(logits.tolist(), others.tolist(), state(term), reduction)
    assert sum(half.item() for half in halves) / 2 == pytest.approx(expected, abs=1e-12)


@each(("energy", "hidden"), KINDS)
@each("scale", [1e4, -1e4])
def test_it_is_finite_for_huge_logits(scale: float, energy: str, hidden: int) -> None:
    term = energy_logistic(energy, hidden)
    logits, others = (scale * normal(ROWS, C).abs()).requires_grad_(), (-scale * normal(K, C, seed=1).abs())
    if energy == "weighted":
        with torch.no_grad():
            term.get_parameter("class_weights").abs_()
    found = term.loss(view(logits, others))
    found.backward()
    assert found.isfinite()
    for values in (logits, *term.parameters()):
        assert values.grad is not None
        assert values.grad.isfinite().all()


def test_descent_tells_high_energies_from_low_ones() -> None:
    term, logits, others = energy_logistic(), 3 + normal(20, C), -3 + normal(20, C, seed=1)
    optimizer = torch.optim.Adam(term.parameters(), lr=0.1)
    before = term.loss(view(logits, others)).item()
    for _ in range(100):
        optimizer.zero_grad()
        term.loss(view(logits, others)).backward()
        optimizer.step()
    assert term.loss(view(logits, others)).item() < 0.05 < before
    assert term.loss(view(others, logits)).item() > 3


def test_the_plain_energy_does_not_depend_on_the_names_of_classes_and_the_weighted_one_does() -> None:
    logits, others, order = normal(ROWS, C), normal(K, C, seed=1), [2, 0, 1]
    found = [
        (t.loss(view(logits, others)), t.loss(view(logits[:, order], others[:, order])))
        for t in map(energy_logistic, ("plain", "weighted"))
    ]
    torch.testing.assert_close(*found[0], atol=1e-12, rtol=0)
    assert (found[1][0] - found[1][1]).abs() > 1e-4


def test_it_reads_logits_of_both_sides_alone() -> None:
    term = energy_logistic(weight=3.0)
    term.name = "energy_logistic"
    assert_reads_exactly(term, LABELS, {"logits": normal(ROWS, C)}, {"logits": normal(K, C, seed=1)}, {})
    assert term.keeps() == {}
    assert (EnergyLogistic.views, term.weights()) == (1, {"energy_logistic": 3.0})


def test_it_owns_phi_and_in_the_weighted_form_a_weight_for_each_class() -> None:
    linear = {"phi.weight": (2, 1), "phi.bias": (2,)}
    network = {"phi.0.weight": (7, 1), "phi.0.bias": (7,), "phi.2.weight": (2, 7), "phi.2.bias": (2,)}
    for hidden, phi in ((0, linear), (7, network)):
        for energy, own in (("plain", {}), ("weighted", {"class_weights": (C,)})):
            shapes = {name: tuple(p.shape) for name, p in energy_logistic(energy, hidden).named_parameters()}
            assert shapes == own | phi


def test_weights_of_classes_begin_between_0_and_1() -> None:
    torch.manual_seed(0)
    term = EnergyLogistic(Dimensions(1000, 8, 5), energy="weighted", hidden=0, reduction="joint")
    weights = term.get_parameter("class_weights")
    assert 0 <= weights.min() < 0.01
    assert 0.99 < weights.max() <= 1
    assert weights.mean().item() == pytest.approx(0.5, abs=0.05)


@each("hidden", [0, 5])
def test_a_rising_phi_is_the_free_one_with_weights_by_absolute_value(hidden: int) -> None:
    """The first output, outlier, falls with the log-sum-exp, the second rises."""
    rising = energy_logistic("plain", hidden, slope="rising")
    logits, outliers = normal(ROWS, C), normal(K, C)
    given = state(rising)
    assert any(w < 0 for name, values in given.items() if "weight" in name for row in values for w in row)
    last = [[sign * abs(w) for w in row] for sign, row in zip((-1, 1), given["phi.outputs.weight"], strict=True)]
    free = {"phi.weight": last, "phi.bias": given["phi.outputs.bias"]}
    if hidden:
        free = {
            "phi.0.weight": [[abs(w) for w in row] for row in given["phi.hidden.weight"]],
            "phi.0.bias": given["phi.hidden.bias"], "phi.2.weight": last, "phi.2.bias": given["phi.outputs.bias"],
        }  # fmt: skip
    found = float(rising.loss(view(logits, outliers, ROWS / (ROWS + K))).detach())
    assert found == pytest.approx(naive(logits.tolist(), outliers.tolist(), free, "joint"), rel=1e-12)


@each("hidden", [0, 5, 512])
def test_a_higher_log_sum_exp_is_never_less_id_for_a_rising_phi(hidden: int) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        term = EnergyLogistic(
            Dimensions(C, 8, 5), energy="plain", hidden=hidden, reduction="joint", slope="rising"
        ).double()
        outlier, of_id = term.phi(torch.linspace(-20, 20, 101, dtype=torch.float64)[:, None]).T
        assert (of_id - outlier).diff().min() >= 0
        assert term.phi_slope() > 0
        assert term.remark() == ""


@each("hidden", [0, 5])
def test_a_phi_that_runs_the_wrong_way_is_said(hidden: int) -> None:
    term = energy_logistic("plain", hidden)
    last = term.phi if hidden == 0 else term.get_submodule("phi.2")
    outlier, of_id = term.phi(torch.tensor([[-10.0], [10.0]], dtype=torch.float64)).T
    low, high = (of_id - outlier).tolist()
    assert term.phi_slope() == pytest.approx((high - low) / 20)
    weight = last.get_parameter("weight")
    with torch.no_grad():
        if term.phi_slope() > 0:
            weight.copy_(weight.flip(0))
    assert term.phi_slope() < 0
    assert "outlier_loss.slope=rising prevents it" in term.remark()
    with torch.no_grad():
        weight.copy_(weight.flip(0))
    assert term.remark() == ""


@each("hidden", [0, 512])
def test_a_rising_phi_begins_about_as_steep_whatever_its_hidden_units(hidden: int) -> None:
    """Sums of absolute values would grow with them: 11 at 512 units."""
    slopes = []
    for seed in range(10):
        torch.manual_seed(seed)
        term = EnergyLogistic(Dimensions(C, 8, 5), energy="plain", hidden=hidden, reduction="joint", slope="rising")
        slopes.append(term.phi_slope())
    assert 0.2 < sum(slopes) / len(slopes) < 2

"""Telling ID rows from outliers by the energy of the head: against loops, and the term with weights of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ood_lab.head.weighted_energy import WeightedEnergy
from ood_lab.outlier_loss.energy_logistic import EnergyLogistic
from ood_lab.outlier_loss.weighted_energy_logistic import WeightedEnergyLogistic
from ood_lab.parts import Dimensions, Rows, View
from tests.cases import each
from tests.views import assert_close, assert_reads_exactly, differences, dot, log_softmax, normal

C, ROWS, K = 3, 6, 4
LABELS = torch.zeros(ROWS, dtype=torch.int64)
REDUCTIONS = ["joint", "sum", "mean"]
HIDDEN = [0, 5]


def logistic(hidden: int = 0, reduction: Any = "joint", **schedule: Any) -> WeightedEnergyLogistic:
    torch.manual_seed(0)
    return WeightedEnergyLogistic(Dimensions(C, 8, 5), hidden=hidden, reduction=reduction, **schedule).double()


def view(of_id: Tensor, of_outliers: Tensor, id_share: float | None = None) -> View:
    rows, others = Rows(energy=of_id), Rows(energy=of_outliers)
    return View(id=rows, labels=LABELS, kept={}, outliers=others, id_share=id_share)


def given(rows: int = ROWS, outliers: int = K) -> tuple[Tensor, Tensor]:
    return 2 * normal(rows, 1) - 3, normal(outliers, 1, seed=1) - 1


def state(term: WeightedEnergyLogistic) -> dict[str, list]:
    return {name: values.tolist() for name, values in term.named_parameters()}


def naive(of_id: list, of_outliers: list, owned: dict[str, list], reduction: str) -> float:
    """Cross-entropy of phi(-E) with class 1 for ID rows and class 0 for outliers."""

    def outputs(energy: float) -> list[float]:
        x = -energy
        if "phi.weight" in owned:
            return [w * x + b for (w,), b in zip(owned["phi.weight"], owned["phi.bias"], strict=True)]
        inner = [max(w * x + b, 0.0) for (w,), b in zip(owned["phi.0.weight"], owned["phi.0.bias"], strict=True)]
        return [dot(w, inner) + b for w, b in zip(owned["phi.2.weight"], owned["phi.2.bias"], strict=True)]

    ours, others = ([-log_softmax(outputs(e))[c] for (e,) in rows] for c, rows in ((1, of_id), (0, of_outliers)))
    if reduction == "joint":
        return sum(ours + others) / (len(ours) + len(others))
    total = sum(ours) / len(ours) + sum(others) / len(others)
    return total if reduction == "sum" else total / 2


@each("reduction", REDUCTIONS)
@each("hidden", HIDDEN)
@each(("rows", "outliers"), [(6, 4), (1, 1), (2, 9)])
def test_it_matches_the_loop(rows: int, outliers: int, hidden: int, reduction: str) -> None:
    term, (of_id, of_outliers) = logistic(hidden, reduction), given(rows, outliers)
    expected = naive(of_id.tolist(), of_outliers.tolist(), state(term), reduction)
    assert term.loss(view(of_id, of_outliers)).item() == pytest.approx(expected, abs=1e-10)


@each("reduction", REDUCTIONS)
@each("hidden", HIDDEN)
def test_it_trains_both_sides_and_all_that_it_owns(hidden: int, reduction: str) -> None:
    term, (of_id, of_outliers) = logistic(hidden, reduction), (x.requires_grad_() for x in given())
    term.loss(view(of_id, of_outliers)).backward()
    ours, others, owned = of_id.tolist(), of_outliers.tolist(), state(term)
    assert_close(of_id.grad, differences(lambda x: naive(x, others, owned, reduction), of_id))
    assert_close(of_outliers.grad, differences(lambda x: naive(ours, x, owned, reduction), of_outliers))

    def of(name: str) -> Callable[[list], float]:
        return lambda x: naive(ours, others, owned | {name: x}, reduction)

    for name, parameter in term.named_parameters():
        assert_close(parameter.grad, differences(of(name), parameter))


@each("reduction", REDUCTIONS)
@each("hidden", HIDDEN)
def test_with_the_weights_of_the_head_it_is_vos_with_weights_of_its_own(hidden: int, reduction: Any) -> None:
    torch.manual_seed(1)
    head = WeightedEnergy(8, False, C, projection_dim=4)
    vos = EnergyLogistic(Dimensions(C, 8, 5), energy="weighted", hidden=hidden, reduction=reduction).double()
    term = logistic(hidden, reduction)
    vos.load_state_dict(term.state_dict() | {"class_weights": head.class_weights.detach().double()})
    logits, others = normal(ROWS, C), normal(K, C, seed=1)
    found = term.loss(view(*(head.trained(x, x)["energy"].double() for x in (logits, others))))
    rows = View(id=Rows(logits=logits), labels=LABELS, kept={}, outliers=Rows(logits=others))
    torch.testing.assert_close(found, vos.loss(rows), atol=1e-6, rtol=0)


@each("reduction", REDUCTIONS)
@each("hidden", HIDDEN)
def test_two_devices_with_the_same_outliers_have_the_mean_of_one(hidden: int, reduction: str) -> None:
    term, (of_id, of_outliers) = logistic(hidden, reduction), given()
    halves = [term.loss(view(of_id[first::2], of_outliers, ROWS / (ROWS + K))) for first in (0, 1)]
    expected = naive(of_id.tolist(), of_outliers.tolist(), state(term), reduction)
    assert sum(half.item() for half in halves) / 2 == pytest.approx(expected, abs=1e-12)


def test_descent_of_the_energies_lowers_those_of_id_rows() -> None:
    term = logistic()
    with torch.no_grad():
        term.phi.weight.copy_(torch.tensor([[-1.0], [1.0]]))
    of_id, of_outliers = (x.requires_grad_() for x in given())
    term.loss(view(of_id, of_outliers)).backward()
    assert (of_id.grad > 0).all()
    assert (of_outliers.grad < 0).all()


def test_it_reads_energies_of_both_sides_alone_and_owns_phi() -> None:
    of_id, of_outliers = given()
    assert_reads_exactly(logistic(), LABELS, {"energy": of_id}, {"energy": of_outliers}, {})
    term = logistic(weight=0.1)
    term.name = "weighted_energy_logistic"
    assert (term.keeps(), term.weights(), term.views) == ({}, {"weighted_energy_logistic": 0.1}, 1)
    linear = {"phi.weight": (2, 1), "phi.bias": (2,)}
    network = {"phi.0.weight": (7, 1), "phi.0.bias": (7,), "phi.2.weight": (2, 7), "phi.2.bias": (2,)}
    for hidden, phi in ((0, linear), (7, network)):
        assert {name: tuple(p.shape) for name, p in logistic(hidden).named_parameters()} == phi

"""The linear head with an energy of learned class weights: values, gradients, and who trains the weights."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ood_lab.head.linear import Linear
from ood_lab.head.weighted_energy import WeightedEnergy
from ood_lab.parts import Rows
from tests.cases import each
from tests.views import differences, normal

WIDTH, C, ROWS = 6, 4, 5


def head(weights: Any = "learned", projects: bool = False, classes: int = C) -> WeightedEnergy:
    torch.manual_seed(0)
    return WeightedEnergy(WIDTH, projects, classes, weights=weights, projection_dim=3)


def with_weights(*weights: float) -> WeightedEnergy:
    made = head()
    with torch.no_grad():
        made.class_weights.copy_(torch.tensor(weights))
    return made


def naive(logits: list, weights: list) -> list[list[float]]:
    """Eq. 12 with the class index of f, and ReLU of the weights."""
    return [[-math.log(sum(max(w, 0.0) * math.exp(x) for w, x in zip(weights, row, strict=True)))] for row in logits]


@each("weights", [(1.0, 1.0, 1.0, 1.0), (0.5, 2.0, 0.01, 7.0), (0.3, -0.4, 0.0, 0.9), (0.0, 0.0, 0.2, -1.0)])
def test_the_energy_is_minus_the_log_of_the_weighted_sum(weights: tuple[float, ...]) -> None:
    logits = 2 * normal(ROWS, C)
    made = with_weights(*weights)
    expected = torch.tensor(naive(logits.float().tolist(), made.class_weights.tolist()))
    for seen in (made.trained, made.tested):
        found = seen(normal(ROWS, WIDTH), logits)
        assert (
            set(found) == {"logits", "energy"} == {"logits", *WeightedEnergy.adds} == {"logits", *WeightedEnergy.gives}
        )
        assert torch.equal(found["logits"], logits)
        assert found["energy"].dtype == torch.float32
        torch.testing.assert_close(found["energy"], expected, atol=2e-6, rtol=0)


def test_without_weights_it_is_the_plain_energy_and_nothing_more_is_learned() -> None:
    made, logits = head("none"), 2 * normal(ROWS, C)
    expected = torch.tensor(naive(logits.tolist(), [1.0] * C))
    torch.testing.assert_close(made.energy(logits), expected, atol=2e-6, rtol=0)
    assert list(made.parameters()) == []


def test_gradients_of_logits_and_weights_are_those_of_the_loop() -> None:
    made = with_weights(0.5, 2.0, 0.4, -0.3)
    logits, pulls = normal(ROWS, C).requires_grad_(), normal(ROWS, 1, seed=2)
    (made.energy(logits) * pulls).sum().backward()

    def pulled(rows: list, weights: list) -> float:
        return sum(p * e for (p,), (e,) in zip(pulls.tolist(), naive(rows, weights), strict=True))

    weights = made.class_weights.detach().double()
    for got, want in (
        (logits.grad, differences(lambda x: pulled(x, weights.tolist()), logits)),
        (made.class_weights.grad, differences(lambda x: pulled(logits.tolist(), x), weights)),
    ):
        assert got.abs().max() > 1e-2
        torch.testing.assert_close(got.double(), want, atol=2e-5, rtol=0)
    assert made.class_weights.grad[3] == 0


@each("scale", [1e4, -1e4])
@each("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_huge_logits_and_reduced_precision_give_finite_energies_in_float32(dtype: torch.dtype, scale: float) -> None:
    made, logits = with_weights(0.5, 0.2, 0.0, 0.9), (scale * normal(ROWS, C)).to(dtype).requires_grad_()
    found = made.energy(logits)
    found.sum().backward()
    assert found.dtype == torch.float32
    assert found.shape == (ROWS, 1)
    for values in (found, logits.grad, made.class_weights.grad):
        assert values.isfinite().all()
    expected = [[-max(row[c] + math.log(w) for c, w in ((0, 0.5), (1, 0.2), (3, 0.9)))] for row in logits.tolist()]
    torch.testing.assert_close(found, torch.tensor(expected), atol=0.1, rtol=1e-3)


def test_weights_begin_between_0_and_1_by_the_seed() -> None:
    weights = head(classes=2000).class_weights
    assert weights.shape == (2000,)
    assert 0 <= weights.min() < 0.01
    assert 0.99 < weights.max() <= 1
    assert weights.mean().item() == pytest.approx(0.5, abs=0.05)
    assert torch.equal(weights, head(classes=2000).class_weights)


def test_the_weights_are_trained_by_terms_that_read_the_energy_and_by_nothing_else() -> None:
    made = head(projects=True)
    owners = {name: made.owner(name) for name, _ in made.named_parameters()}
    assert owners.pop("class_weights") == "energy"
    assert owners
    assert set(owners.values()) == {"z"}
    assert WeightedEnergy.trained_through == (("energy", "energy"),)
    (found,) = torch.autograd.grad(
        made.trained(normal(ROWS, WIDTH), normal(ROWS, C))["energy"].sum(), [made.class_weights]
    )
    assert found.abs().min() > 0


def test_in_all_else_it_is_the_linear_head() -> None:
    made = head(projects=True)
    torch.manual_seed(0)
    linear = Linear(WIDTH, True, projection_dim=3)
    features = normal(ROWS, WIDTH).float()
    assert torch.equal(made.project(features), linear.project(features))
    outputs = normal(ROWS, C)
    assert torch.equal(made.outputs(features, outputs), outputs)
    assert torch.equal(made.class_logits(outputs), outputs)
    weights: dict[str, Tensor] = {"backbone.fc.weight": normal(C, WIDTH), "backbone.fc.bias": normal(C)}
    assert torch.equal(made.classifier(weights).weight, weights["backbone.fc.weight"])
    assert torch.equal(made.classifier(weights).bias, weights["backbone.fc.bias"])


def test_terms_read_the_energy_by_its_name() -> None:
    rows = Rows(**head().trained(normal(ROWS, WIDTH), normal(ROWS, C)))
    assert rows.energy.shape == (ROWS, 1)
    assert rows.only(("energy",), "a term").energy is rows.energy

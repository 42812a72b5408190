"""The contrastive loss of energies against loops, what is trained, and what it reads."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ood_lab.outlier_loss.nce import NCE
from ood_lab.parts import Dimensions
from tests.cases import each
from tests.energies import view
from tests.views import assert_close, assert_reads_exactly, differences, normal, normalise, supcon

ROWS, K = 6, 4
LABELS = torch.zeros(ROWS, dtype=torch.int64)


def nce(temperature: float = 0.5, **schedule: Any) -> NCE:
    torch.manual_seed(0)
    return NCE(Dimensions(3, 8, 5), temperature=temperature, **schedule).double()


def given(rows: int = ROWS, outliers: int = K) -> tuple[Tensor, Tensor]:
    return 2 * normal(rows, 1) - 3, normal(outliers, 1, seed=1) - 1


def naive(of_id: list, of_outliers: list, weight: list, bias: list, temperature: float = 0.5) -> float:
    """Two groups of unit vectors in the plane: every row against the others of its side."""
    rows = [normalise([w * x + b for (w,), b in zip(weight, bias, strict=True)]) for (x,) in [*of_id, *of_outliers]]
    return supcon(rows, [0] * len(of_id) + [1] * len(of_outliers), temperature)


def of_phi(term: NCE) -> tuple[list, list]:
    return term.phi.weight.tolist(), term.phi.bias.tolist()


@each("temperature", [0.1, 0.5, 2.0])
@each(("rows", "outliers"), [(6, 4), (1, 1), (1, 5), (9, 2)])
def test_it_matches_the_loop(rows: int, outliers: int, temperature: float) -> None:
    term, (of_id, of_outliers) = nce(temperature), given(rows, outliers)
    expected = naive(of_id.tolist(), of_outliers.tolist(), *of_phi(term), temperature)
    assert term.loss(view(of_id, of_outliers)).item() == pytest.approx(expected, abs=1e-10)


def test_it_trains_both_sides_and_its_layer() -> None:
    term, (of_id, of_outliers) = nce(), (x.requires_grad_() for x in given())
    term.loss(view(of_id, of_outliers)).backward()
    weight, bias = of_phi(term)
    ours, others = of_id.tolist(), of_outliers.tolist()
    assert_close(of_id.grad, differences(lambda x: naive(x, others, weight, bias), of_id))
    assert_close(of_outliers.grad, differences(lambda x: naive(ours, x, weight, bias), of_outliers))
    assert_close(term.phi.weight.grad, differences(lambda x: naive(ours, others, x, bias), term.phi.weight))
    assert_close(term.phi.bias.grad, differences(lambda x: naive(ours, others, weight, x), term.phi.bias))


def test_descent_of_the_energies_pulls_each_side_together_and_both_apart() -> None:
    term, (of_id, of_outliers) = nce(), (x.requires_grad_() for x in given(20, 20))
    optimizer = torch.optim.Adam([of_id, of_outliers, *term.parameters()], lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        loss = term.loss(view(of_id, of_outliers))
        loss.backward()
        optimizer.step()
    # Each row has 19 like it at cosine 1, and 20 unlike it at cosine -1.
    least = math.log(19 + 20 * math.exp(-2 / 0.5))
    assert loss.item() == pytest.approx(least, abs=0.1)


def test_every_device_has_the_loss_of_all_rows() -> None:
    term, rows = nce(), given()
    alone = term.loss(view(*rows))
    for rank in range(2):
        assert torch.equal(term.loss(view(*rows, slice(rank, None, 2))), alone)


def test_it_reads_energies_alone_and_owns_a_layer_with_two_outputs() -> None:
    of_id, of_outliers = given()
    assert_reads_exactly(nce(), LABELS, {"energy": of_id}, {"energy": of_outliers}, {})
    term = nce(weight=0.1)
    term.name = "nce"
    assert (term.keeps(), term.weights(), term.views) == ({}, {"nce": 0.1}, 1)
    assert {name: tuple(p.shape) for name, p in term.named_parameters()} == {"phi.weight": (2, 1), "phi.bias": (2,)}

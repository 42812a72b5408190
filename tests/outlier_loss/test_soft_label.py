"""Cross-entropy with soft labels as a term: values, gradients, and that all outputs count."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ood_lab.outlier_loss.soft_label import SoftLabel
from ood_lab.parts import Dimensions, Rows, View
from tests.cases import each
from tests.views import assert_close, assert_reads_exactly, differences, dot, log_softmax, normal

C, K = 3, 5
LABELS = torch.zeros(2, dtype=torch.int64)


def shares(rows: int, outputs: int, seed: int = 7) -> Tensor:
    return normal(rows, outputs, seed=seed).softmax(1)


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    term = SoftLabel(Dimensions(C, 8, 5))
    outliers = Rows(logits=logits, targets=targets).of_classes(C)
    return term.loss(View(id=Rows(), labels=LABELS, kept={}, outliers=outliers).of(term))


def naive(logits: list, targets: list) -> float:
    return sum(-dot(t, log_softmax(row)) for row, t in zip(logits, targets, strict=True)) / len(logits)


@each("outputs", [C, C + 1])
@each("rows", [1, K])
def test_it_matches_the_loop_over_all_outputs(rows: int, outputs: int) -> None:
    logits, targets = 2 * normal(rows, outputs), shares(rows, outputs)
    assert loss(logits, targets).item() == pytest.approx(naive(logits.tolist(), targets.tolist()), abs=1e-10)


@each("outputs", [C, C + 1])
def test_it_trains_all_outputs(outputs: int) -> None:
    logits, targets = normal(K, outputs).requires_grad_(), shares(K, outputs)
    loss(logits, targets).backward()
    assert_close(logits.grad, differences(lambda x: naive(x, targets.tolist()), logits))
    assert logits.grad[:, -1].abs().min() > 1e-4


def test_it_is_least_where_the_prediction_is_the_target() -> None:
    targets = shares(K, C + 1)
    entropy = -(targets * targets.log()).sum(1).mean().item()
    assert loss(targets.log() + 3, targets).item() == pytest.approx(entropy, abs=1e-12)
    assert loss(normal(K, C + 1), targets).item() > entropy


def test_of_one_label_it_is_cross_entropy_and_of_uniform_ones_that_to_the_uniform_distribution() -> None:
    logits, rows = normal(K, C), range(K)
    labels = [2, 0, 1, 1, 0]
    expected = sum(-log_softmax(logits[i].tolist())[labels[i]] for i in rows) / K
    assert loss(logits, torch.eye(C, dtype=torch.float64)[labels]).item() == pytest.approx(expected, abs=1e-12)
    expected = sum(-sum(log_softmax(logits[i].tolist())) / C for i in rows) / K
    assert loss(logits, torch.full((K, C), 1 / C, dtype=torch.float64)).item() == pytest.approx(expected, abs=1e-12)


def test_it_is_exact_for_huge_logits() -> None:
    found = loss(torch.tensor([[3e4, 0.0, 0.0]]), torch.tensor([[0.5, 0.25, 0.25]]))
    assert found.item() == pytest.approx(1.5e4)
    assert math.isfinite(loss(torch.tensor([[-3e4, 0.0, 0.0]]), torch.tensor([[0.0, 0.5, 0.5]])).item())


def test_it_reads_logits_and_targets_of_outliers_alone() -> None:
    term = SoftLabel(Dimensions(C, 8, 5))
    assert_reads_exactly(term, LABELS, {}, {"logits": normal(K, C), "targets": shares(K, C)}, {})
    term.name = "soft_label"
    assert (SoftLabel.reads, term.keeps(), term.weights()) == ((), {}, {"soft_label": 1.0})

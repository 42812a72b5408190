"""Outlier Exposure as a term: value against a loop, gradient against finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ood_lab.outlier_loss.outlier_exposure import OutlierExposure
from ood_lab.parts import Dimensions, Rows, View
from tests.cases import each
from tests.views import assert_close, assert_reads_exactly, differences, log_softmax, normal

LABELS = torch.zeros(2, dtype=torch.int64)


def exposure() -> OutlierExposure:
    return OutlierExposure(Dimensions(4, 8, 5))


def loss(logits: Tensor) -> Tensor:
    return exposure().loss(View(id=Rows(), labels=LABELS, kept={}, outliers=Rows(logits=logits)))


def naive(logits: list) -> float:
    """Cross-entropy to the uniform distribution."""
    return sum(-sum(log_softmax(row)) / len(row) for row in logits) / len(logits)


@each("classes", [2, 4, 11])
def test_it_matches_the_loop(classes: int) -> None:
    logits = 2 * normal(6, classes)
    assert float(loss(logits)) == pytest.approx(naive(logits.tolist()), abs=1e-10)


def test_it_trains_the_outliers_logits() -> None:
    logits = normal(6, 4).requires_grad_()
    loss(logits).backward()
    assert_close(logits.grad, differences(naive, logits))


def test_of_a_head_with_one_output_more_the_classes_alone_count_and_are_trained() -> None:
    outputs, term = normal(6, 5).requires_grad_(), exposure()
    view = View(id=Rows(), labels=LABELS, kept={}, outliers=Rows(logits=outputs).of_classes(4))
    found = term.loss(view.of(term))
    assert found.item() == pytest.approx(naive([row[:4] for row in outputs.tolist()]), abs=1e-10)
    found.backward()
    assert_close(outputs.grad, differences(lambda x: naive([row[:4] for row in x]), outputs))
    assert outputs.grad[:, 4].tolist() == [0.0] * 6


def test_it_is_least_and_log_c_where_all_classes_are_alike_and_blind_to_a_shift() -> None:
    assert float(loss(torch.full((3, 10), 7.0))) == pytest.approx(math.log(10), abs=1e-5)
    logits = normal(3, 10)
    assert float(loss(logits)) > math.log(10)
    torch.testing.assert_close(loss(logits + 5), loss(logits))


def test_it_is_exact_for_huge_logits() -> None:
    assert float(loss(torch.tensor([[3e4, 0.0, 0.0]]))) == pytest.approx(2e4)


def test_it_reads_the_logits_of_outliers_alone() -> None:
    assert_reads_exactly(exposure(), LABELS, {}, {"logits": normal(6, 4)}, {})
    assert (OutlierExposure.reads, exposure().keeps()) == ((), {})

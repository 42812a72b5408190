"""Cross-entropy of outliers with a class of their own as a term: values, gradients, and what it reads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ood_lab.head.absent_class import AbsentClass as Head
from ood_lab.outlier_loss.absent_class import AbsentClass
from ood_lab.parts import Dimensions, Rows, View
from tests.cases import each
from tests.views import assert_close, assert_reads_exactly, differences, log_softmax, normal

C = 3
LABELS = torch.zeros(2, dtype=torch.int64)


def term() -> AbsentClass:
    return AbsentClass(Dimensions(C, 8, 5))


def outlier_rows(outputs: Tensor) -> Rows:
    """As the head gives them to terms."""
    given = Head(8, False, projection_dim=4).trained(normal(len(outputs), 8), outputs)
    return Rows(**given).of_classes(C)


def loss(outputs: Tensor) -> Tensor:
    made = term()
    view = View(id=Rows(logits=normal(2, C + 1, seed=9)), labels=LABELS, kept={}, outliers=outlier_rows(outputs))
    return made.loss(view.of(made))


def naive(outputs: list) -> float:
    return sum(-log_softmax(row)[C] for row in outputs) / len(outputs)


@each("rows", [1, 6])
def test_it_matches_the_loop_over_all_outputs(rows: int) -> None:
    outputs = 2 * normal(rows, C + 1)
    assert loss(outputs).item() == pytest.approx(naive(outputs.tolist()), abs=1e-10)


def test_it_trains_all_outputs_of_the_outliers() -> None:
    outputs = normal(5, C + 1).requires_grad_()
    loss(outputs).backward()
    assert_close(outputs.grad, differences(naive, outputs))


def test_descent_makes_the_last_output_the_largest() -> None:
    outputs = torch.tensor([[4.0, 0.0, 0.0, -4.0], [0.0, 2.0, 2.0, 0.0]]).requires_grad_()
    for _ in range(200):
        (slope,) = torch.autograd.grad(loss(outputs), outputs)
        outputs = (outputs - slope).detach().requires_grad_()
    assert loss(outputs).item() < 0.1
    assert outputs.argmax(1).tolist() == [C, C]


def test_it_reads_the_outputs_of_outliers_alone() -> None:
    outputs = normal(6, C + 1)
    made = term()
    assert_reads_exactly(made, LABELS, {}, {"logits": outputs, "absent": outputs[:, -1:]}, {})
    made.name = "absent_class"
    assert (AbsentClass.reads, made.keeps(), made.weights()) == ((), {}, {"absent_class": 1.0})

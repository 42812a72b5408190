"""Outliers as a class of their own: cross-entropy with the last class, and the odds of it, against loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ood_lab.loss.absent_class import absent_class, absent_log_odds
from tests.cases import each
from tests.views import assert_close, differences, log_softmax, normal


def loss(outputs: Tensor) -> Tensor:
    return absent_class(outputs, outputs[:, -1:])


def odds(outputs: Tensor) -> Tensor:
    return absent_log_odds(outputs[:, :-1], outputs[:, -1:])


def naive(outputs: list) -> float:
    return sum(-log_softmax(row)[-1] for row in outputs) / len(outputs)


def share(row: list[float]) -> float:
    """p(K + 1)."""
    return math.exp(row[-1]) / sum(math.exp(x) for x in row)


@each("outputs", [2, 4, 11])
@each("rows", [1, 6])
def test_it_is_the_cross_entropy_with_the_last_class(rows: int, outputs: int) -> None:
    given = 2 * normal(rows, outputs)
    assert loss(given).item() == pytest.approx(naive(given.tolist()), abs=1e-12)


def test_it_trains_all_outputs() -> None:
    given = normal(5, 4).requires_grad_()
    loss(given).backward()
    assert_close(given.grad, differences(naive, given))
    assert (given.grad[:, :-1] > 0).all()
    assert (given.grad[:, -1] < 0).all()


def test_it_is_exact_for_huge_outputs() -> None:
    assert loss(torch.tensor([[3e4, 0.0, 0.0]])).item() == pytest.approx(3e4)
    assert loss(torch.tensor([[0.0, 0.0, 3e4]])).item() == 0


@each("outputs", [2, 4, 11])
def test_the_odds_match_the_loop(outputs: int) -> None:
    given = 2 * normal(7, outputs)
    expected = [math.log(share(row) / (1 - share(row))) for row in given.tolist()]
    assert odds(given).tolist() == pytest.approx(expected, abs=1e-10)


def test_the_odds_order_rows_as_the_share_does() -> None:
    given = 3 * normal(40, 4)
    by_share = sorted(range(40), key=lambda i: share(given[i].tolist()))
    assert odds(given).argsort().tolist() == by_share


def test_the_odds_have_no_ties_where_the_share_is_0_or_1() -> None:
    given = torch.tensor([[0.0, 1.0, 800.0], [0.0, 0.0, 800.0], [0.0, 1.0, -800.0], [0.0, 0.0, -800.0]]).double()
    assert given.softmax(1)[:, 2].tolist() == [1, 1, 0, 0]
    assert odds(given).argsort().tolist() == [2, 3, 0, 1]


def test_the_odds_are_blind_to_a_shift_and_rise_with_the_last_output_alone() -> None:
    given = normal(6, 4)
    torch.testing.assert_close(odds(given + 5), odds(given))
    for place in range(4):
        raised = given.clone()
        raised[:, place] += 1
        assert ((odds(raised) > odds(given)) == (place == 3)).all()

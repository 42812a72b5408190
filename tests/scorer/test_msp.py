"""Maximum softmax probability against a plain loop, and its order where float32 has none."""

from __future__ import annotations

import math

import pytest
import torch

from ood_lab.errors import RequestError
from ood_lab.scorer import build_scorer
from ood_lab.types import FeatureSet
from tests.cases import each


def score(logits: torch.Tensor) -> torch.Tensor:
    return build_scorer("msp").score(FeatureSet(torch.zeros(len(logits), 1), logits))


@each("dtype", [torch.float32, torch.float64])
def test_it_is_one_minus_the_largest_probability(dtype: torch.dtype) -> None:
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)).mul(3).to(dtype)
    for row, ours in zip(logits.double().tolist(), score(logits).tolist(), strict=True):
        weights = [math.exp(x) for x in row]
        assert ours == pytest.approx(1 - max(weights) / sum(weights), abs=1e-12)


def test_an_undecided_network_scores_higher_than_a_sure_one() -> None:
    undecided, sure = score(torch.tensor([[1.0, 1.0, 1.0], [9.0, 0.0, 0.0]]))
    assert undecided.item() == pytest.approx(2 / 3)
    assert undecided > sure


def test_the_order_is_kept_where_the_probability_rounds_to_1() -> None:
    tops = torch.arange(20.0, 300.0, 5.0)
    logits = torch.zeros(len(tops), 4)
    logits[:, 1] = tops
    scores = score(logits)
    assert (scores.diff() < 0).all()
    torch.testing.assert_close(scores, 3 * (-tops.double()).exp(), rtol=1e-6, atol=0)


def test_only_one_of_two_equal_largest_logits_counts_as_the_class() -> None:
    assert score(torch.tensor([[2.0, 2.0]])).item() == pytest.approx(0.5)


def test_huge_logits_give_numbers() -> None:
    assert torch.isfinite(score(torch.tensor([[1e4, -1e4, 0.0], [1e30, 0.0, 0.0]]))).all()


def test_adding_a_constant_to_all_logits_changes_nothing() -> None:
    logits = torch.randn(9, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(score(logits + 50), score(logits))


def test_an_unknown_name_or_option_is_a_wrong_request() -> None:
    with pytest.raises(RequestError, match="Did you mean 'msp'"):
        build_scorer("mspp")
    with pytest.raises(RequestError, match="has no option 'temperature'"):
        build_scorer("msp", temperature=1.0)

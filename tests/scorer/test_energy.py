"""Free energy against a plain loop."""

from __future__ import annotations

import math

import pytest
import torch

from ood_lab.errors import RequestError
from ood_lab.scorer import build_scorer
from ood_lab.types import FeatureSet
from tests.cases import each


def score(logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    return build_scorer("energy", temperature=temperature).score(FeatureSet(torch.zeros(len(logits), 1), logits))


@each("temperature", [0.5, 1.0, 10.0])
def test_it_is_minus_the_log_of_the_summed_exponentials(temperature: float) -> None:
    logits = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 4
    for row, ours in zip(logits.tolist(), score(logits, temperature).tolist(), strict=True):
        expected = -temperature * math.log(sum(math.exp(x / temperature) for x in row))
        assert ours == pytest.approx(expected, rel=1e-12)


def test_small_logits_score_higher_than_large_ones() -> None:
    small, large = score(torch.tensor([[0.1, 0.0], [9.0, 0.0]]))
    assert small > large


def test_huge_logits_do_not_overflow() -> None:
    torch.testing.assert_close(score(torch.tensor([[1e4, 0.0], [-1e4, -1e4]])), torch.tensor([-1e4, 1e4 - 0.6931]))


def test_adding_a_constant_to_all_logits_lowers_the_score_by_it() -> None:
    logits = torch.randn(9, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(score(logits + 3), score(logits) - 3)


@each("value", [0, -1.0, "warm", None, float("nan")])
def test_a_temperature_out_of_range_is_a_wrong_request(value: object) -> None:
    with pytest.raises(RequestError, match=r"temperature=.*expected a number above 0"):
        build_scorer("energy", temperature=value)


def test_a_misspelt_option_is_answered_with_the_nearest() -> None:
    with pytest.raises(RequestError, match="Did you mean 'temperature'"):
        build_scorer("energy", temprature=1.0)

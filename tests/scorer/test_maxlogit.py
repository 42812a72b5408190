"""The largest logit, negated."""

from __future__ import annotations

from ood_lab.scorer import build_scorer
from tests.scorer.case import TEST


def test_it_is_the_negative_of_the_largest_logit() -> None:
    scores = build_scorer("maxlogit").score(TEST).tolist()
    assert scores == [-max(row) for row in TEST.logits.tolist()]

"""What holds of each detector: unfitted use is said, the inputs stay, and a row's score is its own."""

from __future__ import annotations

import pytest
import torch

from ood_lab.config.compose import groups
from ood_lab.scorer import build_scorer
from ood_lab.scorer.base import HeadScorer, NotFittedError
from ood_lab.types import FeatureSet
from tests.scorer.case import TEST, TRAIN, head

NAMES = groups()["scorer"]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_written_into_the_features(name: str) -> None:
    before = [t.clone() for t in (*TRAIN, *TEST) if t is not None]
    build_scorer(name).fit(TRAIN, head=head(), val=TRAIN).score(TEST)
    after = [t for t in (*TRAIN, *TEST) if t is not None]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_rows_score_does_not_depend_on_the_others(name: str) -> None:
    scorer = build_scorer(name).fit(TRAIN, head=head(), val=TRAIN)
    whole = scorer.score(TEST)
    assert whole.shape == (len(TEST.features),)
    rows = [FeatureSet(TEST.features[i : i + 1], TEST.logits[i : i + 1]) for i in range(len(TEST.features))]
    torch.testing.assert_close(torch.cat([scorer.score(row) for row in rows]), whole, rtol=1e-6, atol=1e-8)


def test_before_fit_a_detector_scores_or_says_that_it_is_not_fitted() -> None:
    ready = set()
    for name in NAMES:
        try:
            build_scorer(name).score(TEST)
            ready.add(name)
        except NotFittedError:
            continue
    assert ready == {"msp", "maxlogit", "energy", "entropy", "gen", "gradnorm"}


@pytest.mark.parametrize("name", [name for name in NAMES if isinstance(build_scorer(name), HeadScorer)])
def test_a_detector_that_needs_the_head_says_so(name: str) -> None:
    with pytest.raises(ValueError, match="needs the classifier's head"):
        build_scorer(name).fit(TRAIN)

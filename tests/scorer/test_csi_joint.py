"""The ensemble of CSI's joint head."""

from __future__ import annotations

import pytest

from ood_lab.scorer import build_scorer
from tests.scorer.case import TEST
from tests.views import log_softmax, normal


def test_it_is_one_minus_the_largest_share() -> None:
    given = TEST._replace(features=3 * normal(len(TEST.features), 4))
    scores = build_scorer("csi_joint").score(given).tolist()
    for row, score in zip(given.features.tolist(), scores, strict=True):
        assert score == pytest.approx(1 - max(2.718281828459045**x for x in log_softmax(row)), abs=1e-9)

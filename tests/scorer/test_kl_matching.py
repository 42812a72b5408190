"""Divergence from the templates against a plain loop."""

from __future__ import annotations

import math

import pytest
import torch

from ood_lab.scorer import build_scorer
from tests.scorer.case import CLASSES, TEST, TRAIN


def softmax(row: list[float]) -> list[float]:
    total = sum(math.exp(x - max(row)) for x in row)
    return [math.exp(x - max(row)) / total for x in row]


def test_it_is_the_least_divergence_from_a_predicted_classs_mean_softmax() -> None:
    templates = []
    rows = [softmax(row) for row in TRAIN.logits.tolist()]
    for c in range(CLASSES):
        mine = [p for p in rows if p.index(max(p)) == c]
        if mine:
            templates.append([sum(p[k] for p in mine) / len(mine) for k in range(CLASSES)])
    scores = build_scorer("kl_matching").fit(TRAIN).score(TEST).tolist()
    for row, ours in zip(TEST.logits.tolist(), scores, strict=True):
        p = softmax(row)
        expected = min(sum(q * math.log(q / d) for q, d in zip(p, template, strict=True)) for template in templates)
        assert ours == pytest.approx(expected, abs=1e-10)


def test_the_validation_part_is_preferred_and_an_unpredicted_class_has_no_template() -> None:
    val = TEST._replace(logits=torch.tensor([[5.0, 0.0, 0.0], [4.0, 1.0, 0.0]]))
    scorer = build_scorer("kl_matching").fit(TRAIN, val=val)
    near, far = scorer.score(TEST._replace(logits=torch.tensor([[4.5, 0.5, 0.0], [0.0, 4.5, 0.0]])))
    assert near < 0.1 < far

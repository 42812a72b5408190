"""A search over a grid sees validation data alone, tries everything once, and takes the first best."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ood_lab.errors import RunError
from ood_lab.evaluation.extract import Extracted
from ood_lab.evaluation.metrics import ood_metrics
from ood_lab.evaluation.tuning import Trial, best, combinations, search
from ood_lab.scorer import build_scorer
from ood_lab.scorer.base import Scorer
from ood_lab.types import FeatureSet, LinearHead
from tests.cases import each
from tests.scorer.case import TRAIN, head, outputs

GRID: dict[str, list[Any]] = {"percentile": [65.0, 80.0, 95.0], "variant": ["s", "b"]}


HEAD = LinearHead(head().weight.float(), head().bias.float())
FIT = FeatureSet(TRAIN.features.float(), TRAIN.logits.float(), TRAIN.labels)


class Validation:
    """Features of the training set and of declared validation sets; asking for any other is an error."""

    def __init__(self) -> None:
        val = outputs(40, 3)
        known = FeatureSet(val.features.float(), val.logits.float(), val.labels)
        self.sets = {"train": FIT, "val": known, "noise": _far(4), "shapes": _far(5)}

    def of(self, name: str, scorer: Scorer | None = None) -> Extracted:
        data = self.sets[name]
        labels = torch.full((len(data.features),), -1) if data.labels is None else data.labels
        return Extracted({"features": data.features, "logits": data.logits, "labels": labels})


def _far(seed: int) -> FeatureSet:
    features = torch.rand(30, 16, generator=torch.Generator().manual_seed(seed)) * 2
    return FeatureSet(features, features @ HEAD.weight.T + HEAD.bias)


def test_combinations_change_the_last_option_fastest() -> None:
    assert [(c["percentile"], c["variant"]) for c in combinations(GRID)] == [
        (p, v) for p in (65.0, 80.0, 95.0) for v in ("s", "b")
    ]


@each("sets", [["noise"], ["noise", "shapes"]])
def test_each_trial_is_the_mean_auroc_of_the_validation_sets(sets: list[str]) -> None:
    source = Validation()
    trials = search("ash", lambda o: build_scorer("ash", **o), GRID, source, sets, HEAD)
    assert [trial.options for trial in trials] == list(combinations(GRID))
    for trial in trials:
        scorer = build_scorer("ash", **trial.options).fit(FIT, head=HEAD)
        ids = scorer.score(source.sets["val"])
        aurocs = [ood_metrics(ids, scorer.score(source.sets[name]))["auroc"] for name in sets]
        assert trial.auroc == pytest.approx(sum(aurocs) / len(sets))
    assert best(trials).auroc == max(trial.auroc or 0 for trial in trials)


def test_the_first_of_equals_is_taken_and_refused_ones_are_kept_with_their_reason() -> None:
    trials = search("vim", lambda o: build_scorer("vim", **o), {"dim": [400, 6, 7]}, Validation(), ["noise"], HEAD)
    assert trials[0].auroc is None
    assert "dim=400 leaves nothing of 16 features" in str(trials[0].refused)
    assert best([Trial({"a": 1}, 0.5), Trial({"a": 2}, 0.9), Trial({"a": 3}, 0.9)]).options == {"a": 2}
    with pytest.raises(RunError, match="the first was refused because: too large"):
        best([Trial({}, None, "too large")])

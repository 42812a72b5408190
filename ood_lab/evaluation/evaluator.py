"""From scores to metrics, thresholds and rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ood_lab.evaluation.extract import Extracted
from ood_lab.evaluation.metrics import intervals, ood_metrics
from ood_lab.random import derive_seed, generator
from ood_lab.results.store import Row


@dataclass(frozen=True)
class Scoring:
    """How metrics are taken from scores.

    Args:
        fpr_rule, aupr_rule: see `ood_metrics`.
        subset: images of each OOD set in one draw; None for all. (Several papers score 2,000 random images.)
        draws: seeded draws whose metrics are averaged.
        bootstrap: resamplings of the images for confidence intervals; 0 for none.
    """

    fpr_rule: Literal["first", "nearest"] = "first"
    aupr_rule: Literal["trapezoid", "average_precision"] = "trapezoid"
    subset: int | None = None
    draws: int = 10
    bootstrap: int = 0

    def metrics(self, ood_set: str, id_scores: Tensor, ood_scores: Tensor) -> dict[str, float]:
        """The metrics of one detector on one OOD set, as fractions."""
        ids, oods = id_scores.numpy(), ood_scores.numpy()
        if self.subset is None or self.subset >= len(oods):
            return ood_metrics(ids, oods, self.fpr_rule, self.aupr_rule)
        drawn = []
        for draw in range(self.draws):
            rows = torch.randperm(len(oods), generator=generator("subset", ood_set, draw))[: self.subset]
            drawn.append(ood_metrics(ids, oods[rows.numpy()], self.fpr_rule, self.aupr_rule))
        return {name: fmean(metrics[name] for metrics in drawn) for name in drawn[0]}

    def intervals(self, ood_set: str, id_scores: Tensor, ood_scores: Tensor) -> dict[str, tuple[float, float]]:
        """95 % intervals of the metrics (of all images of the set); none without `bootstrap`."""
        if not self.bootstrap:
            return {}
        draw = np.random.default_rng(derive_seed("bootstrap", ood_set))
        ids, oods = id_scores.numpy(), ood_scores.numpy()
        return intervals(ids, oods, self.bootstrap, draw, self.fpr_rule, self.aupr_rule)


def metric_rows(
    scores: Mapping[str, Tensor], of_sets: Mapping[str, Row], scoring: Scoring, common: Row
) -> Iterable[Row]:
    """One row per OOD set and metric from one detector's scores.

    Args:
        scores: by set; "test" is the ID test set.
        of_sets: for each OOD set, the columns that are its own (group, convention, n_expected, ...).
    """
    for ood_set, own in of_sets.items():
        ids, oods = scores["test"], scores[ood_set]
        bounds = scoring.intervals(ood_set, ids, oods)
        for metric, value in scoring.metrics(ood_set, ids, oods).items():
            low, high = bounds.get(metric, (None, None))
            yield {
                **common,
                **own,
                "ood_set": ood_set,
                "metric": metric,
                "value": value,
                "low": low,
                "high": high,
                "unit": "fraction",
                "n_id": len(ids),
                "n_ood": len(oods),
            }


def threshold(scores: Mapping[str, Tensor], id_rate: float) -> tuple[float, int]:
    """The lowest score that at least `id_rate` of the ID validation images stay at or below, and their number.

    Without a validation part it is taken over the ID test images.
    """
    held = scores.get("val", scores["test"])
    return float(held.sort().values[math.ceil(id_rate * len(held)) - 1]), len(held)


def accuracy(test: Extracted) -> float:
    """Share of the ID test images with a known class (-1 is none) whose largest logit is the right one."""
    known = test.tensors["labels"] >= 0
    return float((test.tensors["logits"].argmax(1) == test.tensors["labels"])[known].double().mean())

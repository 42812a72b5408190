"""Every detector on every set, from saved features: scores to disk, metrics to rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ood_lab.evaluation.extract import Extracted
from ood_lab.evaluation.metrics import ood_metrics
from ood_lab.progress import Meter
from ood_lab.random import generator
from ood_lab.results.store import Row
from ood_lab.scorer.base import Scorer
from ood_lab.storage import write_atomically
from ood_lab.types import FeatureSet, LinearHead

CHUNK = 2_000  # rows scored at a time


def scores_path(run_dir: Path, scorer: str, options: str) -> Path:
    """Where a detector's scores of every set lie; its options are part of the name."""
    return run_dir / "scores" / f"{scorer}-{hashlib.sha256(options.encode()).hexdigest()[:8]}.safetensors"


def score_all(
    scorers: Mapping[str, Scorer],
    sets: Mapping[str, Extracted],
    head: LinearHead,
    run_dir: Path,
    options: Mapping[str, str],
) -> dict[str, dict[str, Tensor]]:
    """Fit each detector on "train", score every other set but "val", and keep the scores beside the run.

    Returns:
        scorer -> set -> scores [N] in float64.
    """
    scored: dict[str, dict[str, Tensor]] = {}
    names = [name for name in sets if name not in ("train", "val")]
    with Meter("score", len(scorers) * len(names)) as meter, torch.inference_mode():
        for name, scorer in scorers.items():
            views = {key: sets[key].features(scorer.space) for key in ("train", "val", *names)}
            scorer.fit(views["train"], head=head, val=views["val"])
            scored[name] = {}
            for key in names:
                scored[name][key] = score(scorer, views[key])
                meter.advance(note=f"{name} on {key}")
            path = scores_path(run_dir, name, options[name])
            kept = load_file(path) if path.is_file() else {}
            write_atomically(path, save({**kept, **{f"{k}-{sets[k].key}": v for k, v in scored[name].items()}}))
    return scored


def score(scorer: Scorer, features: FeatureSet) -> Tensor:
    """Scores [N] in float64, computed a part at a time so that intermediate tensors don't grow with N."""
    rows = range(0, len(features.features), CHUNK)
    parts = [FeatureSet(*(None if t is None else t[i : i + CHUNK] for t in features)) for i in rows]  # type: ignore[arg-type]
    return torch.cat([scorer.score(part).double() for part in parts])


def load_scores(run_dir: Path, scorer: str, options: str, keys: Mapping[str, str]) -> dict[str, Tensor]:
    """Saved scores of one detector, by set; of the sets in `keys` (name to feature key) those that were scored."""
    path = scores_path(run_dir, scorer, options)
    kept = load_file(path) if path.is_file() else {}
    return {name: kept[f"{name}-{key}"] for name, key in keys.items() if f"{name}-{key}" in kept}


@dataclass(frozen=True)
class Scoring:
    """How metrics are taken from scores.

    Args:
        fpr_rule: see `ood_metrics`.
        subset: images of each OOD set in one draw; None for all. (Several papers score 2,000 random images.)
        draws: seeded draws whose metrics are averaged.
    """

    fpr_rule: Literal["first", "nearest"]
    subset: int | None
    draws: int

    def metrics(self, ood_set: str, id_scores: Tensor, ood_scores: Tensor) -> dict[str, float]:
        """The metrics of one detector on one OOD set, as fractions."""
        ids, oods = id_scores.numpy(), ood_scores.numpy()
        if self.subset is None or self.subset >= len(oods):
            return ood_metrics(ids, oods, self.fpr_rule)
        drawn = []
        for draw in range(self.draws):
            rows = torch.randperm(len(oods), generator=generator("subset", ood_set, draw))[: self.subset]
            drawn.append(ood_metrics(ids, oods[rows.numpy()], self.fpr_rule))
        return {name: fmean(metrics[name] for metrics in drawn) for name in drawn[0]}


def metric_rows(
    scores: Mapping[str, Tensor], of_sets: Mapping[str, Row], scoring: Scoring, common: Row
) -> Iterable[Row]:
    """One row per OOD set and metric from one detector's scores.

    Args:
        scores: by set; "test" is the ID test set.
        of_sets: for each OOD set, the columns that are its own (group, convention, n_expected, ...).
    """
    for ood_set, own in of_sets.items():
        scored = len(scores[ood_set])
        for metric, value in scoring.metrics(ood_set, scores["test"], scores[ood_set]).items():
            yield {
                **common,
                **own,
                "ood_set": ood_set,
                "metric": metric,
                "value": value,
                "unit": "fraction",
                "n_id": len(scores["test"]),
                "n_ood": scored,
            }


def accuracy(test: Extracted) -> float:
    """Share of ID test images whose largest logit is the right one."""
    return float((test.tensors["logits"].argmax(1) == test.tensors["labels"]).double().mean())

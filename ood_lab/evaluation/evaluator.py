"""Every detector on every set, from saved features: scores to disk, metrics to rows."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, Protocol

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ood_lab.evaluation.extract import Extracted
from ood_lab.evaluation.metrics import intervals, ood_metrics
from ood_lab.progress import Meter
from ood_lab.random import derive_seed, generator
from ood_lab.results.material import SYNTHESIZED
from ood_lab.results.store import Row
from ood_lab.scorer.base import Scorer
from ood_lab.storage import write_atomically
from ood_lab.types import FeatureSet, LinearHead

CHUNK = 2_000  # rows scored at a time


def scores_path(run_dir: Path, scorer: str, options: str) -> Path:
    """Where a detector's scores of every set lie; its options are part of the name."""
    return run_dir / "scores" / f"{scorer}-{hashlib.sha256(options.encode()).hexdigest()[:8]}.safetensors"


class Source(Protocol):
    """The features of a run's image sets, those that a detector is to be given."""

    def of(self, name: str, scorer: Scorer | None = None) -> Extracted: ...


def fit(scorer: Scorer, source: Source, head: LinearHead, val: bool) -> Scorer:
    """The detector fitted on "train"; with `val`, the run has a validation part."""
    views = {name: source.of(name, scorer).features(scorer.space) for name in ("train", "val")[: 1 + val]}
    return scorer.fit(views["train"], head=head, val=views.get("val"))


def score_all(
    scorers: Mapping[str, Scorer],
    source: Source,
    names: Sequence[str],
    head: LinearHead,
    run_dir: Path,
    options: Mapping[str, str],
    fits: Mapping[str, str],
    synthesized: Extracted | None = None,
) -> tuple[dict[str, dict[str, Tensor]], dict[str, str]]:
    """Fit each detector on "train", score the named sets, and keep the scores beside the run.

    One that can't work on these features does not keep the others from it.

    Args:
        names: the sets to score; "val" among them where the run has a validation part.
        fits: what each detector is fitted on (see `fit_key`).
        synthesized: a run's outliers, which are scored for pictures by the detectors that need no images.

    Returns:
        scorer -> set -> scores [N] in float64; and scorer -> why it could not.
    """
    scored: dict[str, dict[str, Tensor]] = {}
    refused: dict[str, str] = {}
    with Meter("score", len(scorers) * len(names)) as meter, torch.inference_mode():
        for name, scorer in scorers.items():
            found = {}
            try:
                fit(scorer, source, head, "val" in names)
                for key in names:
                    found[key] = score(scorer, source.of(key, scorer).features(scorer.space))
                    meter.advance(note=f"{name} on {key}")
                points = None
                if synthesized is not None and synthesized.serves(scorer):
                    points = score(scorer, synthesized.features(scorer.space))
            except (ValueError, torch.linalg.LinAlgError) as error:
                refused[name] = str(error)
                continue
            scored[name] = found
            fresh = {scores_key(k, source.of(k).key, fits[name]): v for k, v in found.items()}
            if synthesized is not None and points is not None:
                fresh[scores_key(SYNTHESIZED, synthesized.key, fits[name])] = points
            add_scores(scores_path(run_dir, name, options[name]), fresh)
    return scored, refused


def add_scores(path: Path, fresh: Mapping[str, Tensor]) -> None:
    """Write tensors by the names of `scores_key` into a detector's file, beside what is there."""
    kept = load_file(path) if path.is_file() else {}
    write_atomically(path, save({**kept, **fresh}))


def fit_key(train: str, val: str | None, tuned: Mapping[str, Any] | None) -> str:
    """Eight digits for what a detector was fitted on: the keys of the training and validation features, and the values
    that a search has found."""
    return hashlib.sha256(json.dumps([train, val, tuned], sort_keys=True).encode()).hexdigest()[:8]


def scores_key(name: str, features: str, fit: str) -> str:
    """The name of one set's scores in a detector's file; `features` is the key of its unchanged images' features."""
    return f"{name}-{features}-{fit}"


def norms_key(name: str, features: str, fit: str) -> str:
    """The name of the norms of the score's gradient on one set in a detector's file."""
    return scores_key(f"gradient of {name}", features, fit)


def score(scorer: Scorer, features: FeatureSet) -> Tensor:
    """Scores [N] in float64, computed a part at a time so that intermediate tensors don't grow with N."""
    rows = range(0, len(features.features), CHUNK)
    parts = [FeatureSet(*(None if t is None else t[i : i + CHUNK] for t in features)) for i in rows]  # type: ignore[arg-type]
    return torch.cat([scorer.score(part).double() for part in parts])


def load_scores(run_dir: Path, scorer: str, options: str, keys: Mapping[str, str], fit: str) -> dict[str, Tensor]:
    """Saved scores of one detector, by set; of the sets in `keys` (name to feature key) those that were scored."""
    return _load(scores_path(run_dir, scorer, options), {n: scores_key(n, key, fit) for n, key in keys.items()})


def load_norms(run_dir: Path, scorer: str, options: str, keys: Mapping[str, str], fit: str) -> dict[str, Tensor]:
    """Saved norms of the gradient of one detector's score, by set, of those sets in `keys` of which there are some."""
    return _load(scores_path(run_dir, scorer, options), {n: norms_key(n, key, fit) for n, key in keys.items()})


def _load(path: Path, named: Mapping[str, str]) -> dict[str, Tensor]:
    kept = load_file(path) if path.is_file() else {}
    return {name: kept[entry] for name, entry in named.items() if entry in kept}


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
    """Share of ID test images whose largest logit is the right one."""
    return float((test.tensors["logits"].argmax(1) == test.tensors["labels"]).double().mean())

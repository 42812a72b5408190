"""Every detector on every set, from saved features: scores to disk, metrics to rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ood_lab.evaluation.extract import Extracted
from ood_lab.evaluation.metrics import ood_metrics
from ood_lab.progress import Meter
from ood_lab.results.store import Row
from ood_lab.scorer.base import Scorer
from ood_lab.storage import write_atomically
from ood_lab.types import LinearHead


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
                scored[name][key] = scorer.score(views[key]).double()
                meter.advance(note=f"{name} on {key}")
            path = scores_path(run_dir, name, options[name])
            kept = load_file(path) if path.is_file() else {}
            write_atomically(path, save({**kept, **scored[name]}))
    return scored


def load_scores(run_dir: Path, scorer: str, options: str) -> dict[str, Tensor]:
    """Saved scores of one detector, by set; none if it was not scored with these options."""
    path = scores_path(run_dir, scorer, options)
    return load_file(path) if path.is_file() else {}


def metric_rows(scores: Mapping[str, Tensor], groups: Mapping[str, str], fpr_rule: Any, common: Row) -> Iterable[Row]:
    """One row per OOD set and metric from one detector's scores; `groups` maps each OOD set to near or far."""
    for ood_set, group in groups.items():
        metrics = ood_metrics(scores["test"].numpy(), scores[ood_set].numpy(), fpr_rule)
        for metric, value in metrics.items():
            yield {
                **common,
                "ood_set": ood_set,
                "group": group,
                "metric": metric,
                "value": value,
                "unit": "fraction",
                "n_id": len(scores["test"]),
                "n_ood": len(scores[ood_set]),
                "convention": f"fpr_rule={fpr_rule}",
            }


def accuracy(test: Extracted) -> float:
    """Share of ID test images whose largest logit is the right one."""
    return float((test.tensors["logits"].argmax(1) == test.tensors["labels"]).double().mean())

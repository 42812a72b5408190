"""A detector's hyper-parameters from validation data: every combination of a grid, the best mean AUROC."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean
from typing import Any

import torch

from ood_lab.errors import RunError
from ood_lab.evaluation.metrics import ood_metrics
from ood_lab.evaluation.scores import Source, fit, score
from ood_lab.progress import track
from ood_lab.scorer.base import Scorer
from ood_lab.types import LinearHead

Options = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """One combination: its mean AUROC, or what the detector refused it for."""

    options: Options
    auroc: float | None
    refused: str | None = None


def combinations(grid: Mapping[str, Sequence[Any]]) -> Iterator[Options]:
    """Every combination of the grid's values, the last option changing fastest."""
    for values in product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def search(
    name: str,
    build: Callable[[Options], Scorer],
    grid: Mapping[str, Sequence[Any]],
    source: Source,
    sets: Sequence[str],
    head: LinearHead,
) -> list[Trial]:
    """AUROC of "val" against each of the validation sets, a mean over them, for every combination of the grid.

    Args:
        name: of the detector, for the progress bar.
        build: the detector with some of its options changed.
        sets: OOD sets that were declared for validation; no test set is looked at.
    """
    trials = []
    for options in track(list(combinations(grid)), f"tune {name}"):
        scorer = build(options)
        try:
            with torch.inference_mode():
                fit(scorer, source, head, val=True)
                of = {key: score(scorer, source.of(key, scorer).features(scorer.space)) for key in ("val", *sets)}
            trials.append(Trial(options, fmean(ood_metrics(of["val"], of[key])["auroc"] for key in sets)))
        except ValueError as error:
            trials.append(Trial(options, None, str(error)))
    return trials


def best(trials: Sequence[Trial]) -> Trial:
    """The first of the trials with the largest AUROC.

    Raises:
        RunError: the detector refused every combination.
    """
    done = [trial for trial in trials if trial.auroc is not None]
    if not done:
        raise RunError(f"no combination of the grid could be tried; the first was refused because: {trials[0].refused}")
    return max(done, key=lambda trial: trial.auroc or 0.0)

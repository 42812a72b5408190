"""The scores of a run's detectors on its image sets, from stored features: artifacts, one file a detector."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ood_lab.evaluation.extract import Extracted
from ood_lab.files.artifact import Artifact, set_aside
from ood_lab.files.storage import write_atomically
from ood_lab.progress import Meter
from ood_lab.results.material import SYNTHESIZED
from ood_lab.scorer.base import Scorer
from ood_lab.types import FeatureSet, LinearHead

CHUNK = 2_000  # rows scored at a time


class Source(Protocol):
    """The features of a run's image sets, those that a detector is to be given."""

    def of(self, name: str, scorer: Scorer | None = None) -> Extracted: ...


@dataclass(frozen=True)
class RunDetector:
    """A detector as a run has it.

    Args:
        name: by which its scores go.
        scorer: not fitted yet.
        options: as stored with its rows.
        fit: what it is fitted on (see `fit_key`).
        tuned: the values that a search has found; None where nothing is searched.
    """

    name: str
    scorer: Scorer
    options: str
    fit: str
    tuned: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Scores(Artifact):
    """The scores of one detector on some sets, in a file with those of other images and other fits.

    Args:
        detector: whose.
        source: of the features that it is fitted on ("train", and "val" where the run has such a part) and scores.
        sets: the names of the sets.
        head: the classifier on the penultimate features; None where there is none.
        run_dir: the folder of the run.
        synthesized: the run's outliers, which are scored for pictures by the detectors that need no images.
        scored: is called after each set.
    """

    detector: RunDetector
    source: Source
    sets: Sequence[str]
    head: LinearHead | None
    run_dir: Path
    synthesized: Extracted | None = None
    scored: Callable[[str], None] | None = None

    @property
    def key(self) -> str:
        return self.detector.fit

    @property
    def path(self) -> Path:
        return scores_path(self.run_dir, self.detector.name, self.detector.options)

    def is_complete(self) -> bool:
        return len(self.stored()) == len(self.sets)

    def stored(self) -> dict[str, Tensor]:
        """Of the sets those that are scored already, by name; float64 [N]."""
        keys = {name: self.source.of(name).key for name in self.sets}
        return load_scores(self.run_dir, self.detector.name, self.detector.options, keys, self.detector.fit)

    def make(self) -> None:
        """Fit the detector and score every set.

        Raises:
            ValueError, LinAlgError: it can't work on these features.
        """
        scorer, found = self.detector.scorer, {}
        with torch.inference_mode():
            fit(scorer, self.source, self.head, "val" in self.sets)
            for name in self.sets:
                values = score(scorer, self.source.of(name, scorer).features(scorer.space))
                found[scores_key(name, self.source.of(name).key, self.detector.fit)] = values
                if self.scored is not None:
                    self.scored(name)
            if self.synthesized is not None and self.synthesized.serves(scorer):
                values = score(scorer, self.synthesized.features(scorer.space))
                found[scores_key(SYNTHESIZED, self.synthesized.key, self.detector.fit)] = values
        add_scores(self.path, found)


def score_all(
    detectors: Iterable[RunDetector],
    source: Source,
    sets: Sequence[str],
    head: LinearHead | None,
    run_dir: Path,
    synthesized: Extracted | None = None,
) -> tuple[dict[str, dict[str, Tensor]], dict[str, str]]:
    """The scores of each detector, made where they are not stored; one that can't work doesn't stop the others.

    Returns:
        detector -> set -> scores [N] in float64; and detector -> why it could not.
    """
    detectors = list(detectors)
    scores: dict[str, dict[str, Tensor]] = {}
    refused: dict[str, str] = {}
    with Meter("score", len(detectors) * len(sets)) as meter:
        for number, detector in enumerate(detectors):
            name = detector.name
            artifact = Scores(detector, source, sets, head, run_dir, synthesized, partial(_advance, meter, name))
            try:
                artifact.ensure()
            except (ValueError, torch.linalg.LinAlgError) as error:
                refused[name] = str(error)
                continue
            scores[name] = artifact.stored()
            meter.advance((number + 1) * len(sets) - meter.done)
    return scores, refused


def _advance(meter: Meter, detector: str, ood_set: str) -> None:
    meter.advance(note=f"{detector} on {ood_set}")


def fit(scorer: Scorer, source: Source, head: LinearHead | None, val: bool) -> Scorer:
    """The detector fitted on "train"; with `val`, the run has a validation part."""
    views = {name: source.of(name, scorer).features(scorer.space) for name in ("train", "val")[: 1 + val]}
    return scorer.fit(views["train"], head=head, val=views.get("val"))


def score(scorer: Scorer, features: FeatureSet) -> Tensor:
    """Scores [N] in float64, computed a part at a time so that intermediate tensors don't grow with N."""
    rows = range(0, len(features.features), CHUNK)
    parts = [FeatureSet(*(None if t is None else t[i : i + CHUNK] for t in features)) for i in rows]  # type: ignore[arg-type]
    return torch.cat([scorer.score(part).double() for part in parts])


def fit_key(train: str, val: str | None, tuned: Mapping[str, Any] | None) -> str:
    """Eight digits for what a detector was fitted on: the keys of the training and validation features, and the values
    that a search has found."""
    return hashlib.sha256(json.dumps([train, val, tuned], sort_keys=True).encode()).hexdigest()[:8]


# The file of a detector.


def scores_path(run_dir: Path, scorer: str, options: str) -> Path:
    """Where a detector's scores of every set lie; its options are part of the name."""
    return run_dir / "scores" / f"{scorer}-{hashlib.sha256(options.encode()).hexdigest()[:8]}.safetensors"


def scores_key(name: str, features: str, fit: str) -> str:
    """The name of one set's scores in a detector's file; `features` is the key of its unchanged images' features."""
    return f"{name}-{features}-{fit}"


def norms_key(name: str, features: str, fit: str) -> str:
    """The name of the norms of the score's gradient on one set in a detector's file."""
    return scores_key(f"gradient of {name}", features, fit)


def add_scores(path: Path, fresh: Mapping[str, Tensor]) -> None:
    """Write tensors by the names of `scores_key` into a detector's file, beside what is there."""
    write_atomically(path, save({**_tensors(path), **fresh}))


def load_scores(run_dir: Path, scorer: str, options: str, keys: Mapping[str, str], fit: str) -> dict[str, Tensor]:
    """Stored scores of one detector, by set; of the sets in `keys` (name to feature key) those that were scored."""
    return _load(scores_path(run_dir, scorer, options), {n: scores_key(n, key, fit) for n, key in keys.items()})


def load_norms(run_dir: Path, scorer: str, options: str, keys: Mapping[str, str], fit: str) -> dict[str, Tensor]:
    """Stored norms of the gradient of one detector's score, by set, of those sets in `keys` of which there are some."""
    return _load(scores_path(run_dir, scorer, options), {n: norms_key(n, key, fit) for n, key in keys.items()})


def _load(path: Path, named: Mapping[str, str]) -> dict[str, Tensor]:
    stored = _tensors(path)
    return {name: stored[entry] for name, entry in named.items() if entry in stored}


def _tensors(path: Path) -> dict[str, Tensor]:
    """What a detector's file holds; a damaged one is set aside, and its scores are made again."""
    if not path.is_file():
        return {}
    try:
        return load_file(path)
    except SafetensorError as error:
        set_aside(path, error)
        return {}

"""The features of a run's image sets: artifacts, made by one pass of the network where they are not there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from ood_lab.config.affects import FEATURES
from ood_lab.config.experiment import Experiment
from ood_lab.config.identity import affecting
from ood_lab.config.source import code_digest
from ood_lab.dataset.base import Split
from ood_lab.errors import RunError
from ood_lab.evaluation.extract import (
    Extracted,
    Precision,
    extract,
    feature_key,
    features_path,
    load_features,
    perturbed,
    save_features,
)
from ood_lab.files.artifact import Artifact
from ood_lab.files.fingerprint import relative_names
from ood_lab.method.base import Method
from ood_lab.method.measured import EPOCH_METRICS
from ood_lab.runs.cost import EMBEDDING, timed
from ood_lab.runs.run_folder import RunFolder
from ood_lab.runs.run_images import RunImages
from ood_lab.scorer.base import InputScorer, Scorer
from ood_lab.task.build import build_data, build_method, device, head_class
from ood_lab.task.outliers import SynthesizedOutliers
from ood_lab.training.evaluation_set import EvalLoader, EvaluationSet
from ood_lab.types import LinearHead


class Features:
    """What a trained run gives for "train", "val" (where there is such a part), "test" and every OOD set.

    The network is built only if something is not stored yet.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment, self.folder = experiment, RunFolder(experiment.run_dir)
        try:
            check_weights(self.folder.weights)
        except SafetensorError as error:
            raise RunError(f"{self.folder.weights} can't be read ({error}); task=train makes it again") from None
        self.digest = hashlib.sha256(self.folder.weights.read_bytes()).hexdigest()[:16]
        self.images = RunImages(experiment)
        self.data = build_data(experiment)
        self._keys: dict[tuple[str, str], str] = {}
        self._loaded: dict[Path, Extracted] = {}

    @property
    def id_splits(self) -> tuple[Split, ...]:
        """The splits of the ID set that are read; without images kept for validation there is no "val"."""
        return ("train", "val", "test") if self.experiment.protocol.id_val else ("train", "test")

    def of(self, name: str, scorer: Scorer | None = None) -> Extracted:
        """The features of one set; those of changed images where the detector asks for a change."""
        changing = None
        if isinstance(scorer, InputScorer) and scorer.epsilon > 0 and name != "train":
            # A detector is fitted on images as they are; an attacker changes those of OOD sets alone.
            changing = scorer if scorer.changes_id or name not in ("val", "test") else None
        features = self._artifact(name, changing)
        if features.path not in self._loaded:
            self._loaded[features.path] = features.read(load_features, (SafetensorError,))
        return self._loaded[features.path]

    def key(self, name: str) -> str:
        """The key of the features of one set's images as they are."""
        return self._key(name, "")

    def loader(self, name: str) -> EvalLoader:
        """Batches of one set's images as they are."""
        return self.data.evaluation_loader(name)

    def enter(self, names: Iterable[str]) -> None:
        """Record which images the features of these sets are of."""
        for name in names:
            self.images.enter_features(self.images.source(name), self.key(name))

    def prepare(self, names: Iterable[str], scorers: Iterable[Scorer] = ()) -> None:
        """Extract now what is not stored yet: first what most detectors share, then each one's own pass."""
        for scorer in (None, *scorers):
            for name in names:
                self.of(name, scorer)

    @cached_property
    def head(self) -> LinearHead:
        """The classifier on the penultimate features."""
        return head_class(self.experiment).classifier(load_file(self.folder.weights))

    @cached_property
    def method(self) -> Method:
        """The trained network."""
        return trained_method(self.experiment)

    @cached_property
    def synthesized(self) -> Extracted | None:
        """One batch of the outliers that the finished network would be trained with; None where there are none."""
        if self.experiment.synthesizer is None:
            return None
        return SynthesizedOutliers(self.folder, lambda: self.method).load()

    @property
    def training_rows(self) -> list[dict[str, Any]]:
        """In how many steps a term on outliers took part, and the norm of its gradient on the features."""
        weights = load_file(self.folder.weights)
        measured = {"outlier_steps": "steps", "outlier_gradient": "norm"}
        return [{"metric": key, "value": float(weights[key]), "unit": unit} for key, unit in measured.items()]

    def _artifact(self, name: str, changing: InputScorer | None) -> SetFeatures:
        key = self._key(name, changing.change() if changing is not None else "")
        return SetFeatures(self, name, key, changing)

    def _key(self, name: str, change: str) -> str:
        if (name, change) not in self._keys:
            edition = self.images.enter(self.images.source(name))
            self._keys[name, change] = self._described(self.data.evaluation_sets[name], edition, change)
        return self._keys[name, change]

    def _described(self, images: EvaluationSet, edition: str, change: str) -> str:
        """The key of a set's features under these weights, changed as a detector asks.

        Args:
            edition: tells images of the same names and sizes apart (see `ood_lab.runs.image_record`).
        """
        use = self.experiment.use("id" if images.split != "ood" else images.name)
        description = affecting(use.node, FEATURES)
        code = code_digest(description.pop("_target_"))
        about: list[Any] = [description, images.split] if code is None else [description, images.split, code]
        if use.node["layouts"]:
            # Where the files lie does not count, nor by which layout they were found.
            listing = images.listing
            names = _below(Path(use.node["root"]), listing.files)
            files = [(name, file.stat().st_size) for name, file in zip(names, listing.files, strict=True)]
            labels = hashlib.sha256(listing.labels.tobytes()).hexdigest()
            about += [files, len(listing), labels]
            if edition:
                about.append(edition)
        elif images.split != "ood":
            about.append(images.id_val)
        reading, normalise = self.data.reading, self.experiment.normalisation
        assert normalise is not None
        transform = [images.chain, reading.resize, reading.side, list(normalise.mean), list(normalise.std)]
        precision = self.experiment.trainer.eval_precision
        return feature_key(self.digest, about, {"transform": transform, "precision": precision, "change": change})


@dataclass(frozen=True)
class SetFeatures(Artifact):
    """The features of one set, of its images as they are or changed as a detector asks.

    Args:
        of: the run.
        name: of the set.
        features_key: see `Features`.
        changing: the detector.
    """

    of: Features
    name: str
    features_key: str
    changing: InputScorer | None

    @property
    def key(self) -> str:
        return self.features_key

    @property
    def path(self) -> Path:
        change = self.changing.change() if self.changing is not None else ""
        return features_path(self.of.folder.path, self.name, self.key, change)

    def make(self) -> None:
        plain = self.name == "train" and self.changing is None
        with timed(self.of.folder.path, EMBEDDING) if plain else nullcontext():
            self._make()

    def _make(self) -> None:
        method, loader = self.of.method, self.of.loader(self.name)
        precision: Precision = self.of.experiment.trainer.eval_precision
        change, title, changing = "", self.name, self.changing
        if changing is None:
            batches = extract(method, loader, title, precision)
        else:
            change = changing.change()
            title = f"{title} for {change.partition(' ')[0]}"
            batches = extract(
                method, loader, title, precision,
                lambda x: perturbed(method, x, changing.objective, changing.epsilon, loader.normalise.std),
            )  # fmt: skip
        save_features(self.path, batches, loader.images, {"change": change})


def _below(root: Path, files: Sequence[Path]) -> list[str]:
    """The names of files below a set's root; where some lie elsewhere, below the folder that all lie in."""
    names, folder = [str(file) for file in files], f"{root}{os.sep}"
    if all(name.startswith(folder) for name in names):
        return [name[len(folder) :] for name in names]  # `Path.relative_to` takes a second for 100,000 names
    return relative_names(files)


def check_weights(path: Path) -> None:
    """Whether a file of weights is whole, as far as its header tells.

    Raises:
        SafetensorError: it is not.
    """
    with safe_open(path, "pt") as file:
        file.keys()


def trained_method(experiment: Experiment) -> Method:
    """The method with its final weights, on its device."""
    method, path = build_method(experiment), RunFolder(experiment.run_dir).weights
    missing, unexpected = method.load_state_dict(load_file(path), strict=False)
    lost = [name for name in missing if not name.startswith(EPOCH_METRICS)]
    if lost or unexpected:
        raise RunError(f"{path} does not match this method: missing {lost}, unexpected {list(unexpected)}")
    return method.to(device(experiment))

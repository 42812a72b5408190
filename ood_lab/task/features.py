"""The features of a run's image sets: saved ones where they are there, else one pass of the network."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save

from ood_lab.config import Request, RunError
from ood_lab.config.image_sets import ImageSetUse
from ood_lab.datamodule import EvalLoader, Normalise
from ood_lab.dataset.base import ImageSet, Split
from ood_lab.evaluation.extract import (
    Extracted,
    extract,
    feature_key,
    features_path,
    load_features,
    perturbed,
    save_features,
)  # fmt: skip
from ood_lab.fingerprint import relative_names
from ood_lab.method.base import Method
from ood_lab.method.measured import EPOCH_METRICS
from ood_lab.parts import Dimensions, Synthesizer
from ood_lab.random import generator
from ood_lab.reader.base import Listing
from ood_lab.run_dir import FINAL, OUTLIERS
from ood_lab.run_images import RunImages
from ood_lab.scorer.base import InputScorer, Scorer
from ood_lab.storage import write_atomically
from ood_lab.task.build import build, build_method, build_reading, device, head_class
from ood_lab.transform import Chain
from ood_lab.types import LinearHead, Outliers

# What of a set's description changes no pixel; which files were read counts by itself.
UNSEEN = {
    "root", "how_to_get", "licence", "recipe", "layouts", "mean", "std", "_target_", "checksums", "downloads",
    "benchmark", "include", "exclude", "draw", "train", "val", "test",
}  # fmt: skip


class Features:
    """What a trained run gives for "train", "val" (where there is such a part), "test" and every OOD set.

    The network is built only if something is not saved yet.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.digest = hashlib.sha256((request.run_dir / FINAL).read_bytes()).hexdigest()[:16]
        self.images = RunImages(request)
        self._method: Method | None = None
        self._images: dict[str, SetImages] = {}
        self._loaded: dict[Path, Extracted] = {}

    @property
    def id_splits(self) -> tuple[Split, ...]:
        """The splits of the ID set that are read; without images kept for validation there is no "val"."""
        return ("train", "val", "test") if self.request.cfg.protocol.id_val else ("train", "test")

    def of(self, name: str, scorer: Scorer | None = None) -> Extracted:
        """The features of one set; those of changed images where the detector asks for a change."""
        changing = None
        if isinstance(scorer, InputScorer) and scorer.epsilon > 0 and name != "train":
            changing = scorer  # a detector is fitted on images as they are
        path = self._path(name, changing)
        if path not in self._loaded:
            if not path.is_file():
                self._extract(name, path, changing)
            self._loaded[path] = load_features(path)
        return self._loaded[path]

    def key(self, name: str) -> str:
        """The name of the features of one set's images as they are."""
        return self._of(name).key(self.digest)

    def loader(self, name: str) -> EvalLoader:
        """Batches of one set's images as they are."""
        return self._of(name).loader()

    def enter(self, names: Iterable[str]) -> None:
        """Record which images the features of these sets are of."""
        for name in names:
            self.images.enter_features(self.images.source(name), self.key(name))

    def prepare(self, names: Iterable[str], scorers: Iterable[Scorer] = ()) -> None:
        """Extract now what is not saved yet: first what most detectors share, then each one's own pass."""
        for scorer in (None, *scorers):
            for name in names:
                self.of(name, scorer)

    @cached_property
    def head(self) -> LinearHead:
        """The classifier on the penultimate features."""
        return head_class(self.request.cfg).classifier(load_file(self.request.run_dir / FINAL))

    @property
    def method(self) -> Method:
        """The trained network."""
        if self._method is None:
            self._method = trained_method(self.request)
        return self._method

    @cached_property
    def synthesized(self) -> Extracted | None:
        """One batch of the outliers that the finished network would be trained with, drawn and saved at first.

        None for a method without a synthesizer, and where its bank never was full.
        """
        if self.request.composed.plain("synthesizer") is None:
            return None
        if not (self.request.run_dir / OUTLIERS).is_file():
            _save_outliers(self.request, self.method)
        return load_outliers(self.request.run_dir)

    @property
    def training_rows(self) -> list[dict[str, Any]]:
        """In how many steps a term on outliers took part, and the norm of its gradient on the features."""
        weights = load_file(self.request.run_dir / FINAL)
        measured = {"outlier_steps": "steps", "outlier_gradient": "norm"}
        return [{"metric": key, "value": float(weights[key]), "unit": unit} for key, unit in measured.items()]

    def _path(self, name: str, changing: InputScorer | None) -> Path:
        change = changing.change() if changing else ""
        return features_path(self.request.run_dir, name, self._of(name).key(self.digest, change), change)

    def _of(self, name: str) -> SetImages:
        if name not in self._images:
            split: Split = name if name in ("train", "val", "test") else "ood"  # type: ignore[assignment]
            use = self.request.use("id" if split != "ood" else name)
            edition = self.images.enter(self.images.source(name))
            self._images[name] = SetImages(self.request, use, split, edition)
        return self._images[name]

    def _extract(self, name: str, path: Path, changing: InputScorer | None) -> None:
        method, precision = self.method, self.request.cfg.trainer.eval_precision
        loader = self._of(name).loader()
        change = ""
        if changing is None:
            batches = extract(method, loader, name, precision)
        else:
            change = changing.change()
            spoken = f"{name} for {change.partition(' ')[0]}"
            batches = extract(
                method, loader, spoken, precision,
                lambda x: perturbed(method, x, changing.objective, changing.epsilon, loader.normalise.std),
            )  # fmt: skip
        save_features(path, batches, loader.images, {"change": change})


class SetImages:
    """The images of one split of one set, as a request's protocol prepares them.

    Args:
        edition: tells images of the same names and sizes apart (see `image_record`).
    """

    def __init__(self, request: Request, use: ImageSetUse, split: Split, edition: str) -> None:
        self.request, self.use, self.split, self.edition = request, use, split, edition
        protocol = request.cfg.protocol
        ood = split == "ood"
        self.chain: Chain = protocol.transforms.get(use.name, protocol.transform) if ood else "short_side"
        self.source: ImageSet = build(use.node)

    @cached_property
    def listing(self) -> Listing:
        """Which images there are; read once."""
        return self.source.listing(self.split, self.request.cfg.protocol.id_val)

    def key(self, weights: str, change: str = "") -> str:
        """The name of their features under these weights, changed as a detector asks."""
        node = self.use.node
        described = {k: v for k, v in node.items() if k not in UNSEEN}
        images: list[Any] = [described, self.split]
        if node["layouts"]:
            # Where the files lie does not count, nor by which layout they were found.
            root = Path(node["root"])
            names = _below(root, self.listing.files)
            files = [(name, file.stat().st_size) for name, file in zip(names, self.listing.files, strict=True)]
            labels = hashlib.sha256(self.listing.labels.tobytes()).hexdigest()
            images += [files, len(self.listing), labels]
            if self.edition:
                images.append(self.edition)
        elif self.split != "ood":
            images.append(self.request.cfg.protocol.id_val)
        cfg = self.request.cfg
        reading, protocol = cfg.dataset.recipe, cfg.protocol
        transform = [self.chain, reading.resize, reading.side, list(protocol.mean), list(protocol.std)]
        prepared = {"transform": transform, "precision": cfg.trainer.eval_precision, "change": change}
        return feature_key(weights, images, prepared)

    def loader(self) -> EvalLoader:
        """Batches of them."""
        cfg = self.request.cfg
        name = self.use.name if self.split == "ood" else f"{self.use.name} {self.split}"
        pixels = build_reading(cfg).open(self.listing, name, self.chain)
        normalise = Normalise(list(cfg.protocol.mean), list(cfg.protocol.std))
        return EvalLoader(pixels, self.listing.labels, normalise, cfg.trainer.eval_batch_size, device(cfg))


def _below(root: Path, files: Sequence[Path]) -> list[str]:
    """The names of files below a set's root; where some lie elsewhere, below the folder that all lie in."""
    names, folder = [str(file) for file in files], f"{root}{os.sep}"
    if all(name.startswith(folder) for name in names):
        return [name[len(folder) :] for name in names]  # `Path.relative_to` takes a second for 100,000 names
    return relative_names(files)


def trained_method(request: Request) -> Method:
    """The method with its final weights, on its device."""
    method = build_method(request.cfg)
    missing, unexpected = method.load_state_dict(load_file(request.run_dir / FINAL), strict=False)
    lost = [name for name in missing if not name.startswith(EPOCH_METRICS)]
    if lost or unexpected:
        raise RunError(
            f"{request.run_dir / FINAL} does not match this method: missing {lost}, unexpected {list(unexpected)}"
        )
    return method.to(device(request.cfg))


def _save_outliers(request: Request, method: Method) -> None:
    """One batch of outliers, as features of a set are saved."""
    outliers: Outliers | None = method.outliers()
    if outliers is None:
        return
    with torch.no_grad():
        given = method.of_points(outliers.values)
    if "logits" in given:
        given["logits"] = method.head.class_logits(given["logits"])
    if "z" in given:
        given["projection"] = given.pop("z")
    tensors = {**{name: value.float() for name, value in given.items()}, **outliers.columns}
    tensors["labels"] = outliers.source_class
    tensors = {name: value.cpu().contiguous() for name, value in tensors.items()}
    write_atomically(request.run_dir / OUTLIERS, save(tensors))


def redrawn(request: Request, changes: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The columns of outliers that the finished run's bank gives with other options of its synthesizer."""
    synthesizer: Synthesizer = build({**request.composed.plain("synthesizer"), **changes})
    weights = load_file(request.run_dir / FINAL)
    kept = {name: weights[f"memories.{name}.values"] for name in synthesizer.keeps()}
    recipe = request.composed.plain("dataset.recipe")
    dims = Dimensions(recipe["num_classes"], 0, request.composed.plain("head.projection_dim"))
    draw = generator(request.composed.plain("seed"), "after training", 0, 0)
    return {name: values.numpy() for name, values in synthesizer.sample(kept, dims, draw).columns.items()}


def load_outliers(run_dir: Path) -> Extracted | None:
    """The saved outliers of a run, where there are some; the labels are the classes from which they came."""
    path = run_dir / OUTLIERS
    if not path.is_file():
        return None
    return Extracted(load_file(path), hashlib.sha256(path.read_bytes()).hexdigest()[:12])

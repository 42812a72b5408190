"""Features once per set, every detector from them."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from ood_lab.config import Request, RunError
from ood_lab.config.image_sets import ImageSetUse
from ood_lab.datamodule import EvalLoader, Normalise
from ood_lab.dataset.base import ImageSet, Split
from ood_lab.evaluation.evaluator import Scoring, accuracy, metric_rows, score_all
from ood_lab.evaluation.extract import Extracted, extract, feature_key, features_path, load_features, save_features
from ood_lab.method.base import RUNNING, Method
from ood_lab.needs import ensure
from ood_lab.provenance import commit, hardware
from ood_lab.reader.base import Listing
from ood_lab.results.store import Results, Row, add_rows, options_text, read_rows
from ood_lab.run_dir import FINAL, OUTLIERS, claim, is_trained, locked, unscored
from ood_lab.storage import write_atomically
from ood_lab.task import report
from ood_lab.task.build import build, build_method, build_reading, device
from ood_lab.transform import Chain
from ood_lab.types import LinearHead, Outliers

ID_SPLITS: tuple[Split, ...] = ("train", "val", "test")
# What of a set's description changes no pixel; which files were read counts by itself.
UNSEEN = {
    "root", "how_to_get", "licence", "recipe", "layouts", "mean", "std", "_target_", "checksums", "downloads",
    "benchmark", "include", "exclude", "draw",
}  # fmt: skip


def run(request: Request) -> Results:
    """Score a trained run with the requested detectors and protocol, from saved features where there are any.

    Raises:
        RunError: the run is not trained yet.
    """
    if not is_trained(request):
        raise RunError(f"{request.run_id} is not trained yet; run the same command with task=train first")
    with locked(request):
        torch.set_num_threads(claim(request).trainer.threads)
        stands_on = ensure(request)
        measure(request)
        results = Results(request.run_id, request.run_dir, read_rows(request.run_dir), stands_on)
        report.write(request, results)
        report.show(request, results)
        return results


def measure(request: Request) -> None:
    """Extract what is not extracted yet, score with the detectors that lack rows, store rows."""
    names = unscored(request)
    if not names:
        return
    sets = feature_sets(request)
    weights = load_file(request.run_dir / FINAL)
    head = LinearHead(weights["backbone.fc.weight"], weights["backbone.fc.bias"])
    nodes = request.composed.plain("scorer")
    scorers = {name: build(nodes[name]) for name in names}
    options = {name: options_text(nodes[name]) for name in names}
    scored = score_all(scorers, sets, head, request.run_dir, options)
    protocol = request.cfg.protocol
    scoring = Scoring(protocol.fpr_rule, protocol.subset, protocol.draws)
    of_sets = {name: _of_set(request, name, sets[name]) for name in request.ood_sets}
    rows = [_accuracy_row(request, sets["test"])]
    for name in names:
        common = _row(request) | {"scorer": name, "options": options[name], "space": scorers[name].space}
        rows += metric_rows(scored[name], of_sets, scoring, common)
    add_rows(request.run_dir, rows)


def feature_sets(request: Request) -> dict[str, Extracted]:
    """Train, val, test and every OOD set of the protocol; the network is built only if some set is not saved yet."""
    digest = hashlib.sha256((request.run_dir / FINAL).read_bytes()).hexdigest()[:16]
    wanted: dict[str, tuple[ImageSetUse, Split]] = {split: (request.use("id"), split) for split in ID_SPLITS}
    wanted |= {name: (request.use(name), "ood") for name in request.ood_sets}
    sets: dict[str, Extracted] = {}
    method: Method | None = None
    for name, (use, split) in wanted.items():
        images = SetImages(request, use, split)
        path = features_path(request.run_dir, name, images.key(digest))
        if not path.is_file():
            method = method or trained_method(request)
            if name == "train":
                _save_outliers(request, method)
            loader = images.loader()
            save_features(path, extract(method, loader, name), loader.images)
        sets[name] = load_features(path)
    return sets


class SetImages:
    """The images of one split of one set, as a request's protocol prepares them."""

    def __init__(self, request: Request, use: ImageSetUse, split: Split) -> None:
        self.request, self.use, self.split = request, use, split
        protocol = request.cfg.protocol
        ood = split == "ood"
        self.chain: Chain = protocol.transforms.get(use.name, protocol.transform) if ood else "short_side"
        self.source: ImageSet = build(use.node)
        self._listing: Listing | None = None

    @property
    def listing(self) -> Listing:
        """Which images there are; read once."""
        if self._listing is None:
            self._listing = self.source.listing(self.split, self.request.cfg.protocol.id_val)
        return self._listing

    def key(self, weights: str) -> str:
        """The name of their features under these weights."""
        node = self.use.node
        described = {k: v for k, v in node.items() if k not in UNSEEN}
        images: list[Any] = [described, self.split]
        if node["layouts"]:
            # Where the files lie does not count, nor by which layout they were found.
            root = Path(node["root"])
            files = [(p.relative_to(root).as_posix(), p.stat().st_size) for p in self.listing.files]
            labels = hashlib.sha256(self.listing.labels.tobytes()).hexdigest()
            images += [files, len(self.listing), labels]
        elif self.split != "ood":
            images.append(self.request.cfg.protocol.id_val)
        reading, protocol = self.request.cfg.dataset.recipe, self.request.cfg.protocol
        transform = [self.chain, reading.resize, reading.side, list(protocol.mean), list(protocol.std)]
        return feature_key(weights, images, {"transform": transform})

    def loader(self) -> EvalLoader:
        """Batches of them."""
        cfg = self.request.cfg
        name = self.use.name if self.split == "ood" else f"{self.use.name} {self.split}"
        pixels = build_reading(cfg).open(self.listing, name, self.chain)
        normalise = Normalise(list(cfg.protocol.mean), list(cfg.protocol.std))
        return EvalLoader(pixels, self.listing.labels, normalise, cfg.trainer.eval_batch_size, device(cfg))


def trained_method(request: Request) -> Method:
    """The method with its final weights, on its device."""
    method = build_method(request.cfg)
    missing, unexpected = method.load_state_dict(load_file(request.run_dir / FINAL), strict=False)
    lost = [name for name in missing if not name.startswith(RUNNING)]
    if lost or unexpected:
        raise RunError(f"{request.run_dir / FINAL} is not this method's: lacks {lost}, has besides {unexpected}")
    return method.to(device(request.cfg))


def _save_outliers(request: Request, method: Method) -> None:
    """One batch of the outliers that the finished network would be trained with, for the feature map."""
    outliers: Outliers | None = method.outliers()
    if outliers is not None:
        tensors = {"values": outliers.values.float().cpu(), "source_class": outliers.source_class.cpu()}
        write_atomically(request.run_dir / OUTLIERS, save(tensors))


def _row(request: Request) -> Row:
    c = request.composed.choices
    return {
        "run_id": request.run_id,
        "method": c["method"],
        "dataset": c["dataset"],
        "backbone": c["backbone"],
        "synthesizer": c.get("synthesizer"),
        "seed": request.cfg.seed,
        "stage": request.cfg.method.stage,
        "protocol": request.cfg.protocol.name,
        "hardware": hardware(request.cfg.trainer.accelerator),
        "commit": commit(),
        "versions": {name: version(name) for name in ("ood-lab", "torch", "lightning")},
    }


def _of_set(request: Request, name: str, extracted: Extracted) -> Row:
    use = request.use(name)
    return {
        "group": use.role,
        "n_expected": use.expected,
        "layout": use.layout,
        "features": extracted.key,
        "convention": request.convention(name),
    }


def _accuracy_row(request: Request, test: Extracted) -> Row:
    return _row(request) | {
        "scorer": None,
        "options": None,
        "space": None,
        "ood_set": None,
        "group": None,
        "metric": "accuracy",
        "value": accuracy(test),
        "unit": "fraction",
        "n_id": len(test.tensors["labels"]),
        "n_ood": 0,
        "n_expected": None,
        "layout": request.use("id").layout,
        "features": test.key,
        "convention": request.convention(),
    }

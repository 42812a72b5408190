"""Features once per set, every detector from them."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from typing import Any

import torch
from safetensors.torch import load_file

from ood_lab.config import Request, RunError
from ood_lab.config.image_sets import image_set_config
from ood_lab.datamodule import EvalLoader, Normalise
from ood_lab.dataset.base import Split
from ood_lab.evaluation.evaluator import accuracy, metric_rows, score_all
from ood_lab.evaluation.extract import Extracted, extract, feature_key, load_features, save_features
from ood_lab.method.base import RUNNING, Method
from ood_lab.needs import ensure
from ood_lab.provenance import commit, hardware
from ood_lab.results.store import Results, Row, add_rows, options_text, read_rows
from ood_lab.run_dir import FINAL, claim, is_trained, locked, unscored
from ood_lab.task import report
from ood_lab.task.build import build, build_method, device
from ood_lab.types import Images, LinearHead, Outliers


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
    rule = request.cfg.protocol.fpr_rule
    options = {name: options_text(nodes[name], rule) for name in names}
    scored = score_all(scorers, sets, head, request.run_dir, options)
    rows = [_accuracy_row(request, sets["test"])]
    for name in names:
        common = _row(request) | {"scorer": name, "options": options[name], "space": scorers[name].space}
        rows += metric_rows(scored[name], request.groups, rule, common)
    add_rows(request.run_dir, rows)


def feature_sets(request: Request) -> dict[str, Extracted]:
    """Train, val, test and every OOD set of the protocol; the network is built only if some set is not saved yet."""
    weights = request.run_dir / FINAL
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
    data = str(request.cfg.paths.data)
    nodes: dict[str, tuple[dict[str, Any], Split]] = {
        split: (request.composed.plain("dataset"), split) for split in ("train", "val", "test")
    }
    nodes |= {name: (image_set_config(name, data, request.folder), "test") for name in request.ood_sets}
    transform = {"resize": 32, "mean": list(request.cfg.dataset.mean), "std": list(request.cfg.dataset.std)}
    sets: dict[str, Extracted] = {}
    method: Method | None = None
    for name, (node, split) in nodes.items():
        path = request.run_dir / "features" / f"{name}-{feature_key(digest, node, split, transform)}.safetensors"
        if not path.is_file():
            method = method or trained_method(request)
            if name == "train":
                _save_outliers(request, method)
            save_features(path, extract(method, _loader(request, node, split), name))
        sets[name] = load_features(path)
    return sets


def trained_method(request: Request) -> Method:
    """The method with its final weights, on its device."""
    method = build_method(request.cfg)
    missing, unexpected = method.load_state_dict(load_file(request.run_dir / FINAL), strict=False)
    lost = [name for name in missing if not name.startswith(RUNNING)]
    if lost or unexpected:
        raise RunError(f"{request.run_dir / FINAL} is not this method's: lacks {lost}, has besides {unexpected}")
    return method.to(device(request.cfg))


def _loader(request: Request, node: dict[str, Any], split: Split) -> EvalLoader:
    images = Images(*(part.to(device(request.cfg)) for part in build(node).load(split)))
    dataset = request.composed.plain("dataset")
    return EvalLoader(images, Normalise(dataset["mean"], dataset["std"]), request.cfg.trainer.eval_batch_size)


def _save_outliers(request: Request, method: Method) -> None:
    """One batch of the outliers that the finished network would be trained with, for the feature map."""
    outliers: Outliers | None = method.outliers()
    if outliers is not None:
        tensors = {"values": outliers.values.float().cpu(), "source_class": outliers.source_class.cpu()}
        save_features(request.run_dir / "features" / "outliers.safetensors", tensors)


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
        "convention": None,
    }

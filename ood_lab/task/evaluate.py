"""Features once per set, every detector from them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

import torch
from torch import Tensor

from ood_lab.config import Request, RunError
from ood_lab.config.identity import id_set_name, method_name
from ood_lab.config.objective import part_columns
from ood_lab.config.request import TUNED
from ood_lab.evaluation.evaluator import Scoring, accuracy, fit_key, load_scores, metric_rows, score_all, threshold
from ood_lab.evaluation.extract import Extracted
from ood_lab.needs import ensure
from ood_lab.progress import track
from ood_lab.provenance import commit, hardware
from ood_lab.results.store import Results, Row, add_rows, add_thresholds, options_text, read_rows
from ood_lab.run_dir import claim, is_trained, locked, mark_done, unscored, verify
from ood_lab.task import report, tuning
from ood_lab.task.features import Features
from ood_lab.task.measures import angle_rows, cost_rows, radius_rows
from ood_lab.task.normalisation import with_normalisation
from ood_lab.task.overlap import overlaps


def run(request: Request) -> Results:
    """Score a trained run with the requested detectors and protocol, from saved features where there are any.

    Raises:
        RunError: the run is not trained yet; or detectors can't work on its features (the rest is stored and shown).
    """
    if not is_trained(request):
        raise RunError(f"{request.run_id} is not trained yet; run the same command with task=train first")
    with locked(request):
        verify(request)
        request = with_normalisation(request)
        torch.set_num_threads(claim(request).trainer.threads)
        needed = ensure(request)
        refused = measure(request)
        results = Results(request.run_id, request.run_dir, read_rows(request.run_dir), needed)
        report.write(request, results)
        mark_done(request.run_dir)
        report.show(request, results)
        fail(refused)
        return results


def measure(request: Request) -> dict[str, str]:
    """Extract what is not extracted yet, score with the detectors that lack rows, store rows.

    Returns:
        the detectors that can't work on these features, and why.
    """
    features = Features(request)
    sets = [name for name in features.id_splits if name != "train"] + list(request.ood_sets)
    searched = {name for node in request.scorers.values() for name in node.get(TUNED, {}).get("sets", ())}
    features.enter(["train", *sets, *sorted(searched)])
    names = unscored(request)
    if not names:
        features.images.complete()
        return {}
    features.prepare(["train", *sets])
    made = {name: tuning.detector(request, name, features) for name in names}
    options = {name: options_text(request.scorers[name]) for name in names}
    keys = {name: features.key(name) for name in sets}
    val = keys.get("val")
    fits = {name: fit_key(features.key("train"), val, tuned) for name, (_, tuned) in made.items()}
    scored = {name: load_scores(request.run_dir, name, options[name], keys, fits[name]) for name in names}
    # Scores that are there serve another convention or rate; the rest is made.
    scorers = {name: scorer for name, (scorer, _) in made.items() if len(scored[name]) < len(sets)}
    features.prepare(sets, scorers.values())
    fresh, refused = score_all(
        scorers, features, sets, features.head, request.run_dir, options, fits, features.synthesized
    )
    scored |= fresh
    test = features.of("test")
    of_run = _row(request) | _of_id(request, test)
    shared = overlaps(request)
    of_sets = {name: _of_set(request, name, keys[name]) | {"overlap": shared.get(name)} for name in request.ood_sets}
    rows = [of_run | {"metric": "accuracy", "value": accuracy(test)}, *(of_run | row for row in features.training_rows)]
    rows += [*angle_rows(features, of_run, of_sets), *cost_rows(request, features, of_run, read_rows(request.run_dir))]
    limits: list[Row] = []
    differentiated: dict[str, tuple[Row, dict[str, Row], Row]] = {}
    for name in track([name for name in names if name not in refused], "metrics"):
        scorer, tuned = made[name]
        own = {"scorer": name, "options": options[name], "tuned": tuned}
        about = {"fit": fits[name], "space": scorer.space}
        common = _row(request) | own | about
        rows += metric_rows(scored[name], of_sets, _scoring(request), common)
        limits.append(own | _limit(request, scored[name], features))
        if name in request.cfg.local_radius:
            both = {"test": _of_id(request, test) | own | about, **of_sets}
            differentiated[name] = (limits[-1], both, common)
    add_thresholds(request.run_dir, limits)
    add_rows(request.run_dir, rows)
    for name, (limit, both, common) in differentiated.items():
        try:
            found = radius_rows(request, features, made[name][0], scored[name], limit, both, common)
            add_rows(request.run_dir, found)
        except ValueError as error:
            refused[name] = f"local_radius: {error}; its other numbers are stored, leave it out of local_radius"
    features.images.complete()
    return refused


def fail(refused: Mapping[str, str]) -> None:
    """Say which detectors can't work on the features; the rest is stored and reported by then.

    Raises:
        RunError: there are such detectors.
    """
    if refused:
        reasons = "; ".join(f"scorer={name}: {reason}" for name, reason in refused.items())
        raise RunError(f"{reasons}. The other detectors are stored")


def _limit(request: Request, scores: Mapping[str, Tensor], features: Features) -> Row:
    """The columns of a detector's threshold."""
    limit, images = threshold(scores, request.cfg.id_rate)
    held = "val" if "val" in scores else "test"
    return {
        "id_rate": request.cfg.id_rate,
        "threshold": limit,
        "n_id": images,
        "held": held,
        "precision": request.cfg.trainer.eval_precision,
        "train": features.key("train"),
        "features": features.key(held),
        "convention": request.convention(),
    }


def _scoring(request: Request) -> Scoring:
    protocol = request.cfg.protocol
    rules = {"fpr_rule": protocol.fpr_rule, "aupr_rule": protocol.aupr_rule}
    return Scoring(**rules, subset=protocol.subset, draws=protocol.draws, bootstrap=request.cfg.bootstrap)


def _row(request: Request) -> Row:
    c = request.composed.choices
    return {
        "run_id": request.run_id,
        "method": method_name(request.composed),
        "dataset": id_set_name(request.composed),
        "backbone": c["backbone"],
        **part_columns(request.composed),
        "seed": request.cfg.seed,
        "stage": request.cfg.method.stage,
        "protocol": request.cfg.protocol.name,
        "hardware": hardware(request.cfg.trainer.accelerator),
        "commit": commit(),
        "versions": {name: version(name) for name in ("ood-lab", "torch", "lightning")},
    }


def _of_set(request: Request, name: str, features: str) -> Row:
    use = request.use(name)
    return {
        "group": use.role,
        "n_expected": use.expected,
        "layout": use.layout,
        "features": features,
        "convention": request.convention(name),
    }


def _of_id(request: Request, test: Extracted) -> Row:
    """The columns of a number that is about the ID set alone."""
    return {
        **dict.fromkeys(
            ("scorer", "options", "tuned", "fit", "space", "ood_set", "group", "low", "high", "n_expected", "overlap")
        ),
        "unit": "fraction",
        "n_id": len(test.tensors["labels"]),
        "n_ood": 0,
        "layout": request.use("id").layout,
        "features": test.key,
        "convention": request.convention(),
    }

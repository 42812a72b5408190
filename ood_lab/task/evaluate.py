"""Features once per set, every detector from them: features, detectors, scores, rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import torch
from torch import Tensor

from ood_lab.config.detectors import TUNED
from ood_lab.config.experiment import Experiment
from ood_lab.config.identity import backbone_name, id_set_name, method_name
from ood_lab.config.objective import part_columns
from ood_lab.errors import RunError
from ood_lab.evaluation.evaluator import Scoring, accuracy, metric_rows, threshold
from ood_lab.evaluation.scores import RunDetector, Scores, fit_key, score_all
from ood_lab.progress import track
from ood_lab.results.store import Results, Row, add_rows, add_thresholds, options_text, read_rows
from ood_lab.runs.claim import claim, verify
from ood_lab.runs.outstanding import unscored
from ood_lab.runs.prerequisites import ensure
from ood_lab.runs.provenance import commit, hardware
from ood_lab.runs.run_folder import RunFolder
from ood_lab.task import report, tuning
from ood_lab.task.features import Features
from ood_lab.task.measures import angle_rows, cost_rows, radius_rows, stage_rows
from ood_lab.task.normalisation import with_normalisation
from ood_lab.task.overlap import overlaps

Scored = Mapping[str, Mapping[str, Tensor]]  # detector -> set -> scores


def run(experiment: Experiment) -> Results:
    """Score a trained run with the detectors and protocol asked for, from stored features where there are any.

    Raises:
        RunError: detectors can't work on its features (the rest is stored and shown).
    """
    folder = RunFolder(experiment.run_dir)
    with folder.lock():
        verify(experiment)
        experiment = claim(with_normalisation(experiment))
        torch.set_num_threads(experiment.trainer.threads)
        below = ensure(experiment)
        refused = measure(experiment)
        results = Results(experiment.run_id, folder.path, read_rows(folder.path), below)
        report.write(experiment, results)
        folder.mark_done()
        report.show(experiment, results)
        fail(refused)
        return results


def measure(experiment: Experiment) -> dict[str, str]:
    """Measure what is not stored yet: features of every set, scores of every detector, rows.

    Returns:
        the detectors that can't work on these features, and why.
    """
    features = Features(experiment)
    sets = [name for name in features.id_splits if name != "train"] + list(experiment.ood_sets)
    searched = {name for node in experiment.detectors.values() for name in node.get(TUNED, {}).get("sets", ())}
    features.enter(["train", *sets, *sorted(searched)])
    names = unscored(experiment)
    refused: dict[str, str] = {}
    if names:
        features.prepare(["train", *sets])
        detectors = [_detector(experiment, name, features) for name in names]
        run = (features, sets, features.head, experiment.run_dir, features.synthesized)
        features.prepare(sets, [d.scorer for d in detectors if not Scores(d, *run).is_complete()])
        scores, refused = score_all(detectors, *run)
        measured = [detector for detector in detectors if detector.name not in refused]
        refused |= _store(experiment, features, measured, scores)
    features.images.complete()
    return refused


def _detector(experiment: Experiment, name: str, features: Features) -> RunDetector:
    """A detector with the options that were asked for, or found by a search."""
    scorer, tuned = tuning.detector(experiment, name, features)
    val = features.key("val") if "val" in features.id_splits else None
    fit = fit_key(features.key("train"), val, tuned)
    return RunDetector(name, scorer, options_text(experiment.detectors[name]), fit, tuned)


def _store(
    experiment: Experiment, features: Features, detectors: Sequence[RunDetector], scores: Scored
) -> dict[str, str]:
    """Store thresholds and rows: of the run, of each detector on each set, and local radii where they are asked for.

    Returns:
        the detectors whose local radii can't be measured, and why.
    """
    columns = _columns(experiment, features)
    rows = [columns.of_run | {"metric": "accuracy", "value": accuracy(features.of("test"))}]
    rows += [columns.of_run | row for row in features.training_rows]
    rows += angle_rows(features, columns.of_run, columns.of_sets)
    rows += cost_rows(features, columns.of_run, read_rows(experiment.run_dir))
    rows += stage_rows(experiment, columns.of_run)
    limits: dict[str, Row] = {}
    for detector in track(detectors, "metrics"):
        limits[detector.name] = _limit(experiment, detector, scores[detector.name], features)
        common = columns.common | _of_detector(detector)
        rows += metric_rows(scores[detector.name], columns.of_sets, _scoring(experiment), common)
    add_thresholds(experiment.run_dir, limits.values())
    add_rows(experiment.run_dir, rows)
    refused: dict[str, str] = {}
    for detector in detectors:
        if detector.name not in experiment.local_radius:
            continue
        own = _of_detector(detector)
        of_sets = {"test": columns.of_id | own, **columns.of_sets}
        try:
            add_rows(
                experiment.run_dir,
                radius_rows(
                    features, detector, scores[detector.name], limits[detector.name], of_sets,
                    columns.common | own,
                ),
            )  # fmt: skip
        except ValueError as error:
            reason = f"local_radius: {error}; its other numbers are stored, leave it out of local_radius"
            refused[detector.name] = reason
    return refused


def fail(refused: Mapping[str, str]) -> None:
    """Say which detectors can't work on the features; the rest is stored and reported by then.

    Raises:
        RunError: there are such detectors.
    """
    if refused:
        reasons = "; ".join(f"scorer={name}: {reason}" for name, reason in refused.items())
        raise RunError(f"{reasons}. The other detectors are stored")


# The columns of rows.


@dataclass(frozen=True)
class _Columns:
    """Columns that rows share.

    Args:
        common: of every row.
        of_id: those of a number that is about the ID set alone, besides.
        of_sets: those of each OOD set.
    """

    common: Row
    of_id: Row
    of_sets: dict[str, Row]

    @property
    def of_run(self) -> Row:
        """Of a number that is about the run alone."""
        return self.common | self.of_id


def _columns(experiment: Experiment, features: Features) -> _Columns:
    shared = overlaps(experiment)
    of_sets = {
        name: {
            "group": experiment.use(name).role,
            "n_expected": experiment.use(name).expected,
            "layout": experiment.use(name).layout,
            "features": features.key(name),
            "convention": experiment.convention(name),
            "overlap": shared.get(name),
        }
        for name in experiment.ood_sets
    }
    test = features.of("test")
    none = ("scorer", "options", "tuned", "fit", "space", "ood_set", "group", "low", "high", "n_expected", "overlap")
    of_id = {
        **dict.fromkeys(none),
        "unit": "fraction",
        "n_id": len(test.tensors["labels"]),
        "n_ood": 0,
        "layout": experiment.use("id").layout,
        "features": test.key,
        "convention": experiment.convention(),
    }
    return _Columns(_of_run(experiment), of_id, of_sets)


def _of_run(experiment: Experiment) -> Row:
    declared = experiment.backbone.declared
    return {
        "run_id": experiment.run_id,
        "method": method_name(experiment),
        "dataset": id_set_name(experiment),
        "backbone": backbone_name(experiment) if "named_by" in declared else experiment.choices["backbone"],
        **part_columns(experiment),
        "seed": experiment.seed,
        "stage": experiment.method.options["stage"],
        "protocol": experiment.protocol.name,
        "hardware": hardware(experiment.trainer.accelerator),
        "commit": commit(),
        "versions": {name: version(name) for name in ("ood-lab", "torch", "lightning")},
    }


def _of_detector(detector: RunDetector) -> Row:
    return {
        "scorer": detector.name,
        "options": detector.options,
        "tuned": detector.tuned,
        "fit": detector.fit,
        "space": detector.scorer.space,
    }


def _limit(experiment: Experiment, detector: RunDetector, scores: Mapping[str, Tensor], features: Features) -> Row:
    """The columns of a detector's threshold."""
    limit, images = threshold(scores, experiment.id_rate)
    held = "val" if "val" in scores else "test"
    return {
        "scorer": detector.name,
        "options": detector.options,
        "tuned": detector.tuned,
        "id_rate": experiment.id_rate,
        "threshold": limit,
        "n_id": images,
        "held": held,
        "precision": experiment.trainer.eval_precision,
        "train": features.key("train"),
        "features": features.key(held),
        "convention": experiment.convention(),
    }


def _scoring(experiment: Experiment) -> Scoring:
    protocol = experiment.protocol
    return Scoring(protocol.fpr_rule, protocol.aupr_rule, protocol.subset, protocol.draws, experiment.bootstrap)

"""What is measured of a run besides detection: angles on the sphere, local radii, what a batch of outliers costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor

from ood_lab.config.experiment import Experiment
from ood_lab.evaluation.angles import Centroids, id_angles, separation
from ood_lab.evaluation.cost import cost_of
from ood_lab.evaluation.extract import Extracted
from ood_lab.evaluation.radius import gradient_norms, local_radius
from ood_lab.evaluation.scores import RunDetector, add_scores, fit, load_norms, norms_key, scores_path
from ood_lab.progress import track
from ood_lab.results.store import Row, radius_metric
from ood_lab.runs.cost import EMBEDDING, bytes_of, seconds_of, stages_of
from ood_lab.task.features import Features


def angle_rows(features: Features, of_id: Row, of_sets: Mapping[str, Row]) -> Iterator[Row]:
    """Separation of each OOD set, dispersion and compactness of the classes, in the space that the method trains.

    Args:
        of_id: the columns of a number about the ID set alone.
        of_sets: for each OOD set its own columns.
    """
    train, test = features.of("train"), features.of("test")
    space = "projection" if "projection" in test.tensors else "penultimate"
    known, tested = train.features(space), test.features(space)
    if known.labels is None or tested.labels is None:
        return
    centroids = Centroids(known.features, known.labels)
    common = {**of_id, "space": space, "unit": "degrees"}
    for name, value in id_angles(tested.features, tested.labels, centroids):
        yield {**common, "metric": name, "value": value}
    for name in track(list(of_sets), "angles"):
        points = features.of(name).features(space).features
        value = separation(points, centroids)
        of_set = {**common, **of_sets[name], "ood_set": name, "n_ood": len(points)}
        yield {**of_set, "metric": "separation", "value": value}


def cost_rows(features: Features, of_id: Row, stored: Sequence[Row]) -> list[Row]:
    """Time and memory of drawing one batch of outliers from the finished run's bank; what is stored stays.

    Nothing where there is no synthesizer, or its bank never was full.
    """
    if any(row["metric"] == "synthesis_time" for row in stored) or features.synthesized is None:
        return []
    cost = cost_of(features.method.outliers, features.data.device, "time the synthesizer")
    measured = {
        "synthesis_time": (cost.seconds, "s"),
        "synthesis_memory": (cost.peak_bytes / 2**20, "MiB"),
        "synthesized": (len(features.synthesized.tensors["labels"]), "points"),
    }
    return [{**of_id, "metric": name, "value": value, "unit": unit} for name, (value, unit) in measured.items()]


def stage_rows(experiment: Experiment, of_id: Row) -> Iterator[Row]:
    """Time and bytes of each stage of a chain of runs (BOOD, Tables 4 and 5), as "stage_time/encoder".

    Time is that of the work itself, however often it was interrupted, summed over the devices that shared it.
    """
    for name, run in stages_of(experiment).items():
        others = () if name == "encoder" else (EMBEDDING,)  # of any other classifier detectors take these
        measured = {"time": (seconds_of(run.run_dir, others), "s"), "bytes": (bytes_of(run), "bytes")}
        for what, (value, unit) in measured.items():
            if value is not None:
                yield {**of_id, "metric": f"stage_{what}/{name}", "value": float(value), "unit": unit}


def radius_rows(
    features: Features,
    detector: RunDetector,
    scores: Mapping[str, Tensor],
    limit: Row,
    of_sets: Mapping[str, Row],
    common: Row,
) -> list[Row]:
    """The median local radius of a detector (GReg, Eq. 4) on the ID test images and on each OOD set.

    Args:
        scores: of the detector, by set.
        limit: the columns of its threshold.
        of_sets: for "test" and each OOD set its own columns.
        common: the columns that its rows share.

    Raises:
        ValueError: the detector's score can't be differentiated, or has a gradient that is not finite.
    """
    norms = _norms(features, detector, {name: row["features"] for name, row in of_sets.items()})
    rows = []
    for name, own in of_sets.items():
        radii = local_radius(scores[name], norms[name], limit["threshold"], ood=name != "test")
        count = {"n_id": len(radii), "n_ood": 0} if name == "test" else {"n_id": 0, "n_ood": len(radii)}
        ood_set = None if name == "test" else name
        measured = {"metric": radius_metric(limit["id_rate"]), "value": float(radii.median()), "unit": "normalised"}
        rows.append({**common, **own, **count, **measured, "ood_set": ood_set, "low": None, "high": None})
    return rows


def _norms(features: Features, detector: RunDetector, keys: Mapping[str, str]) -> dict[str, Tensor]:
    """The norms of the score's gradient by set, from a pass with gradients where they are not stored yet."""
    name, run_dir = detector.name, features.folder.path
    norms = load_norms(run_dir, name, detector.options, keys, detector.fit)
    missing = [key for key in keys if key not in norms]
    if not missing:
        return norms
    network = features.method.eval()
    # Fitted outside inference mode.
    fitted = fit(deepcopy(detector.scorer), features, features.head, "val" in features.id_splits)

    def score(images: Tensor) -> Tensor:
        given = {name: tensor.cpu() for name, tensor in network.extract(images).items()}  # where detectors are fitted
        labels = torch.full((len(images),), -1)
        return fitted.score(Extracted({**given, "labels": labels}).features(fitted.space))

    for key in missing:
        loader = features.loader(key)
        norms[key] = gradient_norms(track(loader, f"gradient of {name} on {key}", len(loader)), score)
        entry = {norms_key(key, keys[key], detector.fit): norms[key]}
        add_scores(scores_path(run_dir, name, detector.options), entry)
    return norms

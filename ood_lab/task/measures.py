"""What is measured of a run besides detection: angles on the sphere, and what a batch of outliers costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ood_lab.config import Request
from ood_lab.evaluation.angles import Centroids, id_angles, separation
from ood_lab.evaluation.cost import cost_of
from ood_lab.progress import track
from ood_lab.results.store import Row
from ood_lab.task.build import device
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


def cost_rows(request: Request, features: Features, of_id: Row, stored: Sequence[Row]) -> list[Row]:
    """Time and memory of drawing one batch of outliers from the finished run's bank; what is stored stays.

    Nothing where there is no synthesizer, or its bank never was full.
    """
    if any(row["metric"] == "synthesis_time" for row in stored) or features.synthesized is None:
        return []
    cost = cost_of(features.method.outliers, device(request.cfg), "time the synthesizer")
    measured = {
        "synthesis_time": (cost.seconds, "s"),
        "synthesis_memory": (cost.peak_bytes / 2**20, "MiB"),
        "synthesized": (len(features.synthesized.tensors["labels"]), "points"),
    }
    return [{**of_id, "metric": name, "value": value, "unit": unit} for name, (value, unit) in measured.items()]

"""How a network spreads its features on the sphere: separation, dispersion, compactness in degrees (HamOS, Eq. 14).

Each is the angle of a mean cosine, as in HamOS's release. Shape letters: N rows, C classes, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.geometry.gaussian import class_means

RELEASED_BATCH = 200


class Centroids:
    """Unit class means of unit training features; the release takes these, not the prototypes of the training.

    Args:
        train_ND: features.
        labels_N: classes; those that don't occur have no centroid.
    """

    def __init__(self, train_ND: Tensor, labels_N: Tensor) -> None:
        means, _ = class_means(_unit(train_ND), labels_N)
        self.values, self.classes = F.normalize(means, dim=1), labels_N.unique()

    def own(self, labels_N: Tensor) -> Tensor:
        """The place of each label's centroid [N]; -1 for a class without."""
        place = torch.searchsorted(self.classes, labels_N).clamp(max=len(self.classes) - 1)
        return torch.where(self.classes[place] == labels_N, place, -1)


def separation(ood_ND: Tensor, centroids: Centroids) -> float:
    """Angle of mean_i max_c z_i . mu_c over OOD rows: how far they lie from the nearest class."""
    return _degrees((_unit(ood_ND) @ centroids.values.T).amax(1).mean())


def dispersion(centroids: Centroids) -> float:
    """Angle of the mean of mu_i . mu_j, i != j: how far classes lie from one another; nan for one class."""
    similarity, count = centroids.values @ centroids.values.T, len(centroids.values)
    return _degrees((similarity.sum() - similarity.trace()) / (count * (count - 1))) if count > 1 else math.nan


def compactness(test_ND: Tensor, labels_N: Tensor, centroids: Centroids) -> float:
    """Angle of mean_i z_i . mu_{y_i}: how far rows lie from their class."""
    place = centroids.own(labels_N)
    known = place >= 0
    return _degrees((_unit(test_ND)[known] * centroids.values[place[known]]).sum(1).mean())


def compactness_released(test_ND: Tensor, labels_N: Tensor, centroids: Centroids) -> float:
    """What HamOS's release prints as compactness: the angle of the mean of z_i . mu_{y_j} over all i, j of a batch.

    Rows come sorted by class, 200 a batch: pairs of different classes count, too (6 % of them on CIFAR-10, 62 % on
    CIFAR-100).
    """
    place = centroids.own(labels_N)
    order = place.argsort(stable=True)
    order = order[place[order] >= 0]
    z, means = _unit(test_ND)[order], centroids.values[place[order]]
    batches = zip(z.split(RELEASED_BATCH), means.split(RELEASED_BATCH), strict=True)
    total = sum((len(rows) * (rows.mean(0) @ own.mean(0)) for rows, own in batches), z.new_zeros(()))
    return _degrees(total / len(z))


def id_angles(test_ND: Tensor, labels_N: Tensor, centroids: Centroids) -> Iterator[tuple[str, float]]:
    """What is about the ID set alone, by name."""
    yield "dispersion", dispersion(centroids)
    yield "compactness", compactness(test_ND, labels_N, centroids)
    yield "compactness_released", compactness_released(test_ND, labels_N, centroids)


def _unit(rows: Tensor) -> Tensor:
    return F.normalize(rows.double(), dim=1)


def _degrees(cosine: Tensor) -> float:
    return math.degrees(float(cosine.clamp(-1, 1).acos()))  # nan stays nan

"""GReg+'s choice: of each cluster the lowest and the highest energies (GReg, Algorithm 1)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ood_lab.geometry.clustered import clusters_of, extremes, filled
from ood_lab.loss.energy import energy
from ood_lab.parts import Rows
from ood_lab.selector.base import ClusterSelector


class EnergyKMeans(ClusterSelector):
    """K-means on the directions of penultimate features; then of each cluster as many from below as from above.

    Low energies are of images that the energy loss still has to move, high ones of those whose surroundings the
    gradient penalty flattens. Of `take` images each cluster gives take / (2 clusters) on either side; one with fewer
    images gives all of them once, and random candidates make up for the rest, as in the released code.

    There are no more clusters than half of the images taken, so that each gives two (the paper has one for each ID
    image of the step, the code 64 at batches of 64).
    """

    reads: ClassVar = ("features", "logits")

    def choose(self, rows: Rows, count: int, take: int, generator: torch.Generator) -> Tensor:
        clusters = min(self.clusters, max(1, take // 2), count)
        labels = clusters_of(rows.features, clusters, generator, self.engine)
        each = max(1, take // (2 * clusters))
        return filled(extremes(energy(rows.class_logits), labels, each, each), take, generator)

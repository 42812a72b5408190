"""Diverse outliers: of each cluster the candidates that look least like outliers (DOS, Jiang et al. 2024)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ood_lab.geometry.clustered import clusters_of, extremes, filled
from ood_lab.loss.absent_class import absent_log_odds
from ood_lab.parts import Rows
from ood_lab.selector.base import ClusterSelector


class DOS(ClusterSelector):
    """K-means on the directions of penultimate features; then of each cluster the lowest p(K + 1).

    There are no more clusters than images taken.
    """

    reads: ClassVar = ("features", "logits", "absent")

    def choose(self, rows: Rows, count: int, take: int, generator: torch.Generator) -> Tensor:
        clusters = min(self.clusters, take, count)
        labels = clusters_of(rows.features, clusters, generator, self.engine)
        hardness = absent_log_odds(rows.class_logits, rows.absent)
        return filled(extremes(hardness, labels, take // clusters, 0), take, generator)

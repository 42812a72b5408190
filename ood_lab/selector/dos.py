"""Diverse outliers: of each cluster the candidates that look least like outliers (DOS, Jiang et al. 2024)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ood_lab.clustered import Engine, clusters_of, extremes, filled
from ood_lab.config.ranges import PositiveInt
from ood_lab.loss.absent_class import absent_log_odds
from ood_lab.parts import Rows
from ood_lab.selector.base import StepSelector


class DOS(StepSelector):
    """K-means on the directions of penultimate features; then of each cluster the lowest p(K + 1).

    Args:
        clusters: at most; as many as images are taken where these are fewer.
        engine: faiss is faster for some hundred candidates on the CPU, and starts from random centres.
    """

    reads: ClassVar = ("features", "logits", "absent")

    def __init__(
        self, *, candidates: PositiveInt | None = None, clusters: PositiveInt = 64, engine: Engine = "torch"
    ) -> None:
        super().__init__(candidates=candidates)
        self.clusters, self.engine = clusters, engine

    def choose(self, rows: Rows, count: int, take: int, generator: torch.Generator) -> Tensor:
        clusters = min(self.clusters, take, count)
        labels = clusters_of(rows.features, clusters, generator, self.engine)
        hardness = absent_log_odds(rows.class_logits, rows.absent)
        return filled(extremes(hardness, labels, take // clusters, 0), take, generator)

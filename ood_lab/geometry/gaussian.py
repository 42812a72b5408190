"""Gaussians around class means: means, covariance and whitening, in float64. Shapes: N rows, C classes, D features."""

from __future__ import annotations

import torch
from torch import Tensor


def class_means(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Means [C, D] of the classes that occur, and the rank [N] of each row's class among them."""
    _, rank, counts = labels.unique(return_inverse=True, return_counts=True)
    means = x.new_zeros(len(counts), x.shape[1]).index_add_(0, rank, x) / counts.unsqueeze(1)
    return means, rank


def whitener(centred: Tensor) -> Tensor:
    """W [D, K] with W W' the pseudo-inverse of the covariance of centred rows [N, D] (divided by N).

    Directions without variance (dead units, fewer rows than features) are left out.
    """
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    kept = values > values.max() * len(values) * torch.finfo(values.dtype).eps
    return vectors[:, kept] / values[kept].sqrt()


class TiedGaussians:
    """A Gaussian around each class mean under one covariance, that of the class-centred rows (divided by their number).

    Args:
        x: rows [N, D] in float64.
        labels: classes [N].
    """

    def __init__(self, x: Tensor, labels: Tensor) -> None:
        means, rank = class_means(x, labels)
        self.whiten = whitener(x - means[rank])
        self.means = means @ self.whiten

    def nearest(self, x: Tensor) -> Tensor:
        """min_c (x - mu_c)' S^+ (x - mu_c) [N]."""
        return torch.cdist(x @ self.whiten, self.means).amin(1).square()

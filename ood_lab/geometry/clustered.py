"""Choosing rows by clusters: some of each, and random ones for what is left. Shape letter: N rows."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.geometry.kmeans import kmeans, kmeans_faiss

Engine = Literal["torch", "faiss"]


def clusters_of(features: Tensor, clusters: int, generator: torch.Generator, engine: Engine) -> Tensor:
    """The cluster of each row [N] by its direction: k-means on features of unit norm."""
    find = kmeans if engine == "torch" else kmeans_faiss
    directions = F.normalize(features.float(), dim=1)
    # Centred, so that distances between features that lie close together keep their digits.
    return find(directions - directions.mean(0), clusters, generator)


def extremes(scores_N: Tensor, labels_N: Tensor, low: int, high: int) -> Tensor:
    """Which rows are among the `low` lowest or the `high` highest scores of their cluster [N].

    Of equal scores the first count as lowest and the last as highest; a score that is no number counts as highest. A
    cluster with fewer rows gives each of them once.
    """
    finite_N = scores_N.nan_to_num(float("inf"), posinf=float("inf"), neginf=float("-inf"))
    order_N = finite_N.sort(stable=True).indices
    order_N = order_N[labels_N[order_N].sort(stable=True).indices]
    sorted_N = labels_N[order_N]
    # The first and the last place of each row's cluster among the sorted rows.
    first_N = torch.searchsorted(sorted_N, sorted_N)
    last_N = torch.searchsorted(sorted_N, sorted_N, right=True) - 1
    place_N = torch.arange(len(order_N), device=order_N.device)
    wanted_N = (place_N - first_N < low) | (last_N - place_N < high)
    return torch.zeros_like(wanted_N).scatter(0, order_N, wanted_N)


def filled(wanted_N: Tensor, take: int, generator: torch.Generator) -> Tensor:
    """The numbers of the wanted rows and, for what is left of `take`, of random others; in a fixed shape."""
    draw_N = torch.rand(len(wanted_N), generator=generator, device=wanted_N.device)
    return torch.where(wanted_N, -1.0, draw_N).sort(stable=True).indices[:take]

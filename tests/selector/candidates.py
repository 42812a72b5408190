"""Candidates in groups that any k-means on directions finds, for tests of selectors."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ood_lab.geometry.kmeans import kmeans, kmeans_faiss
from ood_lab.parts import Rows
from tests.views import normal, normalise

SIZES = (9, 7, 3, 1, 10, 4)
CLASSES = 5


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def groups_of_directions(seed: int = 0) -> tuple[Tensor, list[int]]:
    """Features along one axis for each group, of any length, in random order; and the group of each."""
    order = torch.randperm(sum(SIZES), generator=seeded(seed))
    group = torch.arange(len(SIZES)).repeat_interleave(torch.tensor(SIZES))[order]
    features = torch.eye(len(SIZES), dtype=torch.float64)[group] + 0.001 * normal(len(group), len(SIZES), seed=seed)
    return features * (2 * normal(len(group), 1, seed=seed + 1)).exp(), group.tolist()


def rows_of(features: Tensor, outputs: Tensor) -> Rows:
    """Rows of a head with one more output than there are classes."""
    return Rows(features=features, logits=outputs, absent=outputs[:, -1:]).of_classes(outputs.shape[1] - 1)


def outputs(count: int, seed: int = 0) -> Tensor:
    """Of a head for the classes and one more, whose last output is far from the others."""
    found = 3 * normal(count, CLASSES + 1, seed=seed)
    found[:, -1] *= 4
    return found


def energies(found: Tensor) -> list[float]:
    """-log sum exp over the outputs of the classes."""
    return [-math.log(sum(math.exp(x) for x in row[:-1])) for row in found.tolist()]


def absent_probabilities(found: Tensor) -> list[float]:
    """The softmax over all outputs, of the last."""
    return [math.exp(row[-1]) / sum(math.exp(x) for x in row) for row in found.tolist()]


def unit_clusters(features: Tensor, clusters: int, generator: torch.Generator, engine: str) -> list[int]:
    """K-means on features of unit norm, normalised row by row."""
    find: Callable[..., Tensor] = {"torch": kmeans, "faiss": kmeans_faiss}[engine]
    return find(torch.tensor([normalise(row) for row in features.tolist()]), clusters, generator).tolist()


def degenerate(count: int) -> dict[str, Rows]:
    """Candidates that tell a selector little or nothing."""
    features, found = normal(count, 4).float(), outputs(count).float()
    some = torch.arange(count) % 3 == 0
    return {
        "equal features": rows_of(torch.ones(count, 4), found),
        "zero features": rows_of(torch.zeros(count, 4), found),
        "some zero features": rows_of(features.masked_fill(some[:, None], 0), found),
        "equal outputs": rows_of(features, torch.zeros(count, CLASSES + 1)),
        "some outputs are no numbers": rows_of(features, found.masked_fill(some[:, None], math.nan)),
        "no output is a number": rows_of(features, found * math.nan),
        "infinite outputs": rows_of(features, found.masked_fill(some[:, None], math.inf)),
        "outputs of minus infinity": rows_of(features, found.masked_fill(some[:, None], -math.inf)),
        "features are no numbers": rows_of(features * math.nan, found),
        "half precision": rows_of(features.bfloat16(), found.bfloat16()),
    }


def assert_valid(found: Tensor, count: int, take: int) -> None:
    """Numbers of candidates, none twice, as many as asked or all."""
    assert found.dtype == torch.int64
    assert found.shape == (min(count, take),)
    assert len(set(found.tolist())) == len(found)
    assert set(found.tolist()) <= set(range(count))

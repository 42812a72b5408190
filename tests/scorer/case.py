"""A small trained-looking classifier's outputs: training and test features with logits that its head gives."""

from __future__ import annotations

import torch

from ood_lab.types import FeatureSet, LinearHead

CLASSES, DIM = 5, 16


def head() -> LinearHead:
    draw = torch.Generator().manual_seed(0)
    return LinearHead(
        torch.randn(CLASSES, DIM, generator=draw, dtype=torch.float64),
        torch.randn(CLASSES, generator=draw, dtype=torch.float64),
    )


def outputs(rows: int, seed: int, labelled: bool = True) -> FeatureSet:
    """Non-negative features (as behind a ReLU) around class means, in float64, and their logits."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % CLASSES
    noise = torch.randn(rows, DIM, generator=draw, dtype=torch.float64)
    features = (noise + head().weight[labels] * 0.8).relu()
    return FeatureSet(features, features @ head().weight.T + head().bias, labels if labelled else None)


def as_given(name: str, data: FeatureSet) -> FeatureSet:
    """The features in the shape that a detector is handed: with shifts for csi, one number where it reads one."""
    if name == "csi":
        return data._replace(features=data.features.unflatten(1, (2, DIM // 2)))
    return data._replace(features=data.features[:, 2:3]) if name in ("absent_class", "weighted_energy") else data


TRAIN, TEST = outputs(200, 1), outputs(30, 2, labelled=False)

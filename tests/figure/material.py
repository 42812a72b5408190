"""Small material for the figures' tests."""

from __future__ import annotations

import numpy as np

from ood_lab.results.material import Material, RunMaterial


def material(outliers: bool = True, curves: bool = True) -> Material:
    """Two runs, two detectors, one near and one far set."""
    random = np.random.default_rng(0)

    def run(label: str, last: bool) -> RunMaterial:
        scores = {
            name: {"test": random.normal(size=200), "near": random.normal(1, 1, 150), "far": random.normal(3, 1, 100)}
            for name in ("msp", "knn")
        }
        features = {name: random.normal(size=(80, 6)) for name in ("test", "near", "far")}
        points = random.normal(size=(30, 6))
        return RunMaterial(
            label,
            [{"step": s, "loss/total": 1 / s, "lr": 0.1} for s in (10, 20)]
            + [{"step": 20, "epoch/train_accuracy": 0.5, "epoch/val_accuracy": 0.4}]
            if curves
            else [],
            scores,
            features,
            random.integers(0, 3, 80),
            points / np.linalg.norm(points, axis=1, keepdims=True) if outliers and last else None,
        )

    return Material([run("ce (pretrained)", False), run("hamos (fine-tuned)", True)], {"near": "near", "far": "far"})

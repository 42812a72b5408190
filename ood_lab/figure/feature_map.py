"""ID, OOD and synthesized features on a plane (the kind of picture in HamOS, Figures 5 and 7)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from matplotlib.figure import Figure

from ood_lab.config.ranges import NonNegativeInt, PositiveInt
from ood_lab.figure.base import OUTLIER_COLOUR, FigureKind, colours, tidy
from ood_lab.results.material import Array, Material, RunMaterial


def flatten(points: Array, projection: Literal["tsne", "pca"], seed: int) -> Array:
    """Points [N, D] on a plane [N, 2]."""
    centred = points - points.mean(0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
    plane: Array = centred @ axes.T
    if projection == "pca":
        return plane
    from sklearn.manifold import TSNE

    scaled = plane / plane[:, 0].std() * 1e-4  # scikit-learn's own PCA start, here without its randomised solver
    tsne = TSNE(perplexity=min(30, (len(points) - 1) / 3), init=scaled.astype(np.float32), random_state=seed, n_jobs=1)
    flat: Array = tsne.fit_transform(points)
    return flat


class FeatureMap(FigureKind):
    """The run's own feature space: ID test images coloured by class, OOD sets and synthesized outliers over them.

    Args:
        projection: "tsne", or "pca" for a linear view.
        points: images drawn of all sets together; half of them ID.
        seed: of the choice of images and of t-SNE.
    """

    title = "Feature map"
    caption = (
        "Unit features on a plane. Pale dots: ID test images, a colour for each class. Markers: OOD images. Crosses: "
        "synthesized outliers, drawn from the finished network's feature bank. t-SNE keeps neighbours, not distances."
    )

    def __init__(self, *, projection: Literal["tsne", "pca"], points: PositiveInt, seed: NonNegativeInt) -> None:
        self.projection, self.points, self.seed = projection, points, seed

    def draw(self, material: Material) -> Figure | None:
        run = material.runs[-1]
        if "test" not in run.features:
            return None
        parts, labels = self._choose(run, list(material.groups))
        plane = flatten(np.concatenate(list(parts.values())), self.projection, self.seed)
        figure = Figure(figsize=(8.4, 6.2), layout="constrained")
        axes = figure.subplots()
        tidy(axes)
        axes.set(xticks=[], yticks=[])
        axes.spines[["left", "bottom"]].set_visible(False)
        palette = colours(material.groups)
        start = 0
        for name, part in parts.items():
            x, y = plane[start : start + len(part)].T
            start += len(part)
            if name == "test":
                axes.scatter(x, y, c=labels, cmap="tab20" if labels.max() < 20 else "viridis", s=12, alpha=0.55, lw=0)
            elif name == "synthesized":
                axes.scatter(x, y, color=OUTLIER_COLOUR, marker="x", s=22, lw=1.1, label="synthesized outliers")
            else:
                axes.scatter(x, y, color=palette[name], marker="^", s=20, alpha=0.8, lw=0, label=name)
        axes.scatter([], [], color="0.6", s=14, label="ID test (by class)")
        figure.legend(loc="outside right upper", fontsize=8, frameon=False)
        return figure

    def _choose(self, run: RunMaterial, ood_sets: list[str]) -> tuple[dict[str, Array], np.ndarray]:
        random = np.random.default_rng(self.seed)

        def some(array: Array, count: int) -> np.ndarray:
            return random.permutation(len(array))[:count]

        def unit(array: Array) -> Array:
            scaled: Array = array / np.maximum(np.linalg.norm(array, axis=1, keepdims=True), 1e-12)
            return scaled

        rows = some(run.features["test"], self.points // 2)
        parts = {"test": unit(run.features["test"][rows])}
        rest = self.points // 2 // (len(ood_sets) + (run.outliers is not None))
        for name in ood_sets:
            if name in run.features:
                parts[name] = unit(run.features[name][some(run.features[name], rest)])
        if run.outliers is not None:
            parts["synthesized"] = run.outliers[some(run.outliers, rest)]
        return parts, run.labels[rows]

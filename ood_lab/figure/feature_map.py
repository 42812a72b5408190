"""ID, OOD and synthesized features on a plane (the kind of picture in HamOS, Figures 5 and 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ood_lab.config.ranges import MapPoints, NonNegativeInt
from ood_lab.errors import RunError
from ood_lab.figure.base import OUTLIER_COLOUR, FigureKind, colours, shared_legend, shown, tidy
from ood_lab.results.material import SYNTHESIZED, Array, Material, RunMaterial

DISTINCT = 20  # classes that colours tell apart


def flatten(points: Array, projection: Literal["tsne", "pca", "umap"], seed: int) -> Array:
    """Points [N, D] on a plane [N, 2].

    Raises:
        RunError: UMAP is not installed.
    """
    if projection == "umap":
        try:
            from umap import UMAP
        except ImportError:
            raise RunError("figure.feature_map.projection=umap: install it with pip install 'ood-lab[umap]'") from None
        mapped: Array = UMAP(random_state=seed, n_jobs=1).fit_transform(points)
        return mapped
    centred = points - points.mean(0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
    plane: Array = centred @ axes.T
    spread = plane[:, 0].std()
    if projection == "pca" or not spread > 0:  # collapsed features are one point, and t-SNE divides by their spread
        return plane
    from sklearn.manifold import TSNE

    scaled = plane / spread * 1e-4  # scikit-learn's own PCA start, here without its randomised solver
    tsne = TSNE(perplexity=min(30, (len(points) - 1) / 3), init=scaled.astype(np.float32), random_state=seed, n_jobs=1)
    flat: Array = tsne.fit_transform(points)
    return flat


class FeatureMap(FigureKind):
    """A run's own feature space: ID test images coloured by class, OOD sets and synthesized outliers over them.

    Args:
        projection: "tsne", "umap" (needs `ood-lab[umap]`), or "pca" for a linear view.
        points: images drawn of all sets together; half of them ID.
        seed: of the choice of images and of the projection.
        beside: folders of further runs on the same image sets, each a panel of its own (HamOS, Figure 7).
    """

    title = "Feature map"
    caption = (
        "Unit features on a plane. Pale dots: ID test images, a colour for each class. Markers: OOD images. Crosses: "
        "synthesized outliers, drawn from the finished network's feature bank. t-SNE and UMAP keep neighbours, not "
        "distances."
    )

    def __init__(
        self,
        *,
        projection: Literal["tsne", "pca", "umap"],
        points: MapPoints,
        seed: NonNegativeInt,
        beside: list[str],
    ) -> None:
        self.projection, self.points, self.seed, self.beside = projection, points, seed, beside

    def draw(self, material: Material) -> Figure | None:
        runs = [run for run in material.runs[-1 - len(self.beside) :] if "test" in run.features]
        if not runs:
            return None
        figure = Figure(figsize=(6.2 * len(runs) + 2.2, 6.2), layout="constrained")
        panels = figure.subplots(1, len(runs), squeeze=False)[0]
        for axes, run in zip(panels, runs, strict=True):
            self._panel(axes, run, colours(material.groups))
            if len(runs) > 1:
                axes.set_title(run.label, fontsize=9)
        shared_legend(figure, "outside right upper", columns=1)
        return figure

    def _panel(self, axes: Axes, run: RunMaterial, palette: Mapping[str, str]) -> None:
        parts, labels = self._choose(run, list(palette))
        plane = flatten(np.concatenate(list(parts.values())), self.projection, self.seed)
        tidy(axes)
        axes.set(xticks=[], yticks=[])
        axes.spines[["left", "bottom"]].set_visible(False)
        start = 0
        for name, part in parts.items():
            x, y = plane[start : start + len(part)].T
            start += len(part)
            if name == "test":
                self._id_points(axes, plane[start - len(part) : start], labels, run.classes)
            elif name == SYNTHESIZED:
                axes.scatter(x, y, color=OUTLIER_COLOUR, marker="x", s=22, lw=1.1, label="synthesized outliers")
            else:
                axes.scatter(x, y, color=palette[name], marker="^", s=20, alpha=0.8, lw=0, label=shown(name))

    def _id_points(self, axes: Axes, plane: Array, labels: np.ndarray, classes: Sequence[str]) -> None:
        """Dots coloured by class; the legend names the classes as long as they can be told apart."""
        if not len(labels) or labels.max() >= DISTINCT:
            axes.scatter(plane[:, 0], plane[:, 1], c=labels, cmap="viridis", s=12, alpha=0.55, lw=0, label="_ID test")
            axes.scatter([], [], color="0.6", s=14, label="ID test (by class)")
            return
        hues = colormaps["tab20"].colors  # type: ignore[attr-defined]
        for number in np.unique(labels):
            mine, name = labels == number, classes[number] if 0 <= number < len(classes) else str(number)
            axes.scatter(
                plane[mine, 0], plane[mine, 1], color=hues[number], s=12, alpha=0.55, lw=0, label=f"ID: {shown(name)}"
            )

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
            parts[SYNTHESIZED] = unit(run.outliers[some(run.outliers, rest)])
        return parts, run.labels[rows]

"""Losses, accuracy and what the sampler reports, over training steps."""

from __future__ import annotations

from matplotlib.figure import Figure

from ood_lab.figure.base import ID_COLOUR, OOD_COLOURS, FigureKind, tidy
from ood_lab.results.material import Material

PANELS = {"loss/": "loss", "accuracy": "accuracy", "info/": "sampler"}


class TrainingCurves(FigureKind):
    """A row for each run: loss terms, train and validation accuracy, and the sampler's reports where there is one."""

    title = "Training"
    caption = (
        "Terms of the objective before their weights, accuracy on augmented training images and on validation "
        "images, and what the sampler reports: acceptance, share of proposals blocked by the margin, mean OOD-ness."
    )

    def draw(self, material: Material) -> Figure | None:
        runs = [run for run in material.runs if run.curves]
        if not runs:
            return None
        figure = Figure(figsize=(11, 2.4 * len(runs)), layout="constrained")
        grid = figure.subplots(len(runs), len(PANELS), squeeze=False)
        palette = (ID_COLOUR, *OOD_COLOURS)
        for row, run in zip(grid, runs, strict=True):
            row[0].set_ylabel(run.label, fontsize=9)
            for axes, (mark, title) in zip(row, PANELS.items(), strict=True):
                keys = list(dict.fromkeys(key for point in run.curves for key in point if mark in key))
                keys = [key for key in keys if "/round_" not in key]  # which figure=rounds draws
                axes.set_title(title, fontsize=9)
                axes.set_label(f"{run.label}: {title}")
                axes.set_xlabel("step", fontsize=8)
                tidy(axes)
                if not keys:
                    axes.set_axis_off()
                    axes.set_title("")
                    continue
                for key, colour in zip(keys, palette, strict=False):
                    points = [(p["step"], p[key]) for p in run.curves if key in p]
                    few = len(points) < 30
                    axes.plot(*zip(*points, strict=True), color=colour, lw=1.2, marker="." if few else None,
                              label=key.split("/")[-1])  # fmt: skip
                axes.legend(fontsize=7, frameon=False)
        return figure

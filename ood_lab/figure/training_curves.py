"""Losses, accuracy and what the sampler reports, over training steps."""

from __future__ import annotations

from matplotlib.figure import Figure

from ood_lab.figure.base import ID_COLOUR, OOD_COLOURS, FigureKind, tidy
from ood_lab.results.material import Material

ROUNDS = "/round_"  # in keys that figure=rounds draws
PANELS = {"loss/": "loss", "accuracy": "accuracy", "info/": "sampler", "/auroc/": "AUROC while training"}


class TrainingCurves(FigureKind):
    """A row for each run: loss terms, train and validation accuracy, and the sampler's reports where there is one."""

    title = "Training"
    caption = (
        "Terms of the objective before their weights, accuracy on augmented training images and on validation "
        "images, and what the sampler reports: acceptance, share of proposals blocked by the margin, mean OOD-ness. "
        "With trainer.evaluate_every, AUROC of ID validation images beside validation sets; where test sets are shown, "
        "choose nothing by them."
    )

    def draw(self, material: Material) -> Figure | None:
        runs = [run for run in material.runs if run.curves]
        if not runs:
            return None
        logged = {key for run in runs for point in run.curves for key in point if ROUNDS not in key}
        panels = {mark: title for mark, title in PANELS.items() if any(mark in key for key in logged)}
        if not panels:
            return None
        figure = Figure(figsize=(11 * len(panels) / 3, 2.4 * len(runs)), layout="constrained")
        grid = figure.subplots(len(runs), len(panels), squeeze=False)
        palette = (ID_COLOUR, *OOD_COLOURS)
        for row, run in zip(grid, runs, strict=True):
            row[0].set_ylabel(run.label, fontsize=9)
            for axes, (mark, title) in zip(row, panels.items(), strict=True):
                keys = list(dict.fromkeys(key for point in run.curves for key in point if mark in key))
                keys = [key for key in keys if ROUNDS not in key]
                axes.set_title(title, fontsize=9)
                axes.set_label(f"{run.label}: {title}")
                axes.set_xlabel("step", fontsize=8)
                tidy(axes)
                if not keys:
                    axes.set_axis_off()
                    axes.set_title("")
                    continue
                for number, key in enumerate(keys):
                    colour, dashed = palette[number % len(palette)], number >= len(palette)
                    points = [(p["step"], p[key]) for p in run.curves if key in p]
                    few = len(points) < 30
                    style = {"color": colour, "ls": "--" if dashed else "-", "lw": 1.2, "marker": "." if few else None}
                    axes.plot(*zip(*points, strict=True), label=_label(key), **style)
                many = len(keys) > 5  # a legend of so many lines hides them
                beside = {"loc": "upper left", "bbox_to_anchor": (1, 1)} if many else {}
                axes.legend(fontsize=7, frameon=False, **beside)
        return figure


def _label(key: str) -> str:
    """What a curve is called: its last word; of an AUROC the detector, the OOD set, and whether that is a test set."""
    parts = key.split("/")
    if "/auroc/" not in key:
        return parts[-1]
    split, detector, _, ood_set = parts
    return f"{detector}, {ood_set}" + (" (test)" if split == "test" else "")

"""A sweep as a picture: what varied against AUROC and FPR95, a line a detector, with the spread over seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any

from ood_lab.files.storage import write_atomically
from ood_lab.plural import counted
from ood_lab.results.caption import HEADLINES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ood_lab.sweep.grid import Setting


TICKS = 8  # values that are labelled one by one
LABEL = 24  # letters of a value at the axis or beside a row; of longer ones, such as paths, the end is shown
WIDE = 9.9  # the largest value over the smallest, from which the axis is logarithmic


def draw_sweep(settings: Sequence[Setting], folder: Path) -> Path | None:
    """Write the picture as PNG, PDF and CSV.

    The value that varies first lies along the axis, as numbers where all are; those of the others are rows of panels.

    Returns:
        the path of the PNG; None where nothing varied besides the seed, or nothing is measured.
    """
    names = list(settings[0].varied) if settings else []
    if not names or not any(setting.of_scorer for setting in settings):
        return None
    from ood_lab.figure.base import as_csv, picture  # matplotlib, which only pictures need

    digest = hashlib.sha256(repr([setting.varied for setting in settings]).encode()).hexdigest()[:8]
    path = folder / f"{'-'.join(name.rpartition('.')[2] for name in names)}-{digest}.png"
    metrics, figure = _metrics(settings), _figure(settings, names)
    write_atomically(path.with_suffix(".pdf"), picture(figure, "pdf"))
    write_atomically(path.with_suffix(".csv"), as_csv(_rows(settings, metrics)))
    write_atomically(path, picture(figure))
    return path


def _metrics(settings: Sequence[Setting]) -> dict[tuple[str, str], str]:
    """What is drawn, as far as it is measured, with its title."""
    headline = settings[0].experiment.protocol.fpr95
    metrics = {
        ("near", "auroc"): "AUROC near (%)",
        ("far", "auroc"): "AUROC far (%)",
        ("all", f"fpr95_{headline}"): f"FPR95 {HEADLINES[headline]} (%)",
    }
    return {key: title for key, title in metrics.items() if _is_measured(settings, key)}


def _rows(settings: Sequence[Setting], metrics: Mapping[tuple[str, str], str]) -> list[dict[str, Any]]:
    """The numbers: a row for each setting, detector and metric."""
    return [
        {**setting.varied, "detector": scorer, "metric": title, "seeds": len(lines), "mean": fmean(values),
         "std": pstdev(values)}
        for setting in settings
        for scorer, lines in setting.of_scorer.items()
        for key, title in metrics.items()
        if (values := [100 * line.means[key] for line in lines]) and not any(map(isnan, values))
    ]  # fmt: skip


def _figure(settings: Sequence[Setting], names: Sequence[str]) -> Figure:
    from matplotlib.figure import Figure

    from ood_lab.figure.base import shared_legend, tidy

    first, others = names[0], names[1:]
    blocks: dict[tuple[str, ...], list[Setting]] = {}
    for setting in settings:
        blocks.setdefault(tuple(setting.varied[name] for name in others), []).append(setting)
    shown = _metrics(settings)
    figure = Figure(figsize=(3.4 * len(shown), 2.8 * len(blocks) + 0.5), layout="constrained")
    grid = figure.subplots(len(blocks), len(shown), squeeze=False, sharex=True, sharey="col")
    for row, (values, block) in zip(grid, blocks.items(), strict=True):
        what = ", ".join(f"{n.rpartition('.')[2]}={_end(v)}" for n, v in zip(others, values, strict=True))
        for axes, (key, title) in zip(row, shown.items(), strict=True):
            tidy(axes)
            axes.set_title(title, fontsize=9)
            axes.set_label(f"{what} {title}".strip())
            axes.set_xlabel(first, fontsize=8)
            _lines(axes, block, first, key)
        row[0].set_ylabel(what, fontsize=9)
    shared_legend(figure)
    seeds = sorted({len(lines) for setting in settings for lines in setting.of_scorer.values()})
    protocol = settings[0].experiment.protocol.name
    spread = f"mean and std of {counted(seeds[-1], 'seed')}" if seeds[-1] > 1 else "one seed"
    figure.suptitle(f"{spread}, test images, protocol {protocol}", fontsize=8)
    return figure


def _lines(axes: Axes, block: Sequence[Setting], name: str, key: tuple[str, str]) -> None:
    from ood_lab.figure.base import DASHES, ID_COLOUR, OOD_COLOURS

    palette = (ID_COLOUR, *OOD_COLOURS)
    texts = [setting.varied[name] for setting in block]
    numbers = _numbers(texts)
    at = list(map(float, range(len(texts)))) if numbers is None else numbers
    scorers = list(dict.fromkeys(scorer for setting in block for scorer in setting.of_scorer))
    for number, scorer in enumerate(scorers):
        points = []
        for x, setting in zip(at, block, strict=True):
            values = [100 * line.means[key] for line in setting.of_scorer.get(scorer, ())]
            if values and not any(map(isnan, values)):
                points.append((x, fmean(values), pstdev(values)))
        points.sort()
        if points:
            xs, means, spreads = zip(*points, strict=True)
            axes.errorbar(
                xs, means, spreads, marker="o", ms=4, lw=1.3, capsize=3, label=scorer,
                color=palette[number % len(palette)], ls=DASHES[number % len(DASHES)],
            )  # fmt: skip
    if numbers is None:
        labels = list(map(_end, texts))
        axes.set_xticks(at, labels, rotation=30 if max(map(len, labels)) > 6 else 0, ha="right", fontsize=8)
        return
    if min(at) > 0 and max(at) / min(at) >= WIDE:
        axes.set_xscale("log")
        axes.minorticks_off()
    if len(at) <= TICKS:
        axes.set_xticks(at, texts)


def _is_measured(settings: Sequence[Setting], key: tuple[str, str]) -> bool:
    lines = [line for setting in settings for found in setting.of_scorer.values() for line in found]
    return any(not isnan(line.means[key]) for line in lines)


def _end(text: str) -> str:
    return text if len(text) <= LABEL else f"…{text[1 - LABEL :]}"


def _numbers(texts: Sequence[str]) -> list[float] | None:
    """The values as numbers; None where one is none."""
    try:
        return [float(text) for text in texts]
    except ValueError:
        return None

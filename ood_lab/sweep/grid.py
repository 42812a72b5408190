"""`-m`: every combination of values, on any engine, and one summary grouped by what varied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from statistics import fmean, pstdev

from rich import box
from rich.table import Table

from ood_lab.config import Request, prepare
from ood_lab.config.request import expand_sweep
from ood_lab.progress import stdout
from ood_lab.results.caption import HEADLINES, protocol_lines
from ood_lab.results.store import Results, read_rows
from ood_lab.results.table import Line, Selection, lines
from ood_lab.sweep.command import Command, engine_for, fail
from ood_lab.sweep.estimate import estimate
from ood_lab.sweep.sweep import sweep
from ood_lab.tables.spec import key_of

COLUMNS = (("near", "auroc"), ("far", "auroc"), ("all", "fpr95"), ("all", "aupr_in"))


@dataclass(frozen=True)
class Setting:
    """Runs that differ in their seeds only: what varied, as written, and their lines by detector."""

    varied: Mapping[str, str]
    of_scorer: Mapping[str, Sequence[Line]]


def run_grid(command: Command, folder: Path | None = None) -> list[Results]:
    """Make every combination and show the summary.

    Raises:
        RequestError: a combination that can't be run; nothing was started.
        RunError: some runs failed; the rest is made and shown.
    """
    singles = list(expand_sweep(command.words, folder))
    requests = [prepare(single, folder) for single in singles]
    output = requests[0].run_dir.parent
    engine = engine_for(command, requests, output)
    stdout.print(f"{len(requests)} runs. {estimate(requests, getattr(engine, 'number', 1))}", highlight=False)
    if command.dry_run:
        return []
    failures = sweep(requests, engine, output)
    if requests[0].cfg.task.name in ("train", "evaluate", "report"):
        stdout.print()
        stdout.print(summary(settings(singles, requests), requests[0]), highlight=False)
    fail(failures, len(requests))
    return [Results(r.run_id, r.run_dir, read_rows(r.run_dir)) for r in requests]


def settings(singles: Sequence[Sequence[str]], requests: Sequence[Request]) -> list[Setting]:
    """The runs by what varied besides the seed, in the order of the command line."""
    keys = [key_of(word) for word in singles[0]]
    varied = [i for i, key in enumerate(keys) if key != "seed" and len({single[i] for single in singles}) > 1]
    found: dict[tuple[str, ...], dict[str, list[Line]]] = {}
    for single, request in zip(singles, requests, strict=True):
        values = tuple(single[i].partition("=")[2] for i in varied)
        results = Results(request.run_id, request.run_dir, read_rows(request.run_dir))
        of_scorer = found.setdefault(values, {})
        for line in lines(results, Selection.of(request)):
            of_scorer.setdefault(line.scorer, []).append(line)
    return [Setting(dict(zip((keys[i] for i in varied), v, strict=True)), lines) for v, lines in found.items()]


def summary(settings: Sequence[Setting], request: Request) -> Table:
    """Settings and detectors down: ID accuracy, AUROC near and far, headline FPR95, AUPR; mean and spread of seeds."""
    headline = request.composed.plain("protocol.fpr95")
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    names = list(settings[0].varied)
    short = [name.rpartition(".")[2] for name in names]
    for name in short if len(set(short)) == len(names) else names:
        table.add_column(f"\n{name}", min_width=len(name))
    table.add_column("\ndetector", no_wrap=True)
    for head in ("\nID acc ↑", "AUROC ↑\nnear", "\nfar", f"FPR95 ↓\n{HEADLINES[headline]}", "AUPR ↑\nin"):
        table.add_column(head, no_wrap=True, justify="right")
    for setting in settings:
        for number, (scorer, found) in enumerate(setting.of_scorer.items()):
            heads = list(setting.varied.values()) if number == 0 else [""] * len(names)
            cells = [[line.accuracy for line in found]]
            for group, metric in COLUMNS:
                key = (group, f"fpr95_{headline}" if metric == "fpr95" else metric)
                cells.append([line.means[key] for line in found])
            table.add_row(*heads, scorer, *map(_spread, cells))
        if not setting.of_scorer:
            table.add_row(*setting.varied.values(), "no results")
    counts = sorted({len(found) for setting in settings for found in setting.of_scorer.values()})
    protocol = request.composed.plain("protocol")
    below = protocol_lines(protocol, request.groups, {})[:1]
    seeds = " to ".join(map(str, counts)) or "no"
    below.append(f"mean ± population std of {seeds} seeds, on test images: nothing may be chosen by it")
    table.caption, table.caption_justify = "\n".join(below), "left"
    return table


def _spread(values: Sequence[float]) -> str:
    if any(map(isnan, values)):
        return "-"
    mean = f"{100 * fmean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ±{100 * pstdev(values):.1f}"

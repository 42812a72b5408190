"""Format-independent layout of a table: blocks of columns, headings, texts of cells, captions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ood_lab.config.objective import caveats
from ood_lab.results.caption import HEADLINES, image_lines, outlier_lines
from ood_lab.results.table import Selection
from ood_lab.tables.cells import COSTS, LOWER_IS_BETTER, OF_STAGES, Cell, Filled
from ood_lab.tables.spec import NEED_SCORER, SCALES, Column, Table, row_labels, unit_of
from ood_lab.tables.swept import sweep_of

NAMES = {"fpr95": "FPR95", "auroc": "AUROC", "aupr": "AUPR", "accuracy": "ID acc"}
MARK = "*"


class Texts(NamedTuple):
    """A cell as text: ours, the paper's, the difference; empty where there is none."""

    ours: str
    paper: str
    difference: str
    best: bool


@dataclass(frozen=True)
class Block:
    """The columns of one ID set and network.

    Args:
        title: "cifar10, resnet34".
        swept: the setting whose values the rows are; "" where they are no values of one setting.
        headings: of each column, metric and what it is over.
        labels: of each row.
        cells: a row each.
        beside: of each column whether the paper prints anything in it.
    """

    title: str
    swept: str
    headings: tuple[tuple[str, str], ...]
    labels: tuple[str, ...]
    cells: tuple[tuple[Texts, ...], ...]
    beside: tuple[bool, ...]

    def part(self, first: int, last: int) -> Block:
        """Some of its columns."""
        cells = tuple(row[first:last] for row in self.cells)
        return Block(self.title, self.swept, self.headings[first:last], self.labels, cells, self.beside[first:last])


def blocks(filled: Filled) -> list[Block]:
    """Every block, in the order of the columns."""
    at: dict[tuple[str, str | None], list[int]] = {}
    for number, column in enumerate(filled.columns):
        at.setdefault((column.dataset, column.backbone), []).append(number)
    labels = row_labels(filled.table)
    out = []
    for (dataset, backbone), numbers in at.items():
        columns = [[row[i] for row in filled.cells] for i in numbers]
        texts = [_texts(filled, filled.columns[i], column) for i, column in zip(numbers, columns, strict=True)]
        beside = tuple(any(cell.paper is not None for cell in column) for column in columns)
        headings = tuple(heading(filled.columns[i]) for i in numbers)
        title = ", ".join(part for part in (dataset, backbone) if part)
        sweep = sweep_of(filled.table, dataset)
        out.append(Block(title, sweep.key if sweep else "", headings, labels, tuple(zip(*texts, strict=True)), beside))
    return out


def heading(column: Column) -> tuple[str, str]:
    """Metric with an arrow to what is better, and what it is over."""
    if column.metric == "config":
        return "ours", ""
    arrow = "↓" if column.metric in LOWER_IS_BETTER else "↑"
    return f"{NAMES.get(column.metric, column.metric)} {arrow}", column.over or column.part or ""


def _texts(filled: Filled, column: Column, cells: Sequence[Cell]) -> list[Texts]:
    """A column as text, with the digits that the paper prints (where it prints nothing: two, of seconds four).

    Of stages of a chain as many as show two digits of the smallest, which may be far below the paper's.
    """
    table = filled.table
    printed = [cell.paper for cell in cells if cell.paper is not None]
    seconds = (column.unit or table.unit) == "s"
    digits = max((len(text.partition(".")[2]) for text in printed), default=4 if seconds else 2)
    means = [cell.mean for cell in cells]
    if column.part is not None:
        smallest = min((mean for mean in means if mean), default=1.0)
        digits = max(digits, 1 - math.floor(math.log10(smallest)))
        scales = [SCALES[column.metric][unit_of(table, row, column)] for row in table.rows]  # rows may differ in units
        means = [None if mean is None else mean * scale for mean, scale in zip(means, scales, strict=True)]
    better = min if column.metric in LOWER_IS_BETTER else max
    found = [mean for mean in means if mean is not None]
    best = better(found) if len(found) > 1 else None
    return [_text(cell, digits, best is not None and mean == best) for cell, mean in zip(cells, means, strict=True)]


def _text(cell: Cell, digits: int, best: bool) -> Texts:
    ours = cell.text or ""
    if cell.mean is not None:
        ours = f"{cell.mean:.{digits}f}" + ("" if cell.std is None else f"±{cell.std:.{digits}f}")
        ours += f" ({len(cell.values)}/{cell.wanted})" if len(cell.values) < cell.wanted else ""
    paper = "" if cell.paper is None else cell.paper + ("" if cell.paper_std is None else f"±{cell.paper_std}")
    difference = "" if cell.difference is None else f"{cell.difference:+.{digits}f}"
    return Texts(ours, paper, difference + (MARK if cell.exceeds else ""), best)


def caption(filled: Filled) -> list[str]:
    """The lines below: seeds, sets, protocol, origin, what could not be run and why, remarks on the source."""
    table = filled.table
    lines = [f"{table.source}: {table.title}."]
    if table.changed:
        changes = "; ".join((*table.changed, *table.clipped))
        lines.append(f"not the paper's setting, so without its figures: {changes}")
    elif any(cell.paper is not None for row in filled.cells for cell in row) and table.kind != "config":
        lines.append(f"paper: as printed; {MARK} differs by more than the combined spread sqrt(ours^2 + theirs^2)")
    if table.kind == "config":
        lines.append(f"ours as composed; {MARK} where it is not the paper's, - where there is no such option")
        return [*lines, *_lacking(filled), *table.remarks]
    lines.append(f"{_units(table)}; {seeds_text(table)}")
    lines += _costs(filled)
    for dataset in dict.fromkeys(column.dataset for column in filled.columns):
        lines += _about(filled, dataset)
    lines += _caveats(filled)
    rows = filled.used()
    if rows:
        commits = sorted({row["commit"] or "unknown" for row in rows})
        versions = sorted({f"{name} {version}" for row in rows for name, version in row["versions"].items()})
        lines.append(f"commit {', '.join(commits)}; {', '.join(versions)}")
    return [*lines, *_lacking(filled), *(() if table.changed else table.remarks)]


def seeds_text(table: Table) -> str:
    """Of which seeds the figures are."""
    seeds = ", ".join(map(str, table.seeds))
    return f"{'one seed' if len(table.seeds) == 1 else 'mean ± population std of seeds'}: {seeds}"


def _units(table: Table) -> str:
    """The units of the columns, the commonest first and alone without its metrics."""
    metrics: dict[str, dict[str, None]] = {}
    for column in table.columns:
        metrics.setdefault(column.unit or table.unit, {})[NAMES.get(column.metric, column.metric)] = None
    first, *rest = sorted(metrics, key=lambda unit: -len(metrics[unit]))
    return "; ".join((first, *(f"{', '.join(metrics[unit])} in {unit}" for unit in rest)))


def _costs(filled: Filled) -> list[str]:
    """On what time and memory were measured, ours and the paper's; and units, where rows differ in them."""
    lines = []
    columns = [column for column in filled.columns if column.metric in COSTS]
    of_stages = [column for column in columns if column.part is not None]
    of_batch = [column for column in columns if column.part is None]
    beside = any(cell.paper is not None for row in filled.cells for cell in row)
    for shown, what in (
        (of_batch, "of one batch of outliers"),
        (of_stages, "of each stage"),
    ):
        names = tuple((OF_STAGES if column.part is not None else COSTS)[column.metric] for column in shown)
        stored = [row for rows in filled.rows.values() for row in rows if names and row["metric"].startswith(names)]
        ours = ", ".join(sorted({row["hardware"] for row in stored}))
        if ours:
            theirs = f"; the paper's on {filled.table.hardware or 'hardware that it does not name'}" if beside else ""
            metrics = " and ".join(dict.fromkeys(column.metric for column in shown))
            lines.append(f"{metrics} {what}, ours on {ours}{theirs}")
    return lines + [f"{row.label}: in {', '.join(row.units)}" for row in filled.table.rows if row.units is not None]


def _caveats(filled: Filled) -> list[str]:
    """What rows must say of their parts and of their training, each with the labels of its rows."""
    labels: dict[str, dict[str, None]] = {}
    for place, runs in filled.experiments.items():
        untrained = (line for run in runs for line in outlier_lines(run, filled.rows[run.run_id]))
        for caveat in (*caveats(runs[0]), *untrained):
            labels.setdefault(caveat, {})[filled.table.rows[place.row].label] = None
    return [f"{', '.join(names)}: {caveat}" for caveat, names in labels.items()]


def _about(filled: Filled, dataset: str) -> list[str]:
    """The protocol of one ID set, for the sets that the table shows."""
    experiment = filled.first(dataset)
    if experiment is None:
        return []
    protocol = experiment.protocol
    shown = {column.over for column in filled.columns if column.dataset == dataset}
    if "mean" in shown:
        shown |= set(filled.table.sets.get(dataset, ()))
    groups = {name: group for name, group in experiment.groups_of_sets.items() if name in shown}
    near, far = ([name for name in getattr(protocol, group) if name in shown] for group in ("near", "far"))
    protocol = replace(protocol, near=near, far=far)
    runs = [r for place, runs in filled.experiments.items() if place.dataset == dataset for r in runs]
    partial: dict[str, tuple[int, int]] = {}
    for run in runs:
        found = Selection.of(run).partial(filled.rows[run.run_id])
        partial |= {name: counts for name, counts in found.items() if name in shown}
    shared = {name: told for name, told in filled.shared.get(dataset, {}).items() if name in shown}
    lines = image_lines(protocol, groups, partial, unit="", overlapping=shared)
    headline = f"FPR95 {HEADLINES[protocol.fpr95]}, AUPR of ID images ({protocol.aupr_rule.replace('_', ' ')})"
    precision = experiment.trainer.precision
    trained = [] if precision == "32-true" else [f"trained in {precision}"]
    detects = any(column.metric in NEED_SCORER for column in filled.columns)
    return [f"{dataset}: {lines[0]}", *lines[1:], *([headline] if detects else []), *trained]


def _lacking(filled: Filled) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for number, reason in filled.unavailable.items():
        reasons.setdefault(short(reason), []).append(filled.table.rows[number].label)
    every = sum(not row.derived for row in filled.table.rows)
    return [
        f"not available: {'every row' if len(labels) == every else ', '.join(dict.fromkeys(labels))}: {reason}"
        for reason, labels in reasons.items()
    ]


def short(reason: str) -> str:
    """The first sentence of a message."""
    return reason.partition(". ")[0].partition(" Did you mean")[0].rstrip(".")

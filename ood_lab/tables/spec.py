"""A table as its file has it: rows and columns, what each row runs, and the printed figures."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ood_lab.config.check import parse
from ood_lab.config.groups import config_file, groups
from ood_lab.config.suggest import nearest
from ood_lab.config.yaml_file import read_yaml
from ood_lab.errors import RequestError

KINDS = ("results", "cost", "config")
NEED_SCORER = ("fpr95", "auroc", "aupr")
ANGLES = ("separation", "dispersion", "compactness")
METRICS = (*NEED_SCORER, "accuracy", "time", "memory", *ANGLES, "config")
# By metric the stages of a chain of runs of which a part of a cost table is the sum. Only a decoder whose diffusion
# model is trained here has a generator.
PARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "time": {
        "building_latent_space": ("anchors", "encoder"),
        "ood_feature_synthesis": ("outliers",),
        "ood_image_generation": ("generator", "images"),
        "ood_model_regularization": ("training",),
        "total": ("anchors", "encoder", "outliers", "generator", "images", "training"),
    },
    "memory": {"ood_features": ("outliers",), "ood_images": ("images",), "total": ("outliers", "images")},
}
# Units by metric, in seconds or bytes.
SCALES: dict[str, dict[str, float]] = {
    "time": {"ms": 1e-3, "s": 1.0, "h": 3600.0},
    "memory": {"MB": 2.0**20, "G": 2.0**30},
}
OPTIONAL_STAGES = ("generator",)
UNITS = ("percent", "degrees", "ms", "s", "h", "mixed", "none")


@dataclass(frozen=True)
class Column:
    """One printed column.

    Args:
        metric: fpr95, auroc, aupr, accuracy, time, memory, separation, dispersion, compactness or config.
        over: an OOD set, "mean" for the table's sets of this ID set, or None where no OOD data is in it.
        dataset: the ID set.
        backbone: None where rows name their own.
        part: stage of a chain of runs; without it time and memory are those of a batch of synthesized outliers.
        unit: where it is not the table's.
    """

    metric: str
    over: str | None
    dataset: str
    backbone: str | None = None
    part: str | None = None
    unit: str | None = None


@dataclass(frozen=True)
class TableRow:
    """One printed row.

    Args:
        overrides: what it changes of the table's experiment.
        by_dataset: what it changes besides on one ID set.
        scorer, options: the detector whose numbers it prints; None for accuracies and settings.
        values, std: as printed, None for an empty cell.
        units: of each cell, where they differ within a row.
        derived: a row of differences; nothing is run for it.
        key: the setting that a row of a configuration table lists.
    """

    label: str
    values: tuple[str | None, ...]
    overrides: tuple[str, ...] = ()
    by_dataset: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    scorer: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    std: tuple[str | None, ...] | None = None
    units: tuple[str, ...] | None = None
    derived: bool = False
    key: str | None = None


@dataclass(frozen=True)
class Table:
    """One printed table.

    Args:
        sets: for each ID set the OOD sets of its means.
        remarks: where the source contradicts itself.
        hardware: on which the source measured time and memory.
        unit: of its columns that name none; with `approximate` the source prints ~ before every figure.
        overrides: overrides of every run, which replace those of the table (see `adapt`).
        changed: the overrides that make it another table than the paper's; the printed values are then no targets.
        clipped: the sizes that the scale does not hold.
        seed_overrides: what a user said about seeds.
    """

    id: str
    source: str
    title: str
    kind: str
    unit: str
    experiment: str
    seeds: tuple[int, ...]
    sets: Mapping[str, tuple[str, ...]]
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    remarks: tuple[str, ...] = ()
    hardware: str | None = None
    approximate: bool = False
    overrides: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    clipped: tuple[str, ...] = ()
    seed_overrides: tuple[str, ...] = ()

    @property
    def stem(self) -> str:
        """The name of its files: its id, and what tells it from the paper's table."""
        seeds = ".s" + "-".join(map(str, self.seeds)) if self.seed_overrides else ""
        if not self.changed:
            return self.id + seeds
        first, *rest = (text.removeprefix("scale=") for text in self.changed)
        if not rest and re.fullmatch(r"\w+", first):
            return f"{self.id}.{first}{seeds}"
        return f"{self.id}.{hashlib.sha256(repr(self.changed).encode()).hexdigest()[:6]}{seeds}"

    def changes(self, row: TableRow, column: Column) -> tuple[str, ...]:
        """The command line of the runs that a cell reads, without detector and seed."""
        at = (f"dataset={column.dataset}", *((f"backbone={column.backbone}",) if column.backbone else ()))
        own = (f"experiment={self.experiment}", *at, *row.overrides, *row.by_dataset.get(column.dataset, ()))
        replaced = {key_of(override) for override in self.overrides}
        return (*(text for text in own if key_of(text) not in replaced), *self.overrides)


def row_labels(table: Table) -> tuple[str, ...]:
    """The label of each row; of rows that share one, with the options and the detector in which they differ."""
    out = []
    for row in table.rows:
        same = [other for other in table.rows if other.label == row.label]
        settings = settings_of(row)
        own = [f"{key.rpartition('.')[2]}={value}" for key, value in settings.items() if _tells(key, value, row, same)]
        own += [row.scorer] if row.scorer and any(other.scorer != row.scorer for other in same) else []
        out.append(f"{row.label} ({', '.join(own)})" if own else row.label)
    return tuple(out)


def _tells(key: str, value: str, row: TableRow, same: Sequence[TableRow]) -> bool:
    """Whether a row differs in a setting from others of its label; in its detector's, from those of this detector."""
    others = [other for other in same if other.scorer == row.scorer or not key.startswith("scorer.")]
    return not all(settings_of(other).get(key) == value for other in others)


def settings_of(row: TableRow, dataset: str | None = None) -> dict[str, str]:
    """What a row sets, by key: also of the runs that its parts depend on, and of its detector.

    Args:
        dataset: with what it sets for this ID set besides.
    """
    found: dict[str, str] = {}
    for text in (*row.overrides, *row.by_dataset.get(dataset or "", ())):
        key, _, value = text.partition("=")
        inner = parse([text])[0].value() if ".needs." in key else None
        parts = [str(part).partition("=") for part in inner] if isinstance(inner, list) else []
        found |= {f"{key}.{name}": given for name, _, given in parts} or {key: value}
    return found | {f"scorer.{row.scorer}.{name}": str(value) for name, value in row.options.items()}


def key_of(override: str) -> str:
    """The key of an override, without marks of adding and deleting."""
    return override.partition("=")[0].lstrip("+~")


def table_names(folder: Path | None = None) -> list[str]:
    """Every table, the built-in ones and those of a user's --config-dir."""
    return groups(folder)["table"]


def load_table(name: str, folder: Path | None = None) -> Table:
    """Read `conf/table/<name>.yaml`.

    Raises:
        RequestError: no such table (with the nearest name); a key that is missing or unknown; a row with another number
            of values than columns.
    """
    path = find_file("table", name, folder)
    try:
        node = read_yaml(path)
    except yaml.YAMLError as error:
        raise RequestError(f"{path}: {' '.join(str(error).split())}") from None
    try:
        table = Table(
            id=name,
            columns=tuple(Column(**column) for column in node.pop("columns")),
            rows=tuple(_row(row) for row in node.pop("rows")),
            sets={ds: tuple(sets) for ds, sets in node.pop("sets").items()},
            remarks=tuple(node.pop("remarks")),
            seeds=tuple(range(node.pop("seeds"))),
            **node,
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise RequestError(f"{path}: {error}; compare it with another file of that folder") from None
    _check(table, path)
    return table


def find_file(kind: str, name: str, folder: Path | None) -> Path:
    """`<kind>/<name>.yaml` of a user's --config-dir, else the built-in one.

    Raises:
        RequestError: there is neither.
    """
    path = config_file(kind, name, folder)
    if path is None:
        raise RequestError(f"{kind}={name}: no such {kind}.{nearest(name, groups(folder)[kind])}")
    return path


def unit_of(table: Table, row: TableRow, column: Column) -> str:
    """The unit of a cell: the row's own, else the column's or the table's."""
    own = None
    if row.units is not None and column in table.columns:
        own = row.units[table.columns.index(column)]
    return own or column.unit or table.unit


def _row(node: dict[str, Any]) -> TableRow:
    lists = ("values", "overrides", "std", "units")
    plain: dict[str, Any] = {key: tuple(value) if key in lists else value for key, value in node.items()}
    plain["by_dataset"] = {ds: tuple(changes) for ds, changes in node.get("by_dataset", {}).items()}
    return TableRow(**plain)


def _check(table: Table, path: Path) -> None:
    if not table.seeds:
        raise RequestError(f"{path}: seeds is how many there are, 1 at least")
    for value, known in ((table.kind, KINDS), (table.unit, UNITS)):
        if value not in known:
            raise RequestError(f"{path}: {value!r} is none of {', '.join(known)}")
    for row in table.rows:
        for name, printed in (("values", row.values), ("std", row.std), ("units", row.units)):
            if printed is not None and len(printed) != len(table.columns):
                raise RequestError(
                    f"{path}: row {row.label!r} has {len(printed)} {name} for {len(table.columns)} columns"
                )
        for figure in (*row.values, *(row.std or ())):
            if figure is not None and not isinstance(figure, str):
                raise RequestError(f"{path}: row {row.label!r}: write {figure} in quotes, to keep its digits")
        if not isinstance(row.options, Mapping):
            raise RequestError(f"{path}: row {row.label!r}: options is a mapping of the detector's options")
    for column in table.columns:
        if column.metric not in METRICS:
            raise RequestError(f"{path}: {column.metric!r} is no metric.{nearest(column.metric, METRICS)}")
        if column.part is not None and column.part not in PARTS.get(column.metric, {}):
            near = nearest(column.part, PARTS.get(column.metric, {}))
            raise RequestError(f"{path}: {column.metric} has no part {column.part!r}.{near}")
        if column.part is not None:
            for row in table.rows:
                unit = unit_of(table, row, column)
                if unit not in SCALES[column.metric]:
                    expected = " or ".join(SCALES[column.metric])
                    raise RequestError(
                        f"{path}: row {row.label!r}: {column.metric} in {unit!r}; expected {expected}, as the unit "
                        "of the row, the column or the table"
                    )
        if column.over == "mean" and column.dataset not in table.sets:
            raise RequestError(f"{path}: a mean over the sets of {column.dataset}, which names none under sets")
        if column.over not in (None, "mean", *table.sets.get(column.dataset, ())):
            near = nearest(column.over or "", table.sets.get(column.dataset, ()))
            raise RequestError(f"{path}: {column.over!r} is none of the sets of {column.dataset}.{near}")
        if column.metric in NEED_SCORER and not all(row.scorer or row.derived for row in table.rows):
            bare = next(row.label for row in table.rows if not (row.scorer or row.derived))
            raise RequestError(f"{path}: row {bare!r} names no scorer for its {column.metric}")

"""A table at another scale, or with other values for all its runs: again a table, which says what was changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ood_lab.config.affects import COMPARABILITY
from ood_lab.config.check import parse
from ood_lab.config.compose import compose
from ood_lab.config.options import affected_by
from ood_lab.config.prepare import expand_sweep
from ood_lab.config.quoting import as_override
from ood_lab.config.yaml_file import read_yaml
from ood_lab.errors import RequestError
from ood_lab.tables.spec import Column, Table, TableRow, find_file, key_of


@dataclass(frozen=True)
class Scale:
    """How large a table is run.

    Args:
        overrides: of every run, in the place of the table's own.
        instead: what replaces overrides of rows.
        seeds: how many; None for the table's own.
        limits: the largest value of a key.
    """

    name: str
    overrides: tuple[str, ...]
    instead: dict[str, list[str]]
    seeds: int | None
    limits: dict[str, float]


def load_scale(name: str, folder: Path | None = None) -> Scale:
    """Read `conf/scale/<name>.yaml`.

    Raises:
        RequestError: no such scale.
    """
    node = read_yaml(find_file("scale", name, folder))
    return Scale(name, tuple(node["overrides"]), node["instead"], node["seeds"], node["limits"])


def adapt(table: Table, scale: Scale, overrides: Sequence[str] = (), folder: Path | None = None) -> Table:
    """The table with a scale's and a user's overrides in the place of its own; the user's win.

    A `dataset=` among them leaves the columns of that ID set (of the first one, where the table has others), a
    `backbone=` those of the first network. Where the sets are no longer the paper's, columns and means are over those
    of the protocol; the printed values are then dropped.

    Raises:
        RequestError: an override that no run takes.
    """
    _check_overrides(overrides)
    options = [override for override in overrides if key_of(override).startswith("scorer.")]
    overrides = [override for override in overrides if override not in options]
    table = _with_options(table, options)
    given = {key_of(override) for override in overrides}
    every = (*(override for override in scale.overrides if key_of(override) not in given), *overrides)
    seeds = _seeds(every, folder) or (table.seeds if scale.seeds is None else table.seeds[: scale.seeds])
    every = tuple(override for override in every if key_of(override) != "seed")
    own = {f"{what}={getattr(column, what)}" for column in table.columns for what in ("dataset", "backbone")}
    foreign = [override for override in every if override not in own and COMPARABILITY in affected_by(key_of(override))]
    notes = [f"scale={scale.name}"] if scale.overrides else []
    notes += [override for override in overrides if override in foreign]
    notes += options
    made, clipped = table, set[str]()
    for what in ("dataset", "backbone"):
        chosen = next((override.partition("=")[2] for override in every if key_of(override) == what), None)
        made = made if chosen is None else _one(made, what, chosen)
    rows = tuple(_fitted(row, scale, clipped) for row in made.rows)
    if foreign or options:
        rows = tuple(replace(row, values=(None,) * len(made.columns), std=None) for row in rows)
    some = tuple(override for override in overrides if key_of(override) == "seed")
    cut = tuple(sorted(clipped))
    made = replace(
        made, seeds=seeds, rows=rows, overrides=every, changed=tuple(notes), clipped=cut, seed_overrides=some
    )
    moved = {"dataset", "protocol", "experiment"} & {key_of(override) for override in foreign}
    return _with_sets_of_protocol(made, folder) if moved else made


def _check_overrides(overrides: Sequence[str]) -> None:
    for override in parse(overrides):
        key, text = override.key_or_group, override.input_line
        if override.is_sweep_override() and key != "seed":
            raise RequestError(f"{text!r}: a table has rows of its own; a grid is made with -m, without table=")
        if key == "scorer":
            raise RequestError(
                f"{text!r}: each row of a table names its detector; change options with scorer.name.key="
            )
        if key == "task" or key.startswith("task."):
            raise RequestError(
                f"{text!r}: a table trains and evaluates what is missing; other tasks are for single runs"
            )


def _with_options(table: Table, overrides: Sequence[str]) -> Table:
    """The options of detectors go to the rows that print them."""
    rows = list(table.rows)
    for override in overrides:
        _, name, option = (*key_of(override).split(".", 2), "")[:3]
        if name not in {row.scorer for row in rows}:
            raise RequestError(f"{override!r}: no row of {table.id} prints the detector {name!r}")
        for i, row in enumerate(rows):
            if row.scorer == name:
                rows[i] = replace(row, options={**row.options, option: yaml.safe_load(override.partition("=")[2])})
    return replace(table, rows=tuple(rows))


def _seeds(overrides: Sequence[str], folder: Path | None) -> tuple[int, ...] | None:
    """Those of the last `seed=0,1` or `seed=range(0,3)`."""
    last = next((override for override in reversed(overrides) if key_of(override) == "seed"), None)
    if last is None:
        return None
    try:
        return tuple(dict.fromkeys(int(single[0].partition("=")[2]) for single in expand_sweep([last], folder)))
    except ValueError:
        raise RequestError(f"{last!r}: seeds are whole numbers, for example seed=0,1,2") from None


def _one(table: Table, what: str, value: str) -> Table:
    """The columns of one ID set or network, called by its new name, and what the rows print in them."""
    names = [getattr(column, what) for column in table.columns]
    kept = value if value in names else names[0]
    at = [i for i, name in enumerate(names) if name == kept]
    made = _with_columns(table, at, [replace(table.columns[i], **{what: value}) for i in at])
    if what == "backbone":
        return made
    rows = tuple(
        replace(row, by_dataset={value: row.by_dataset[kept]} if kept in row.by_dataset else {}) for row in made.rows
    )
    return replace(made, rows=rows, sets={value: table.sets[kept]} if kept in table.sets else {})


def _with_columns(table: Table, at: Sequence[int], columns: Sequence[Column]) -> Table:
    """The table with `columns` in the place of all, of which the printed values are `at` these."""

    def pick(printed: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        return None if printed is None else tuple(printed[i] for i in at)

    rows = tuple(
        replace(row, values=pick(row.values) or (), std=pick(row.std), units=pick(row.units)) for row in table.rows
    )
    return replace(table, columns=tuple(columns), rows=rows)


def _fitted(row: TableRow, scale: Scale, clipped: set[str]) -> TableRow:
    """The row without what the scale leaves out, and no size above its limits; what was cut goes to `clipped`."""
    here: set[str] = set()

    def fit(changes: Sequence[str]) -> tuple[str, ...]:
        fitted = (within(override) for override in changes)
        return tuple(clip(text) for override in fitted for text in scale.instead.get(override, [override]))

    def within(override: str) -> str:
        """The same, of the run that a part depends on."""
        key, _, _ = override.partition("=")
        if ".needs." not in key:
            return override
        inner = parse([override])[0].value()
        return f"{key}={as_override(list(fit(inner)))}" if isinstance(inner, list) else override

    def clip(text: str) -> str:
        key, _, value = text.partition("=")
        if key not in scale.limits or float(value) <= scale.limits[key]:
            return text
        here.add(f"{key} at most {scale.limits[key]:g}")
        return f"{key}={scale.limits[key]:g}"

    options = dict(row.options)
    for name, value in row.options.items():
        limit = scale.limits.get(f"scorer.{row.scorer}.{name}")
        if limit is not None and value > limit:
            options[name] = limit
            here.add(f"scorer.{row.scorer}.{name} at most {limit:g}")
    by_dataset = {name: fit(changes) for name, changes in row.by_dataset.items()}
    made = replace(row, overrides=fit(row.overrides), by_dataset=by_dataset, options=options)
    clipped.update(here)
    return replace(made, label=f"{row.label} (cut)") if here else made


def _with_sets_of_protocol(table: Table, folder: Path | None) -> Table:
    """OOD sets by those of the protocol that the overrides give, one for one; columns over further sets go."""
    names: dict[str, tuple[str, ...]] = {}
    for column in table.columns:
        if column.dataset not in names:
            overrides = [text for text in table.changes(TableRow("", ()), column) if _is_about_sets(key_of(text))]
            composed = compose(overrides, folder=folder)
            names[column.dataset] = (*composed.plain("protocol.near"), *composed.plain("protocol.far"))
    at: list[int] = []
    columns: list[Column] = []
    for i, column in enumerate(table.columns):
        theirs, ours = table.sets.get(column.dataset, ()), names[column.dataset]
        if column.over in (None, "mean"):
            at, columns = [*at, i], [*columns, column]
        elif column.over in theirs and theirs.index(column.over) < len(ours):
            at, columns = [*at, i], [*columns, replace(column, over=ours[theirs.index(column.over)])]
    return replace(_with_columns(table, at, columns), sets=names)


def _is_about_sets(key: str) -> bool:
    return key in ("experiment", "dataset", "protocol") or key.startswith("protocol.")

"""Whether a table's rows are values of one setting, and which (HamOS, Tables 16 to 24; AOE, Figure 4)."""

from __future__ import annotations

from typing import NamedTuple

from ood_lab.tables.cells import as_number
from ood_lab.tables.spec import Table, key_of, settings_of

LEAST = 3  # values that make a line


class Sweep(NamedTuple):
    """The rows of a table as values of one setting.

    Args:
        key: the setting, the only one in which the rows of a line differ.
        lines: for each line its label, and the value of each of its rows by the row's number.
    """

    key: str
    lines: dict[str, dict[int, float]]


def sweep_of(table: Table, dataset: str) -> Sweep | None:
    """What the rows sweep on an ID set, by their overrides; None where that is not one number."""
    options = [settings_of(row, dataset) for row in table.rows]
    replaced = {key_of(override) for override in table.overrides}
    numbers = [
        {k: n for k, v in own.items() if k not in replaced and (n := as_number(v)) is not None} for own in options
    ]
    swept = [k for k in (numbers[0] if numbers else ()) if all(k in own for own in numbers)]
    swept = [k for k in swept if len({own[k] for own in numbers}) > 1]
    if len(swept) != 1:
        return None
    (key,) = swept
    found: dict[tuple[tuple[str, str], ...], dict[int, float]] = {}
    for number, own in enumerate(options):
        found.setdefault(tuple(sorted((k, v) for k, v in own.items() if k != key)), {})[number] = numbers[number][key]
    lines = {table.rows[min(values)].label if len(found) > 1 else "ours": values for values in found.values()}
    distinct = all(len(set(values.values())) == len(values) >= LEAST for values in lines.values())
    return Sweep(key, lines) if distinct and len(lines) == len(found) else None

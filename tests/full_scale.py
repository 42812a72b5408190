"""Tables at full scale as their rows' experiments, for the tests of settings."""

from __future__ import annotations

from functools import cache

from ood_lab.config import Experiment
from ood_lab.tables.plan import Place, plan
from ood_lab.tables.spec import Table, load_table


@cache
def composed(name: str) -> tuple[Table, dict[Place, tuple[Experiment, ...]]]:
    """The table and the runs of each place; every row has some."""
    table = load_table(name)
    found = plan([table], look=False)
    assert not found.unavailable
    return table, dict(found.experiments)


def rows_of(name: str) -> list[tuple[Place, str, Experiment]]:
    """Each place with the row's label, without its source in brackets, and its first run."""
    table, experiments = composed(name)
    return [(place, table.rows[place.row].label.partition(" [")[0], runs[0]) for place, runs in experiments.items()]

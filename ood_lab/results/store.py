"""One `results.jsonl` per run: tidy rows, written whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ood_lab.storage import write_atomically

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]
COLUMNS = (
    "run_id", "method", "dataset", "backbone", "synthesizer", "seed", "stage",
    "scorer", "options", "space", "ood_set", "group", "metric", "value", "unit",
    "n_id", "n_ood", "n_expected", "layout", "features", "convention", "protocol", "hardware", "commit", "versions",
)  # fmt: skip
# What makes two rows the same measurement: a later one replaces the earlier.
KEY = ("run_id", "scorer", "options", "ood_set", "convention", "metric")


@dataclass
class Results:
    """What a run measured, and beside it what the runs it stands on measured."""

    run_id: str
    run_dir: Path
    rows: list[Row]
    stands_on: list[Results] = field(default_factory=list)

    def frame(self) -> pd.DataFrame:
        """All rows, those of the needed runs first, as a pandas frame."""
        import pandas as pd

        return pd.DataFrame(self.all_rows(), columns=list(COLUMNS))

    def all_rows(self) -> list[Row]:
        """The rows of every run below this one, then its own."""
        return [row for results in self.stands_on for row in results.all_rows()] + self.rows


def read_rows(run_dir: Path) -> list[Row]:
    """The stored rows of a run; none if there is no file yet."""
    path = run_dir / "results.jsonl"
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def add_rows(run_dir: Path, rows: Iterable[Row]) -> None:
    """Store rows; one that measures the same thing as a stored row replaces it."""
    merged = {tuple(row[k] for k in KEY): row for row in read_rows(run_dir)}
    for row in rows:
        unknown = set(row) ^ set(COLUMNS)
        if unknown:
            raise ValueError(f"a result row must have exactly the columns of the store; check {sorted(unknown)}")
        merged[tuple(row[k] for k in KEY)] = row
    text = "".join(json.dumps(row) + "\n" for row in merged.values())
    write_atomically(run_dir / "results.jsonl", text.encode())


def options_text(node: Mapping[str, Any]) -> str:
    """What a detector's scores depend on besides the features, as stored with its rows."""
    return json.dumps({k: v for k, v in node.items() if k != "_target_"}, sort_keys=True)

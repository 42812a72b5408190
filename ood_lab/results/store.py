"""One `results.jsonl` per run, tidy rows, and one `thresholds.jsonl`; both written whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ood_lab.config.source import code_digest
from ood_lab.errors import RunError
from ood_lab.files.storage import write_atomically
from ood_lab.plural import counted

if TYPE_CHECKING:
    import pandas as pd

    from ood_lab.results.table import Line, Selection

Row = dict[str, Any]
COLUMNS = (
    "run_id", "method", "dataset", "backbone", "seed", "stage",
    "id_loss", "synthesizer", "auxiliary", "selector", "perturbation", "outlier_loss", "regularizer", "mixing",
    "pictures", "head", "objective",
    "scorer", "options", "tuned", "fit", "space", "ood_set", "group", "metric", "value", "low", "high", "unit",
    "n_id", "n_ood", "n_expected", "overlap", "layout", "features", "convention", "protocol", "hardware", "commit",
    "versions",
)  # fmt: skip
# What makes two rows the same measurement: a later one replaces the earlier.
KEY = ("run_id", "scorer", "options", "ood_set", "convention", "metric")

ROWS, THRESHOLDS, ASKED, PAGE = "results.jsonl", "thresholds.jsonl", "asked.json", "report.html"
# A threshold lets `id_rate` of `n_id` ID images pass: those of the part that was `held` out ("val", or else "test").
# `train` and `features` are the keys of the training features and of those of the held-out part.
THRESHOLD_COLUMNS = (
    "scorer", "options", "tuned", "id_rate", "threshold", "n_id", "held", "precision", "train", "features",
    "convention",
)  # fmt: skip
CODE = "_code_"  # among stored options the digest of a class of one's own
THRESHOLD_KEY = ("scorer", "options", "id_rate", "convention")


@dataclass(repr=False)
class Results:
    """What a run measured, and beside it what the runs it depends on measured.

    `frame()` has the numbers; `lines` and `caption` are the table that the command has shown, which a notebook draws.

    Args:
        selection: which options of each detector, and which conventions, the command is about; None for all.
    """

    run_id: str
    run_dir: Path
    rows: list[Row]
    needed: list[Results] = field(default_factory=list)
    lines: Sequence[Line] = ()
    caption: Sequence[str] = ()
    selection: Selection | None = None

    def __repr__(self) -> str:
        """Such as `Results('ce-digits-narrow-s0-de90e708', 4 detectors on 3 OOD sets)`."""
        counts = {key: len({row[key] for row in self.rows if row[key] is not None}) for key in ("scorer", "ood_set")}
        detectors, sets = counted(counts["scorer"], "detector"), counted(counts["ood_set"], "OOD set")
        if not self.run_id:
            return f"{type(self).__name__}(of {counted(len(self.needed), 'run')})"
        runs = "" if not self.needed else f", with {counted(len(self.needed), 'run')} it depends on"
        return f"{type(self).__name__}({self.run_id!r}, {detectors} on {sets}{runs})"

    def __str__(self) -> str:
        """The table that the command has shown."""
        from ood_lab.results.render import as_text

        return as_text(self.lines, self.caption) if self.lines else repr(self)

    def _repr_html_(self) -> str:
        """The table that the command has shown, for notebooks."""
        from ood_lab.results.page import render_table

        return render_table(self.lines, self.caption) if self.lines else f"<code>{escape(repr(self))}</code>"

    def frame(self, every: bool = False) -> pd.DataFrame:
        """A row for each detector, OOD set and metric as a pandas frame, those of the needed runs first.

        In each run a detector has the options that the command names, or else those that it was stored with last.

        Args:
            every: whatever is stored: a detector that was scored with several options has rows of each.
        """
        import pandas as pd

        frame = pd.DataFrame(self.all_rows() if every else self._rows(None), columns=list(COLUMNS))
        for name in ("tuned", "versions"):  # texts can be compared and counted, dictionaries can't
            frame[name] = [None if value is None else json.dumps(value, sort_keys=True) for value in frame[name]]
        return frame

    def _rows(self, selection: Selection | None) -> list[Row]:
        """The rows of a selection, where neither this nor the runs below have one of their own."""
        selection = self.selection or selection
        below = [row for results in self.needed for row in results._rows(selection)]
        if selection is None:
            return below + self.rows
        own = selection.of_run(self.rows)
        return below + [row for row in self.rows if own.holds(row)]

    def all_rows(self) -> list[Row]:
        """The rows of every run below this one, then its own."""
        return [row for results in self.needed for row in results.all_rows()] + self.rows


def read_rows(run_dir: Path) -> list[Row]:
    """The stored rows of a run; none if there is no file yet. A column that was added since is None."""
    return _read(run_dir / ROWS, COLUMNS)


def add_rows(run_dir: Path, rows: Iterable[Row]) -> None:
    """Store rows; one that measures the same thing as a stored row replaces it."""
    merged = {tuple(row[k] for k in KEY): row for row in read_rows(run_dir)}
    merged |= {tuple(row[k] for k in KEY): row for row in _checked(rows, COLUMNS)}
    _write(run_dir / ROWS, merged.values())


def read_thresholds(run_dir: Path) -> list[Row]:
    """The stored thresholds of a run's detectors; none if there is no file yet."""
    return _read(run_dir / THRESHOLDS, THRESHOLD_COLUMNS)


def add_thresholds(run_dir: Path, rows: Iterable[Row]) -> None:
    """Store thresholds, the newest last; one of the same detector at the same rate replaces a stored one."""
    new = _checked(rows, THRESHOLD_COLUMNS)
    names = {tuple(row[k] for k in THRESHOLD_KEY) for row in new}
    kept = [row for row in read_thresholds(run_dir) if tuple(row[k] for k in THRESHOLD_KEY) not in names]
    _write(run_dir / THRESHOLDS, [*kept, *new])


def read_asked(run_dir: Path) -> dict[str, str]:
    """The options that each detector of a run was asked for with last, as stored with its rows."""
    path = run_dir / ASKED
    try:
        found = json.loads(path.read_text()) if path.is_file() else {}
    except ValueError:  # it only says which of the stored rows to show
        return {}
    return {str(name): str(text) for name, text in found.items()} if isinstance(found, dict) else {}


def remember_asked(run_dir: Path, options: Mapping[str, str]) -> None:
    """Store what a command has asked for, where that is new; not in a folder that can't be written to."""
    known = read_asked(run_dir)
    if {**known, **options} != known and os.access(run_dir, os.W_OK):
        write_atomically(run_dir / ASKED, json.dumps({**known, **options}).encode())


def _checked(rows: Iterable[Row], columns: tuple[str, ...]) -> list[Row]:
    found = list(rows)
    for row in found:
        wrong = sorted(set(row) ^ set(columns))
        if wrong:
            raise ValueError(f"a stored row must have exactly the columns of the store; check {wrong}")
    return found


def _read(path: Path, columns: tuple[str, ...]) -> list[Row]:
    rows = []
    for number, line in enumerate(path.read_text().splitlines() if path.is_file() else [], start=1):
        try:
            row = {**dict.fromkeys(columns), **json.loads(line)}
            rows.append(row)
            float(row["value" if columns is COLUMNS else "threshold"])
        except (ValueError, TypeError):
            raise RunError(
                f"{path}, line {number}: not a whole row. It was changed by something else; move the file away, and "
                "the same command makes it again from the saved scores"
            ) from None
    return rows


def _write(path: Path, rows: Iterable[Row]) -> None:
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def radius_metric(id_rate: float) -> str:
    """The name of the median local radius of a set's images, which depends on the detector's threshold."""
    return f"local_radius@{id_rate:g}"


def options_text(node: Mapping[str, Any]) -> str:
    """What a detector's scores depend on besides the features, as stored with its rows: options, and its own code."""
    code = code_digest(str(node["_target_"])) if "_target_" in node else None
    own = {} if code is None else {CODE: code}
    return json.dumps({**{k: v for k, v in node.items() if k != "_target_"}, **own}, sort_keys=True)


def options_of(text: str) -> dict[str, Any]:
    """The options in what `options_text` gave."""
    return {key: value for key, value in json.loads(text).items() if key != CODE}

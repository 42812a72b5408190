"""A finished run by its folder: the command that makes it again, and its results, without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ood_lab.config.detectors import TUNED
from ood_lab.config.quoting import as_override, quote
from ood_lab.errors import RequestError
from ood_lab.results.store import Results, Row, options_of, read_asked, read_rows
from ood_lab.results.table import Selection, lines
from ood_lab.runs.run_folder import RunFolder

KEY = "run"
NOT_MADE = ("scorer", "task", "paths.output=", "tuning")  # what a run's command says besides what it trains


def with_stored_run(overrides: Sequence[str]) -> list[str]:
    """`task=report run=FOLDER` as the command that made the run, with every detector that it has results of.

    Raises:
        RequestError: the folder is no run's, or something else is asked for, too.
    """
    named = [text for text in overrides if text.partition("=")[0] == KEY]
    if not named:
        return list(overrides)
    path = Path(named[-1].partition("=")[2].strip("'\"")).expanduser().absolute()
    rest = [text for text in overrides if text not in named and text.partition("=")[0] != "paths.output"]
    if "task=report" not in rest or any(not text.startswith(("task=", "figure", "paths.")) for text in rest):
        raise RequestError(
            "run=FOLDER shows what is stored of a run: task=report run=FOLDER, with figure= and paths.data="
        )
    about, rows = _about(path), read_rows(path)
    if not rows:
        raise RequestError(f"run={path}: nothing is measured yet; run its command: {_command(about['overrides'])}")
    made = [text for text in about["overrides"] if not text.lstrip("+~").startswith(NOT_MADE)]
    return [*made, *_detectors(rows, read_asked(path)), f"paths.output={quote(str(path.parent))}", *rest]


def load_results(folder: str | Path) -> Results:
    """What a finished run has stored, with that of the runs it depends on: every detector, as it was asked for last.

    Args:
        folder: of the run, outputs/<run id>; or that of an evaluation of given features.

    Raises:
        RequestError: nothing is stored there.
    """
    path = Path(folder).expanduser().absolute()
    rows = read_rows(path)
    if not rows:
        _about(path)
        raise RequestError(f"{path}: nothing is measured yet")
    needs = _about(path)["needs"] if RunFolder(path).identity.is_file() else ()
    below = [load_results(path.parent / name) for name in needs if read_rows(path.parent / name)]
    for other in below:
        other.selection = None  # what is shown of them is what is shown of this run
    selection = Selection.of_rows(rows, read_asked(path))
    results = Results(path.name, path, rows, below, selection=selection)
    results.lines = lines(results, selection)
    results.caption = [
        f"as stored in {path}; percent, means over {', '.join(selection.groups)}",
        *options_lines(rows, selection.options),
        *(f"* searched: {line.scorer} {_values(line.tuned)}" for line in results.lines if line.tuned),
    ]
    return results


def options_lines(rows: Sequence[Row], shown: Mapping[str, str]) -> list[str]:
    """Of each detector that is stored with several options, with which it is shown: the values that differ."""
    stored: dict[str, dict[str, None]] = {}
    for row in rows:
        if row["scorer"] is not None:
            stored.setdefault(row["scorer"], {})[row["options"]] = None
    found = []
    for scorer, texts in stored.items():
        nodes = [options_of(text) for text in texts]
        mine = options_of(shown[scorer]) if scorer in shown else {}
        keys = dict.fromkeys(key for node in nodes for key in node if any(o.get(key) != node[key] for o in nodes))
        if len(texts) > 1 and scorer in shown:
            what = "with searched options" if TUNED in mine else "as its code was last"
            if keys and TUNED not in mine:
                what = f"with {_values({key: mine[key] for key in keys if key in mine}) or 'options not searched'}"
            found.append(f"{scorer}: {what}; it is stored with {len(texts)} sets of options, frame(every=True) has all")
    return found


def _values(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={as_override(value)}" for key, value in options.items() if key != TUNED)


def _about(path: Path) -> dict[str, Any]:
    identity = RunFolder(path).identity
    if not identity.is_file():
        raise RequestError(
            f"{path}: no run is stored there; give the folder that a command has printed, outputs/<run id>"
        )
    found: dict[str, Any] = json.loads(identity.read_text())
    return found


def _detectors(rows: Sequence[Row], asked: Mapping[str, str]) -> list[str]:
    """The detectors of stored rows with the options asked for last, or else stored last, as overrides; pytorch-ood's
    and tuned ones are left out.

    Raises:
        RequestError: there are no others.
    """
    plain = Selection.of_rows([row for row in rows if not row["tuned"]], asked).options
    options = {name: options_of(text) for name, text in plain.items()}
    own = {name: node for name, node in options.items() if "." not in name and TUNED not in node}
    if not own:
        raise RequestError(
            "its detectors have searched options, or are pytorch-ood's, which run=FOLDER can't ask for; use the "
            "command that made the run, with task=report"
        )
    values = [f"scorer.{name}.{key}={as_override(value)}" for name, node in own.items() for key, value in node.items()]
    return [f"scorer=[{','.join(own)}]", *values]


def _command(overrides: Sequence[str]) -> str:
    return f"python -m ood_lab {' '.join(overrides)}"

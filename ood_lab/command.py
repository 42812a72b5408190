"""A whole command, from the command line or from Python: one run, a grid of runs, or tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ood_lab.config import RequestError, prepare
from ood_lab.config.features_request import asks_for_features, features_request
from ood_lab.config.first_run import FIRST_RUN, with_first_run
from ood_lab.config.prepare import each_once, expand_all
from ood_lab.config.quoting import as_typed
from ood_lab.evaluation.features_file import check_features_file
from ood_lab.reader.scope import one_command
from ood_lab.results.store import Results
from ood_lab.runs.stored_run import with_stored_run
from ood_lab.sweep.command import read_command, run_tables
from ood_lab.sweep.estimate import planned
from ood_lab.sweep.grid import run_grid


@one_command()
def carry_out(overrides: Sequence[str], folder: Path | None = None, multirun: bool = False) -> Results:
    """Check a command and do what it asks.

    Args:
        overrides: as typed (see `as_typed`); where they name no experiment, that is `FIRST_RUN`.
        folder: of the user's own YAML files.
        multirun: make every combination of the values named.

    Returns:
        what was measured; of several runs, results that depend on those of each.

    Raises:
        RequestError: the experiment is wrong; nothing was started.
        RunError: a run stopped; what it had reported done stays valid.
    """
    if isinstance(overrides, str):
        raise RequestError(f"{overrides!r}: expected a list of overrides, [{overrides!r}]")
    typed, repeated = each_once([as_typed(text, multirun) for text in overrides], folder)
    for note in repeated:
        print(note, file=sys.stderr, flush=True)
    if asks_for_features(typed):
        request = features_request(typed, folder, multirun)
        check_features_file(request.path)
        from ood_lab.task.given_features import run  # imports torch

        return run(request)
    hydra_overrides = [expand_all(text, folder) for text in with_first_run(with_stored_run(typed))]
    command = read_command(hydra_overrides, multirun)
    if command.tables:
        return run_tables(command, folder)
    if multirun:
        runs = run_grid(command, folder)
        return Results("", runs[0].run_dir.parent if runs else Path(), [], runs)
    experiment = prepare(command.overrides, folder)
    if FIRST_RUN in hydra_overrides and not any(text.startswith(("experiment=", "run=")) for text in typed):
        print(f"no method is named: this is {FIRST_RUN} (method=hamos and the like begin others)", flush=True)
    if command.dry_run:
        print("\n".join(planned(experiment)), flush=True)
        return Results(experiment.run_id, experiment.run_dir, [])
    from ood_lab.task import execute  # imports torch only where something is to be computed

    return execute(experiment)

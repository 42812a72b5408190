"""A whole command, from the command line or from Python: one run, a grid of runs, or tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ood_lab.config import prepare
from ood_lab.config.features_request import asks_for_features, features_request
from ood_lab.config.prepare import expand_all
from ood_lab.config.quoting import as_typed
from ood_lab.reader.scope import one_command
from ood_lab.results.store import Results
from ood_lab.runs.stored_run import with_stored_run
from ood_lab.sweep.command import read_command, run_tables
from ood_lab.sweep.grid import run_grid

FIRST_RUN = "experiment=first_run"  # what a command without any override does


@one_command()
def carry_out(overrides: Sequence[str], folder: Path | None = None, multirun: bool = False) -> Results:
    """Check a command and do what it asks.

    Args:
        overrides: as typed (see `as_typed`); none stands for `FIRST_RUN`.
        folder: of the user's own YAML files.
        multirun: make every combination of the values named.

    Returns:
        what was measured; of several runs, results that depend on those of each.

    Raises:
        RequestError: the experiment is wrong; nothing was started.
        RunError: a run stopped; what it had reported done stays valid.
    """
    if not overrides and not multirun:
        print(f"no override given: {FIRST_RUN}", flush=True)
        overrides = [FIRST_RUN]
    hydra_overrides = [expand_all(as_typed(text, multirun), folder) for text in overrides]
    hydra_overrides = with_stored_run(hydra_overrides)
    if asks_for_features(hydra_overrides):
        request = features_request(hydra_overrides, folder, multirun)
        from ood_lab.task.given_features import run

        return run(request)
    command = read_command(hydra_overrides, multirun)
    if command.tables:
        return run_tables(command, folder)
    if multirun:
        runs = run_grid(command, folder)
        return Results("", runs[0].run_dir.parent if runs else Path(), [], runs)
    experiment = prepare(hydra_overrides, folder)
    from ood_lab.task import execute  # imports torch only where something is to be computed

    return execute(experiment)

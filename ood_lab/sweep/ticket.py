"""One job of a sweep as a file: the commands of one run, carried out in whatever process an engine gives."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path

from ood_lab.config.prepare import prepare
from ood_lab.errors import OodLabError, RequestError
from ood_lab.files.storage import write_atomically
from ood_lab.reader.scope import one_command
from ood_lab.runs.run_folder import RunFolder

LOG = "run.log"


@dataclass(frozen=True)
class Ticket:
    """Commands on one run, one after the other.

    Args:
        path: its file; the outcome lies beside it.
        run_dir: where the output of the commands is written to (`run.log`).
        commands: overrides, without sweeps.
        folder: a user's --config-dir.
    """

    path: str
    run_dir: str
    commands: tuple[tuple[str, ...], ...]
    folder: str | None

    def write(self) -> None:
        write_atomically(Path(self.path), json.dumps(asdict(self), indent=1).encode())

    @property
    def outcome(self) -> Path:
        """Where the outcome is written to, once there is one."""
        return Path(self.path).with_suffix(".outcome")

    @property
    def errors(self) -> list[str] | None:
        """What went wrong, empty when nothing did; None as long as there is no outcome (or the process died)."""
        if not self.outcome.is_file():
            return None
        errors: list[str] = json.loads(self.outcome.read_text())
        return errors


def carry_out(path: str | Path, rank: int = 0) -> list[str]:
    """Do what the ticket at `path` says. A failure goes to the run's log and to the outcome; nothing is raised.

    Args:
        rank: this process's place among those that train the run together. The first does everything; the others
            only take part in the training, with a log of their own.

    Returns:
        what went wrong.
    """
    node = json.loads(Path(path).read_text())
    ticket = Ticket(node["path"], node["run_dir"], tuple(map(tuple, node["commands"])), node["folder"])
    try:
        errors = _carried_out(ticket, rank)
    except OSError as error:  # no log can be written: a full disk, a folder that is not ours
        errors = [f"{type(error).__name__}: {error}"]
    if rank == 0:
        write_atomically(ticket.outcome, json.dumps(errors).encode())
    return errors


def _carried_out(ticket: Ticket, rank: int) -> list[str]:
    errors = []
    with _output_to(Path(ticket.run_dir) / (f"{LOG}.rank{rank}" if rank else LOG)):
        for command in ticket.commands[:1] if rank else ticket.commands:
            print(f"\n{time.strftime('%Y-%m-%d %H:%M:%S')} python -m ood_lab {' '.join(command)}", flush=True)
            try:
                _one(command, ticket.folder, Path(ticket.run_dir).name, rank)
            except OodLabError as error:
                print(f"ood_lab: {error}", flush=True)
                errors.append(str(error))
            except Exception as error:  # whatever stopped this run must not stop the others; it is shown and counted
                traceback.print_exc()
                errors.append(f"{type(error).__name__}: {error}")
    return errors


@one_command()
def _one(command: tuple[str, ...], folder: str | None, run_id: str, rank: int) -> None:
    experiment = prepare(list(command), Path(folder) if folder else None)
    if experiment.run_id != run_id:
        raise RequestError(
            f"{run_id} is another run by now, {experiment.run_id}: code, configuration or weights have changed since "
            "the sweep began; start it again"
        )
    if rank and RunFolder(experiment.run_dir).is_trained:
        return
    from ood_lab.task import execute

    execute(experiment)


@contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Standard output and error at the end of a file: of this process, of those it starts, and of Python's streams.

    Engines give these streams a meaning of their own (a pipe to the driver, a notebook's cell).
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    kept = {number: os.dup(number) for number in (1, 2)}
    with log.open("a", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        for number in kept:
            os.dup2(file.fileno(), number)
        try:
            yield
        finally:
            file.flush()
            for number, copy in kept.items():
                os.dup2(copy, number)
                os.close(copy)

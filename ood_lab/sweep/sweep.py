"""Making what is missing of many runs, on any engine."""

from __future__ import annotations

import io
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rich.console import Console

from ood_lab.config.experiment import Experiment
from ood_lab.errors import RequestError, RunError
from ood_lab.plural import counted
from ood_lab.progress import Meter
from ood_lab.sweep.order import Work, in_waves
from ood_lab.sweep.ticket import LOG, Ticket


class Engine(Protocol):
    """What carries out tickets, somewhere.

    Args:
        number: how many at a time, as far as that is known; for estimates.
    """

    number: int

    def launch(self, tickets: Sequence[Ticket]) -> None:
        """Carry out all tickets and wait. A ticket whose process died has no outcome; nothing else is told."""
        ...


@dataclass(frozen=True)
class Failure:
    """A run that could not be made, and why; `log` has its output."""

    run_id: str
    reason: str
    log: Path


@dataclass(frozen=True)
class Failures:
    """What could not be made, of how many runs that were to do."""

    to_do: int
    runs: list[Failure]

    def complain(self) -> None:
        """Say which.

        Raises:
            RunError: there are some.
        """
        if self.runs:
            lines = [f"  {one.run_id}: {one.reason}\n    its output: {one.log}" for one in self.runs]
            head = f"{len(self.runs)} of {counted(self.to_do, 'run')} failed; the same command reruns only those"
            raise RunError("\n".join([head, *lines]))


def sweep(experiments: Sequence[Experiment], engine: Engine, output: Path) -> Failures:
    """Bring every run to its end. Finished ones are left alone; what dies is repeated once.

    Args:
        output: folder of the runs; tickets lie in its `.sweep`.
    """
    waves = in_waves(experiments)
    if not waves:
        return Failures(0, [])
    folder = output / ".sweep" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    failures: dict[str, Failure] = {}
    with _progress(sum(map(len, waves)), folder):
        for number, wave in enumerate(waves):
            tickets: list[tuple[Work, Ticket]] = []
            for work in wave:
                below = sorted(work.prerequisites & set(failures))
                if below:
                    reason = f"it depends on {below[0]}, which could not be made"
                    failures[work.run_id] = Failure(work.run_id, reason, failures[below[0]].log)
                else:
                    tickets.append((work, _ticket(work, folder / f"{number}-{len(tickets):04d}.json")))
            failures |= _carried_out(tickets, engine)
    if not failures:
        shutil.rmtree(folder, ignore_errors=True)
    return Failures(sum(map(len, waves)), list(failures.values()))


def _ticket(work: Work, path: Path) -> Ticket:
    first = work.experiments[0]
    ticket = Ticket(
        str(path.absolute()),
        str(first.run_dir),
        tuple(experiment.overrides for experiment in work.left),
        None if first.config_dir is None else str(first.config_dir),
    )
    ticket.write()
    return ticket


def _carried_out(tickets: Sequence[tuple[Work, Ticket]], engine: Engine) -> dict[str, Failure]:
    """Launch, and once more what died; gives what failed."""
    died = "its process died, twice"
    for _ in range(2):
        waiting = [ticket for _, ticket in tickets if ticket.errors is None]
        try:
            if waiting:
                engine.launch(waiting)
        except RequestError as error:  # the engine can't start anything: what was made before is still reported
            died = str(error)
            break
    failures = {}
    for work, ticket in tickets:
        errors = ticket.errors
        reason = died if errors is None else "; ".join(errors)
        if reason:
            failures[work.run_id] = Failure(work.run_id, reason, Path(ticket.run_dir) / LOG)
    return failures


@contextmanager
def _progress(total: int, folder: Path) -> Iterator[None]:
    """A bar of the runs that have an outcome, on the terminal as it is now: jobs may turn its streams elsewhere."""
    ended = threading.Event()
    console = _terminal()

    def watch() -> None:
        with Meter("runs", total, console=console) as meter:
            while True:
                last = ended.wait(0.5)
                meter.advance(len(list(folder.glob("*.outcome"))) - meter.done)
                if last:
                    return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _terminal() -> Console | None:
    """This process's standard output as it is now; None where it is no file (a notebook)."""
    try:
        return Console(file=os.fdopen(os.dup(sys.stdout.fileno()), "w"), soft_wrap=True)
    except io.UnsupportedOperation:
        return None

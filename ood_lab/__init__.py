"""ood_lab: experiments on out-of-distribution detection with outlier synthesis."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from ood_lab.results.store import Results
    from ood_lab.task.detector import Detector

__version__ = "0.1.0"


def run(overrides: list[str] | None = None) -> Results:
    """Run one request, or tables, from Python: what `python -m ood_lab <overrides>` does.

    `run(["table=hamos_t17", "scale=tiny"])` gives a `TableResults`: besides the rows of all runs it has `cells()`.

    Raises:
        ood_lab.config.RequestError: the request is wrong; nothing was started.
        ood_lab.config.RunError: the run stopped; what it had reported done stays valid.
    """
    from ood_lab.sweep.command import read_command, run_tables

    command = read_command(overrides or [])
    if command.tables:
        return run_tables(command)
    from ood_lab.config import prepare

    request = prepare(overrides or [])
    from ood_lab.task import execute

    return execute(request)


def load_detector(run: str | Path, scorer: str = "knn", id_rate: float | None = None, **options: Any) -> Detector:
    """A finished run as a detector for new images, with a threshold; see `ood_lab.task.detector.load_detector`."""
    from ood_lab.task import detector

    return detector.load_detector(run, scorer, id_rate, **options)

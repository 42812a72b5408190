"""What the command does: train, evaluate, report."""

from __future__ import annotations

from ood_lab.config import Request
from ood_lab.results.store import Results


def execute(request: Request) -> Results:
    """Do what a checked request asks.

    Raises:
        RunError: the run stopped; what it had reported done stays valid.
    """
    from ood_lab.task import evaluate, report, train

    return {"train": train.run, "evaluate": evaluate.run, "report": report.run}[request.cfg.task.name](request)

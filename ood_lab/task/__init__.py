"""What the command does: train, evaluate, report, export, data."""

from __future__ import annotations

from importlib import import_module

from ood_lab.config import Request
from ood_lab.results.store import Results
from ood_lab.task.shown import finished


def execute(request: Request) -> Results:
    """Do what a checked request asks.

    Raises:
        RunError: the run stopped; what it had reported done stays valid.
    """
    if request.cfg.task.name == "train" and (results := finished(request)) is not None:
        return results
    task = import_module(f"ood_lab.task.{request.cfg.task.name}")  # task=data needs no torch
    results = task.run(request)
    assert isinstance(results, Results)
    return results

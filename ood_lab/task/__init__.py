"""What the command does: a module for each task; whatever makes a set is `synthesize`."""

from __future__ import annotations

from importlib import import_module

from ood_lab.config.experiment import Experiment
from ood_lab.results.store import Results
from ood_lab.task.shown import finished


def execute(experiment: Experiment) -> Results:
    """Do what a checked command asks.

    Raises:
        RunError: the run stopped; what it had reported done stays valid.
    """
    if experiment.task.name == "train" and (results := finished(experiment)) is not None:
        return results
    name = "synthesize" if experiment.produces else experiment.task.name
    task = import_module(f"ood_lab.task.{name}")  # task=data needs no torch
    results = task.run(experiment)
    assert isinstance(results, Results)
    return results

"""What the command does: a module for each task; whatever makes a set is `synthesize`."""

from __future__ import annotations

from importlib import import_module

from ood_lab.config.experiment import Experiment
from ood_lab.results.store import Results, remember_asked
from ood_lab.results.table import Selection
from ood_lab.runs.outstanding import READS_A_CLASSIFIER, check_trained
from ood_lab.task.shown import finished


def execute(experiment: Experiment) -> Results:
    """Do what a checked command asks.

    Raises:
        RequestError: it reads a classifier that is not trained yet.
        RunError: the run stopped; what it had reported done stays valid.
    """
    if experiment.task.name == "train" and (results := finished(experiment)) is not None:
        remember_asked(experiment.run_dir, Selection.of(experiment).options)
        return results
    if experiment.task.name in READS_A_CLASSIFIER:
        check_trained(experiment)
    name = "synthesize" if experiment.produces else experiment.task.name
    task = import_module(f"ood_lab.task.{name}")  # task=data needs no torch
    results = task.run(experiment)
    assert isinstance(results, Results)
    if experiment.task.name in ("train", "evaluate"):
        remember_asked(experiment.run_dir, Selection.of(experiment).options)
    return results

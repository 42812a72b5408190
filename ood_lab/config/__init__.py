"""Composing and checking an experiment, and naming its run, before torch is imported."""

from ood_lab.config.compose import Composed, compose
from ood_lab.config.experiment import Experiment
from ood_lab.config.groups import config_dir
from ood_lab.config.prepare import prepare
from ood_lab.errors import OodLabError, RequestError, RunError

__all__ = [
    "Composed",
    "Experiment",
    "OodLabError",
    "RequestError",
    "RunError",
    "compose",
    "config_dir",
    "prepare",
]

"""The final weights of a run as an artifact; how they are trained is its task's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ood_lab.config.experiment import Experiment
from ood_lab.files.artifact import Artifact
from ood_lab.runs.run_folder import RunFolder


@dataclass(frozen=True)
class RunWeights(Artifact):
    """The last file of training; a subclass trains from the last good checkpoint, or from the beginning."""

    experiment: Experiment

    @property
    def key(self) -> str:
        return self.experiment.run_id

    @property
    def path(self) -> Path:
        return RunFolder(self.experiment.run_dir).weights

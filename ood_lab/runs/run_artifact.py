"""What a run makes once, known by the run alone."""

from __future__ import annotations

from dataclasses import dataclass

from ood_lab.config.experiment import Experiment
from ood_lab.files.artifact import Artifact
from ood_lab.runs.run_folder import RunFolder


@dataclass(frozen=True)
class RunArtifact(Artifact):
    """A file in a run's folder; a subclass says which, and makes it."""

    experiment: Experiment

    @property
    def key(self) -> str:
        return self.experiment.run_id

    @property
    def folder(self) -> RunFolder:
        """The run's."""
        return RunFolder(self.experiment.run_dir)

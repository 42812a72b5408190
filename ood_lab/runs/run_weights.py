"""The final weights of a run as an artifact; how they are trained is its task's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ood_lab.runs.run_artifact import RunArtifact


@dataclass(frozen=True)
class RunWeights(RunArtifact):
    """The last file of training; a subclass trains from the last good checkpoint, or from the beginning."""

    @property
    def path(self) -> Path:
        return self.folder.weights

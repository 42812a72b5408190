"""Tensors of a finished run for its pictures, measured once and kept beside its features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from ood_lab.errors import NotDefinedError
from ood_lab.files.storage import write_atomically
from ood_lab.runs.run_artifact import RunArtifact


@dataclass(frozen=True)
class RunTensors(RunArtifact):
    """A file of tensors in a run's folder; a subclass defines `measured`."""

    name: ClassVar[str]  # of the file

    @property
    def path(self) -> Path:
        return self.folder.path / "features" / f"{self.name}.safetensors"

    def load(self) -> dict[str, NDArray[np.generic]]:
        """What is stored, made first where nothing is."""
        return self.read(load_file, (SafetensorError,))

    def make(self) -> None:
        found = {name: np.ascontiguousarray(values) for name, values in self.measured().items()}
        write_atomically(self.path, save(found))

    def measured(self) -> dict[str, NDArray[np.generic]]:
        """The tensors by name."""
        raise NotDefinedError(self, "measured")

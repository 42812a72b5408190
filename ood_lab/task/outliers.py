"""The outliers that a finished run's synthesizer draws: one batch, stored as the features of a set are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from ood_lab.config.experiment import Experiment
from ood_lab.evaluation.extract import Extracted
from ood_lab.files.artifact import Artifact
from ood_lab.files.storage import write_atomically
from ood_lab.method.base import Method
from ood_lab.parts import Dimensions, Synthesizer
from ood_lab.random import generator
from ood_lab.runs.run_folder import RunFolder
from ood_lab.task.build import build, classes_of
from ood_lab.types import Outliers


@dataclass(frozen=True)
class SynthesizedOutliers(Artifact):
    """One batch of outliers with what the network gives for them; there are none as long as a bank is not full.

    Args:
        folder: of the run.
        method: gives its trained network, where it has to draw.
    """

    folder: RunFolder
    method: Callable[[], Method]

    @property
    def key(self) -> str:
        return self.folder.path.name  # they follow from the run alone

    @property
    def path(self) -> Path:
        return self.folder.outliers

    def make(self) -> None:
        method = self.method()
        outliers: Outliers | None = method.outliers()
        if outliers is None:
            return
        with torch.no_grad():
            given = method.of_points(outliers.values)
        if "logits" in given:
            given["logits"] = method.head.class_logits(given["logits"])
        if "z" in given:
            given["projection"] = given.pop("z")
        tensors = {**{name: value.float() for name, value in given.items()}, **outliers.columns}
        tensors["labels"] = outliers.source_class
        tensors = {name: value.cpu().contiguous() for name, value in tensors.items()}
        write_atomically(self.path, save(tensors))

    def load(self) -> Extracted | None:
        """What is stored, drawn first where nothing is; None where there are no outliers."""
        return self.read(load_outliers, (SafetensorError,))


def load_outliers(path: Path) -> Extracted | None:
    """The stored outliers of a run, where there are some; the labels are the classes from which they came."""
    if not path.is_file():
        return None
    return Extracted(load_file(path), hashlib.sha256(path.read_bytes()).hexdigest()[:12])


def redrawn(experiment: Experiment, changes: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The columns of outliers that the finished run's bank gives with other options of its synthesizer."""
    assert experiment.synthesizer is not None
    synthesizer: Synthesizer = build({**experiment.synthesizer.node, **changes})
    weights = load_file(RunFolder(experiment.run_dir).weights)
    kept = {name: weights[f"memories.{name}.values"] for name in synthesizer.keeps()}
    dims = Dimensions(classes_of(experiment), 0, experiment.head.options["projection_dim"])
    draw = generator(experiment.seed, "after training", 0, 0)
    return {name: values.numpy() for name, values in synthesizer.sample(kept, dims, draw).columns.items()}

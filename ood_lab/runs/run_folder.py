"""A run's folder: its files, its lock, and how far it is.

outputs/<run_id>/  config.yaml identity.json images.json normalisation.json
                   curves.jsonl cost.jsonl results.jsonl thresholds.jsonl asked.json report.html DONE
                   checkpoints/ features/ scores/ tuning/ figures/; run.log where a sweep made it
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ood_lab.errors import RequestError
from ood_lab.files.lock import held
from ood_lab.files.storage import write_atomically


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run."""

    path: Path

    @property
    def weights(self) -> Path:
        """The final weights: the last file of training."""
        return self.path / "checkpoints" / "final.safetensors"

    @property
    def checkpoints(self) -> Path:
        """Where training goes on from."""
        return self.path / "checkpoints"

    @property
    def outliers(self) -> Path:
        """One batch of the synthesizer's outliers, with the features that the network gives for them."""
        return self.path / "features" / "synthesized.safetensors"

    @property
    def normalisation(self) -> Path:
        """Mean and standard deviation measured from the training images."""
        return self.path / "normalisation.json"

    @property
    def config(self) -> Path:
        """The configuration that the run was begun with."""
        return self.path / "config.yaml"

    @property
    def identity(self) -> Path:
        """What identifies the run: written once, when it is begun."""
        return self.path / "identity.json"

    @property
    def curves(self) -> Path:
        """One JSON row every few steps."""
        return self.path / "curves.jsonl"

    @property
    def done(self) -> Path:
        """The last file: everything that was asked for is there."""
        return self.path / "DONE"

    @property
    def is_trained(self) -> bool:
        """Whether the final weights are there."""
        return self.weights.is_file()

    @property
    def has_begun(self) -> bool:
        """Whether some training is there, finished or not."""
        return self.is_trained or any(self.checkpoints.glob("*"))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder; a second process with the same run waits for the first."""
        with held(self.path / ".lock", self.path.name, self.path / ".holder"):
            yield

    def weight_values(self) -> dict[str, Any] | None:
        """The values that affect the weights, as the run was begun with them; None where none was begun.

        Raises:
            RequestError: something else changed the file.
        """
        if not self.identity.is_file():
            return None
        try:
            return dict(json.loads(self.identity.read_text())["leaves"])
        except (ValueError, KeyError, TypeError):
            raise RequestError(
                f"{self.identity} was changed by something else and can't be read; move the folder away"
            ) from None

    def mark_done(self, seconds: float | None = None) -> None:
        """Write the last file.

        Args:
            seconds: how long the run took, where it was made in one go; what was known before is kept.
        """
        known = seconds if seconds is not None else self.seconds
        write_atomically(self.done, json.dumps({} if known is None else {"seconds": round(known, 1)}).encode())

    @property
    def seconds(self) -> float | None:
        """How long a finished run took; None where that isn't known."""
        found = re.search(r'"seconds": ([\d.]+)', self.done.read_text() if self.done.is_file() else "")
        return float(found[1]) if found else None

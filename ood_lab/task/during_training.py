"""Between epochs: detectors scored on the network as it stands, and the best weights by validation accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from ood_lab.errors import RunError
from ood_lab.evaluation.extract import Extracted, Precision, extract
from ood_lab.evaluation.metrics import ood_metrics
from ood_lab.evaluation.scores import fit, score
from ood_lab.files.storage import write_atomically
from ood_lab.method.base import Method
from ood_lab.method.measured import EPOCH_METRICS
from ood_lab.scorer.base import Scorer
from ood_lab.task.callbacks import Curves


@dataclass
class Snapshot:
    """The features of image sets under the weights of a network that is being trained; each set is passed once."""

    method: Method
    data: Any  # DataModule
    precision: Precision
    known: dict[str, Extracted] = field(default_factory=dict)

    def of(self, name: str, scorer: Scorer | None = None) -> Extracted:
        """The features of a set of the data module."""
        if name not in self.known:
            batches = list(extract(self.method, self.data.evaluation_loader(name), name, self.precision))
            self.known[name] = Extracted({key: torch.cat([batch[key] for batch in batches]) for key in batches[0]})
        return self.known[name]


@dataclass
class Evaluation(L.Callback):
    """Scores detectors at the end of every so many epochs, and adds AUROC and FPR95 to the curves.

    Nothing of the training changes: the network is in evaluation mode, no random number is drawn, and every step is
    seeded by itself.

    Args:
        every: epochs.
        detectors: by name, as configured.
        sets: what ID images are scored beside: "val" or "test" to the OOD sets.
        precision: in which the network runs.
        fpr95: the convention of the headline.
        curves: where the numbers go.
    """

    every: int
    detectors: Mapping[str, Scorer]
    sets: Mapping[str, Sequence[str]]
    precision: Precision
    fpr95: str
    curves: Curves

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if (trainer.current_epoch + 1) % self.every or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, Method)
        source = Snapshot(pl_module, trainer.datamodule, self.precision)  # type: ignore[attr-defined]
        head = type(pl_module.head).classifier(pl_module.state_dict())
        try:
            for name, scorer in self.detectors.items():
                with torch.inference_mode():
                    if scorer.learns:
                        fit(scorer, source, head, "val" in self.sets)
                    self.curves.add(trainer, self._measured(name, scorer, source))
        finally:
            pl_module.train()

    def _measured(self, name: str, scorer: Scorer, source: Snapshot) -> dict[str, float]:
        found: dict[str, float] = {}
        for id_set, ood_sets in self.sets.items():
            ids = score(scorer, source.of(id_set).features(scorer.space)).numpy()
            for ood_set in ood_sets:
                oods = score(scorer, source.of(ood_set).features(scorer.space)).numpy()
                metrics = ood_metrics(ids, oods)
                found[f"{id_set}/{name}/auroc/{ood_set}"] = metrics["auroc"]
                found[f"{id_set}/{name}/fpr95/{ood_set}"] = metrics[f"fpr95_{self.fpr95}"]
        return found


class BestWeights(L.Callback):
    """Keeps the weights of the epoch with the largest accuracy on ID validation images, the first of equals.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best: dict[str, float] = {"accuracy": -1.0, "epoch": -1}

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Method)
        accuracy = pl_module.last_summary["val_accuracy"]
        if accuracy > self.best["accuracy"]:
            self.best = {"accuracy": accuracy, "epoch": trainer.current_epoch}
            if trainer.is_global_zero:
                about = {name: repr(value) for name, value in self.best.items()}
                write_atomically(self.path, save(final_weights(pl_module), about))

    def state_dict(self) -> dict[str, float]:
        return dict(self.best)

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.best = dict(state_dict)

    def weights(self) -> dict[str, torch.Tensor]:
        """The kept weights.

        Raises:
            RunError: the file is of another epoch than the checkpoint says, or not there.
        """
        found: dict[str, str] = {}
        if self.path.is_file():
            with safe_open(self.path, "pt") as file:
                found = file.metadata() or {}
        if found != {name: repr(value) for name, value in self.best.items()}:
            raise RunError(
                f"{self.path} does not hold the weights of epoch {self.best['epoch'] + 1}, which were the best: it was "
                "changed by something else. Move the run's folder away to train anew, or use trainer.select=last"
            )
        return load_file(self.path)


def final_weights(method: Method) -> dict[str, torch.Tensor]:
    """What is kept of a method when it is trained: all but what is measured of an epoch."""
    return {k: v.contiguous() for k, v in method.state_dict().items() if not k.startswith(EPOCH_METRICS)}

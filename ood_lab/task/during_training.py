"""Between epochs: detectors scored on the network as it is, and the best weights by validation accuracy."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import torch

from ood_lab.evaluation.extract import Extracted, Precision, extract
from ood_lab.evaluation.metrics import ood_metrics
from ood_lab.evaluation.scores import fit, score
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
        val: whether ID images are kept for validation, on which some detectors are fitted, too.
    """

    every: int
    detectors: Mapping[str, Scorer]
    sets: Mapping[str, Sequence[str]]
    precision: Precision
    fpr95: str
    curves: Curves
    val: bool

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if (trainer.current_epoch + 1) % self.every or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, Method)
        source = Snapshot(pl_module, trainer.datamodule, self.precision)  # type: ignore[attr-defined]
        weights = {name: value.cpu() for name, value in pl_module.state_dict().items()}  # where the features are
        head = type(pl_module.head).classifier(weights)
        try:
            for name, scorer in self.detectors.items():
                try:
                    with torch.inference_mode():
                        if scorer.learns:
                            fit(scorer, source, head, self.val)
                        measured = self._measured(name, scorer, source)
                except (ValueError, torch.linalg.LinAlgError) as error:
                    epoch = trainer.current_epoch + 1
                    print(f"note: {name} can't score the network after epoch {epoch}: {error}", file=sys.stderr)
                    continue
                self.curves.add(trainer, measured)
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

    They are part of the checkpoint, which is whole or not there: what training goes on from has its best epoch.
    """

    def __init__(self) -> None:
        self.accuracy, self.epoch = -1.0, -1
        self.weights: dict[str, torch.Tensor] = {}

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Method)
        accuracy = pl_module.last_summary["val_accuracy"]
        if accuracy > self.accuracy:
            self.accuracy, self.epoch = accuracy, trainer.current_epoch
            self.weights = {name: value.detach().cpu().clone() for name, value in final_weights(pl_module).items()}

    def state_dict(self) -> dict[str, Any]:
        return {"accuracy": self.accuracy, "epoch": self.epoch, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.accuracy, self.epoch, self.weights = (state_dict[name] for name in ("accuracy", "epoch", "weights"))


def final_weights(method: Method) -> dict[str, torch.Tensor]:
    """What is kept of a method when it is trained: all but what is measured of an epoch."""
    return {k: v.contiguous() for k, v in method.state_dict().items() if not k.startswith(EPOCH_METRICS)}

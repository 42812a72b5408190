"""What happens around training steps: curves, checkpoints, the progress bar."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import lightning as L
from torch import Tensor

from ood_lab.files.storage import write_atomically
from ood_lab.progress import Meter
from ood_lab.results.curves import read_curves


class Logged(Protocol):
    """What curves show of a module besides its losses."""

    info: dict[str, Tensor]

    def epoch_summary(self) -> dict[str, float]:
        """Numbers of the epoch that has ended."""
        ...


def _logged(module: L.LightningModule) -> Logged:
    return cast(Logged, module)


def stepped(trainer: L.Trainer, batch_idx: int) -> bool:
    """Whether the optimizer has taken a step after this batch: after every `trainer.accumulate`-th, and the last."""
    last = batch_idx + 1 == trainer.num_training_batches
    return last or (batch_idx + 1) % trainer.accumulate_grad_batches == 0


class Curves(L.Callback):
    """Appends one row every `every` steps and one an epoch to `curves.jsonl`, and hands them to the loggers.

    Rows of steps that a killed run had taken after its last checkpoint are dropped when it resumes.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        rows = [row for row in read_curves(self.path) if row["step"] <= trainer.global_step]
        write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in rows).encode())
        self._file = self.path.open("a")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % self.every == 0 and stepped(trainer, batch_idx):
            losses = {k: v.item() for k, v in outputs.items() if isinstance(v, Tensor) and k != "loss"}
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            info = {f"info/{k}": v.item() for k, v in _logged(pl_module).info.items()}
            self.add(trainer, {**{f"loss/{k}": v for k, v in losses.items()}, **info, "lr": rate})

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.add(trainer, {f"epoch/{k}": v for k, v in _logged(pl_module).epoch_summary().items()})

    def add(self, trainer: L.Trainer, values: dict[str, float]) -> None:
        """Write a row of the step at which training is."""
        if not trainer.is_global_zero:
            return
        row = {"step": trainer.global_step, "epoch": trainer.current_epoch, **values}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")


class Checkpoints(L.Callback):
    """Saves at every epoch's end, and within an epoch when `minutes` have passed since the last save."""

    def __init__(self, folder: Path, minutes: float) -> None:
        self.folder, self.seconds = folder, minutes * 60
        self._saved = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # The last batch's state is saved at the epoch's end, after validation and the epoch's summary.
        # Gradients that are only gathered are in no checkpoint.
        if batch_idx + 1 < trainer.num_training_batches and stepped(trainer, batch_idx) and self._due(trainer):
            self._save(trainer)

    def _due(self, trainer: L.Trainer) -> bool:
        due = time.monotonic() - self._saved >= self.seconds
        # All devices save together, by the first one's clock.
        return due if trainer.world_size == 1 else bool(trainer.strategy.broadcast(due))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self.folder / f"step{trainer.global_step:09d}.ckpt")
        self._saved = time.monotonic()


class Clock(L.Callback):
    """Seconds of training, those before a checkpoint from which it goes on included."""

    def __init__(self) -> None:
        self._before, self._began = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        """So far."""
        return self._before + time.monotonic() - self._began

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._began = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = state_dict["seconds"]


def _accuracy(module: L.LightningModule) -> str:
    """The accuracy of the epoch before, on ID validation images where there are any."""
    summary: Mapping[str, float] = getattr(module, "last_summary", {})
    for split in ("val", "train"):
        if f"{split}_accuracy" in summary:
            return f"  {split} accuracy {100 * summary[f'{split}_accuracy']:.1f} %"
    return ""


class Bar(L.Callback):
    """Steps done and time left over the whole training, the loss, and the accuracy of the epoch before.

    The loss is read where `Curves` reads it, too, every `every` steps: nothing else waits for the device.
    """

    def __init__(self, name: str, every: int) -> None:
        self.name, self.every, self._loss = name, every, ""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        assert trainer.max_epochs is not None
        total = int(trainer.max_epochs * trainer.num_training_batches)
        begun = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        done = trainer.current_epoch * int(trainer.num_training_batches) + begun
        self._meter = Meter(f"train {self.name}", total, done).__enter__()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.is_global_zero:
            return
        if trainer.global_step % self.every == 0:
            given = outputs if isinstance(outputs, Mapping) else {}  # a loop of its own may have no sum of terms
            total = given.get("total", given.get("loss"))
            self._loss = f"  loss {total.item():.3g}" if isinstance(total, Tensor) else ""
        self._meter.advance(note=f"epoch {trainer.current_epoch + 1}{self._loss}{_accuracy(pl_module)}")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if hasattr(self, "_meter"):
            self._meter.__exit__(None, None, None)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")
        if isinstance(exception, KeyboardInterrupt):  # Lightning exits by itself after this
            print("ood_lab: interrupted; the same command goes on from the last checkpoint", flush=True)

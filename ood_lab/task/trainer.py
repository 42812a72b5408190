"""Lightning's trainer, as every network here is trained by it: exactly resumable, silent, with curves and a bar."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L

from ood_lab.config.experiment import Experiment
from ood_lab.runs.cost import add_seconds
from ood_lab.runs.run_folder import RunFolder
from ood_lab.task.callbacks import Bar, Checkpoints, Clock, Curves
from ood_lab.training.checkpoint import NamedByDigest, step_of
from ood_lab.training.datamodule import DataModule


def trainer_of(
    experiment: Experiment,
    max_epochs: int,
    curves: Curves,
    callbacks: Sequence[L.Callback] = (),
    loggers: Sequence[Any] = (),
    precision: Any = "32-true",
) -> L.Trainer:
    """The trainer of a run.

    Args:
        callbacks: between the curves and the checkpoints, which hold their state.
        loggers: where the curves go besides the run's folder.
    """
    options, folder = experiment.trainer, RunFolder(experiment.run_dir)
    _quiet_lightning()
    return L.Trainer(
        accelerator=options.accelerator,
        devices=options.devices,
        strategy="ddp" if options.devices > 1 else "auto",
        use_distributed_sampler=False,
        precision=precision,
        max_epochs=max_epochs,
        accumulate_grad_batches=1 if experiment.makes_no_classifier else options.accumulate,
        callbacks=[
            Bar(experiment.run_id, options.log_every_n_steps),
            Clock(),
            curves,
            *callbacks,
            Checkpoints(folder.checkpoints, options.checkpoint_minutes),
        ],
        logger=list(loggers),
        log_every_n_steps=1,  # `Curves` logs, and by its own interval
        plugins=[NamedByDigest()],
        deterministic="warn",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=str(folder.path),
    )


def announce_resumed(resumed: Path | None, steps: int, per_epoch: int) -> None:
    """Say from where training that was stopped goes on; nothing for one that begins."""
    if resumed is not None:
        done = step_of(resumed)
        print(f"goes on from step {done:,} of {steps:,} (epoch {min(done, steps - 1) // per_epoch + 1})", flush=True)


def fit(trainer: L.Trainer, module: L.LightningModule, data: DataModule, resumed: Path | None, run_dir: Path) -> None:
    """Train to the end, from a checkpoint or from the beginning, and store what it took."""
    trainer.fit(module, datamodule=data, ckpt_path=str(resumed) if resumed else None)
    if trainer.is_global_zero:
        (clock,) = (callback for callback in trainer.callbacks if isinstance(callback, Clock))  # type: ignore[attr-defined]
        add_seconds(run_dir, "training", clock.seconds * trainer.world_size)


def _quiet_lightning() -> None:
    """Lightning's notices about hardware and loaders are not about this run."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    unimportant = ("does not have many workers", "dataloader is not resumable", "LeafSpec", "have no `validation_step`")
    for message in unimportant:
        warnings.filterwarnings("ignore", f".*{message}.*")
    warnings.filterwarnings("ignore", r".*module\(s\) in eval mode.*")  # averages and frozen networks

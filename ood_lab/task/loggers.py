"""Weights & Biases or TensorBoard beside the run directory: curves while training, then numbers and pictures."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ood_lab.config.experiment import Experiment
from ood_lab.config.identity import backbone_name, id_set_name, method_name, part_names
from ood_lab.results.store import Results, Row
from ood_lab.runs.run_folder import RunFolder
from ood_lab.task.report import Drawn
from ood_lab.training.checkpoint import newest, step_of

LONGEST_TAG = 64  # characters that wandb allows


class Session:
    """Where a run is logged: nowhere but its own directory."""

    loggers: Sequence[Any] = ()

    def __init__(self, experiment: Experiment) -> None:
        """Open it."""

    def publish(self, results: Results, figures: Sequence[Drawn]) -> None:
        """Log the finished run's numbers and pictures."""

    def close(self) -> None:
        """Write what is not written yet."""


class WandbSession(Session):
    """A wandb run whose id is the run id, tagged by its parts; summary metrics such as `fpr95/photos/energy`."""

    def __init__(self, experiment: Experiment) -> None:
        import wandb
        from lightning.pytorch.loggers import WandbLogger

        # Without a key wandb would ask for one on the terminal.
        offline = "WANDB_MODE" not in os.environ and not wandb.api.api_key
        self.fpr95 = f"fpr95_{experiment.protocol.fpr95}"
        self.run = wandb.init(
            project=experiment.logger.project,
            id=experiment.run_id,
            name=experiment.run_id,
            group=experiment.logger.group,
            job_type=method_name(experiment),
            tags=tags(experiment),
            dir=str(experiment.run_dir),
            config=experiment.values(),
            resume="allow",
            mode="offline" if offline else None,
        )
        self.loggers = [WandbLogger(experiment=self.run)]

    def publish(self, results: Results, figures: Sequence[Drawn]) -> None:
        import wandb
        from PIL import Image

        self.run.log({"results": wandb.Table(dataframe=results.frame())})
        pictures = {f.title: wandb.Image(Image.open(io.BytesIO(f.png))) for f in figures}
        self.run.log({f"figure/{title}": picture for title, picture in pictures.items()})
        self.run.summary.update(summary(results.rows, self.fpr95))

    def close(self) -> None:
        import wandb

        wandb.finish()


class TensorBoardSession(Session):
    """Events in `<run>/tensorboard`: curves, then metrics such as `fpr95/photos/energy`, and the pictures."""

    def __init__(self, experiment: Experiment) -> None:
        from lightning.pytorch.loggers import TensorBoardLogger

        folder = RunFolder(experiment.run_dir)
        resumed = newest(folder.checkpoints)
        # Events that a killed run has written after its last checkpoint are left out by TensorBoard.
        purge = None if resumed is None else step_of(resumed) + 1
        self.fpr95 = f"fpr95_{experiment.protocol.fpr95}"
        self.logger = TensorBoardLogger(folder.path, "tensorboard", "", purge_step=purge)
        self.loggers = [self.logger]

    def publish(self, results: Results, figures: Sequence[Drawn]) -> None:
        from PIL import Image

        writer = self.logger.experiment
        for name, value in summary(results.rows, self.fpr95).items():
            writer.add_scalar(name, value)
        for figure in figures:
            pixels = np.asarray(Image.open(io.BytesIO(figure.png)).convert("RGB"))
            writer.add_image(f"figure/{figure.title}", pixels, dataformats="HWC")

    def close(self) -> None:
        self.logger.finalize("success")
        self.logger.experiment.close()
        print(f"TensorBoard: tensorboard --logdir {self.logger.save_dir}", flush=True)


def tags(experiment: Experiment) -> list[str]:
    """What a run is made of, for filtering: ID set, network and parts, such as "synthesizer=hmc"."""
    parts = [f"{group}={name}" for group, names in part_names(experiment).items() for name in names]
    found = [f"dataset={id_set_name(experiment)}", f"backbone={backbone_name(experiment)}", *parts]
    return [tag[:LONGEST_TAG] for tag in found]


def summary(rows: Sequence[Row], fpr95: str) -> dict[str, float]:
    """Single numbers by metric, OOD set and detector; `fpr95` in the protocol's convention.

    Args:
        fpr95: the metric that stands for it.
    """
    names = {"auroc": "auroc", fpr95: "fpr95", "aupr_in": "aupr_in", "aupr_out": "aupr_out"}
    found = {}
    for row in rows:
        if row["metric"] == "accuracy":
            found["accuracy/id"] = row["value"]
        elif row["metric"] in names and row["ood_set"] is not None:
            found[f"{names[row['metric']]}/{row['ood_set']}/{row['scorer']}"] = row["value"]
    return found


SESSIONS = {"csv": Session, "wandb": WandbSession, "tensorboard": TensorBoardSession}


@contextmanager
def session(experiment: Experiment) -> Iterator[Session]:
    """The chosen logger for the time of a run; closed whatever happens."""
    opened = SESSIONS[experiment.logger.name](experiment)
    try:
        yield opened
    finally:
        opened.close()

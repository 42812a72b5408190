"""Weights & Biases beside the run directory: curves while training, then the table and the pictures."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ood_lab.config.experiment import Experiment
from ood_lab.results.store import Results
from ood_lab.task.report import Drawn


class Session:
    """Where a run is logged: nowhere but its own directory."""

    loggers: Sequence[Any] = ()

    def publish(self, results: Results, figures: Sequence[Drawn]) -> None:
        """Log the finished run's table and pictures."""


class WandbSession(Session):
    """A wandb run whose id is the run id."""

    def __init__(self, experiment: Experiment) -> None:
        import wandb
        from lightning.pytorch.loggers import WandbLogger

        # Without a key wandb would ask for one on the terminal.
        offline = "WANDB_MODE" not in os.environ and not wandb.api.api_key
        self.run = wandb.init(
            project=experiment.logger.project,
            id=experiment.run_id,
            name=experiment.run_id,
            dir=str(experiment.run_dir),
            config=experiment.values(),
            resume="allow",
            mode="offline" if offline else None,
        )
        self.loggers = [WandbLogger(experiment=self.run)]

    def publish(self, results: Results, figures: Sequence[Drawn]) -> None:
        import wandb
        from PIL import Image

        frame = results.frame()
        frame["versions"] = frame["versions"].astype(str)
        self.run.log({"results": wandb.Table(dataframe=frame)})
        pictures = {f.title: wandb.Image(Image.open(io.BytesIO(f.png))) for f in figures}
        self.run.log({f"figure/{title}": picture for title, picture in pictures.items()})
        for row in results.rows:
            name = "/".join(str(row[k]) for k in ("scorer", "ood_set", "metric") if row[k] is not None)
            self.run.summary[name] = row["value"]


@contextmanager
def session(experiment: Experiment) -> Iterator[Session]:
    """The chosen logger for the time of a run; closed whatever happens."""
    if experiment.logger.name != "wandb":
        yield Session()
        return
    import wandb

    try:
        yield WandbSession(experiment)
    finally:
        wandb.finish()

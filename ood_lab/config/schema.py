"""The parts of a request that no constructor names: their keys and ranges, read like a constructor's."""

from dataclasses import dataclass
from typing import Literal

from ood_lab.config.ranges import NonNegativeInt, PositiveFloat, PositiveInt


@dataclass
class Root:
    """Keys at the top of the configuration that are no group."""

    seed: NonNegativeInt
    paths: dict


@dataclass
class Paths:
    """Where images are read from and results are written to."""

    data: str
    output: str


@dataclass
class Task:
    """What the command does."""

    name: Literal["train", "evaluate", "report"]


@dataclass
class Trainer:
    """How long and on what a run trains. `max_epochs`, `batch_size` and `precision` belong to its identity."""

    accelerator: Literal["cpu", "gpu"]
    max_epochs: PositiveInt
    batch_size: PositiveInt
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]
    threads: PositiveInt
    eval_batch_size: PositiveInt
    log_every_n_steps: PositiveInt
    checkpoint_minutes: PositiveFloat


@dataclass
class Init:
    """Where the weights come from before the first step."""

    method: str | None
    overrides: list[str]
    checkpoint: str | None


@dataclass
class Protocol:
    """Which OOD sets are scored, and by which convention the headline FPR95 is taken."""

    name: str
    near: list[str]
    far: list[str]
    missing: Literal["error", "skip"]
    fpr95: Literal["ood_pos", "id_pos"]
    fpr_rule: Literal["first", "nearest"]


@dataclass
class Recipe:
    """What training on an image set takes: sizes that the papers give by data set."""

    num_classes: PositiveInt
    sibling: str
    epochs: dict
    projection_dim: PositiveInt
    bank_size: PositiveInt
    neighbor: PositiveInt


@dataclass
class Logger:
    """Where training curves go besides the run directory."""

    name: Literal["csv", "wandb"]
    project: str

"""The parts of a request that no constructor names: their keys and ranges, read like a constructor's."""

from dataclasses import dataclass
from typing import Literal

from ood_lab.config.ranges import (
    ChannelDeviations,
    ChannelMeans,
    NonNegativeFloat,
    NonNegativeInt,
    OpenFraction,
    PositiveFloat,
    PositiveInt,
)


@dataclass
class Root:
    """Keys at the top of the configuration that are no group.

    Each detector's threshold lets `id_rate` of the ID validation images pass. `bootstrap` resamplings of the test
    images give every metric an interval. Of the detectors in `local_radius` it is estimated how far each test image may
    move before their verdict changes. `index` searches nearest neighbours for detectors.
    """

    seed: NonNegativeInt
    id_rate: OpenFraction
    bootstrap: NonNegativeInt
    local_radius: list[str]
    index: Literal["torch", "faiss"]
    paths: dict
    benchmark: str


@dataclass
class Paths:
    """Where images are read from and results are written to."""

    data: str
    output: str
    cache: str


@dataclass
class Task:
    """What the command does."""

    name: Literal["train", "evaluate", "report", "export", "data"]
    action: Literal["list", "verify", "download"] | None


@dataclass
class Trainer:
    """How long and on what a run trains. Epochs, batch sizes (of all devices together) and precision are its identity.

    `workers` decode the images of a streaming set; decoded test sets of up to `cache_gb` are kept below paths.cache.
    """

    accelerator: Literal["cpu", "gpu"]
    devices: PositiveInt
    max_epochs: NonNegativeInt
    batch_size: PositiveInt
    auxiliary_batch_size: PositiveInt
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]
    threads: PositiveInt
    workers: NonNegativeInt
    cache_gb: NonNegativeFloat
    eval_batch_size: PositiveInt
    eval_precision: Literal["32-true", "bf16-mixed"]
    log_every_n_steps: PositiveInt
    checkpoint_minutes: PositiveFloat


@dataclass
class Init:
    """Where the weights come from before the first step.

    `method` and `overrides` make a run of their own; `checkpoint` and `weights` name a file, `key` the network in it.
    With `projector` that of the run, or of the final weights (.safetensors) of a run, is taken over, too.
    """

    method: str | None
    overrides: list[str]
    checkpoint: str | None
    weights: dict | None
    key: str | None = None
    projector: bool = False


@dataclass
class Weights:
    """Published weights, or a file of one's own: where they are and how they are got.

    `sha256` is that of the file, or its first digits.
    """

    file: str
    url: str | None = None
    sha256: str | None = None
    how_to_get: str = "Put the file there."
    licence: str = "not stated"


@dataclass
class Protocol:
    """Which OOD sets are scored, on which images, and by which convention the headline FPR95 is taken.

    Detectors are tuned on the `validation` sets, which are no test sets. `missing` and `check` say what a set that is
    not there, or has another number of images than the source states, means: an error, or a mark in the table. Of the
    ID test images `id_val` are kept for validation; null for a fifth of them at most. With `subset`, metrics are means
    over `draws` seeded draws of so many images of each OOD set. `transforms` names the chain of a set that isn't read
    by `transform`. `folders` has the paths of OOD sets that are no data set of the configuration, by name. `mean` and
    `std` normalise in training and test; null for those of the training images.
    """

    name: str
    source: str
    sets: dict
    near: list[str]
    far: list[str]
    validation: list[str]
    missing: Literal["error", "skip"]
    check: Literal["strict", "loose"]
    id_val: NonNegativeInt | None
    subset: PositiveInt | None
    draws: PositiveInt
    transform: Literal["short_side", "center_crop", "squash", "squash_aliased", "as_is"]
    transforms: dict
    folders: dict
    mean: ChannelMeans | None
    std: ChannelDeviations | None
    fpr95: Literal["ood_pos", "id_pos"]
    fpr_rule: Literal["first", "nearest"]
    aupr_rule: Literal["trapezoid", "average_precision"]


@dataclass
class Tuning:
    """For each detector, the values of its options that are tried on validation data."""

    name: str
    grids: dict


@dataclass
class Recipe:
    """What training on an image set takes: sizes that the papers give by data set, and how many test images it has.

    Without `num_classes` the training split's classes are counted. `batch_size` is the default of trainer.batch_size;
    without one that is 128. Below `energy_margin` method=energy pushes ID energies.
    """

    num_classes: PositiveInt | None
    test_images: PositiveInt | None
    benchmark: str
    serve: Literal["resident", "streaming"]
    resize: PositiveInt
    side: PositiveInt
    epochs: dict
    projection_dim: PositiveInt
    bank_size: PositiveInt
    neighbor: PositiveInt
    batch_size: PositiveInt | None = None
    energy_margin: float | None = None


@dataclass
class Logger:
    """Where training curves go besides the run directory."""

    name: Literal["csv", "wandb"]
    project: str

"""The sections of an experiment that no constructor names: their options, ranges, and what each option affects."""

from dataclasses import dataclass
from typing import Annotated, Literal

from ood_lab.config.affects import COMPARABILITY, FEATURES, NOTHING, SCORES, WEIGHTS
from ood_lab.config.ranges import (
    ChannelDeviations,
    ChannelMeans,
    NonNegativeFloat,
    NonNegativeInt,
    OpenFraction,
    PositiveFloat,
    PositiveInt,
)

Chain = Literal["short_side", "center_crop", "squash", "squash_aliased", "as_is"]  # see `ood_lab.images.transform`


@dataclass(frozen=True)
class Root:
    """Keys at the top of the configuration that are no group.

    Each detector's threshold lets `id_rate` of the ID validation images pass. `bootstrap` resamplings of the test
    images give every metric an interval. Of the detectors in `local_radius` it is estimated how far each test image may
    move before their verdict changes. `index` searches nearest neighbours for detectors. `features` is a file that
    task=evaluate reads instead of a run's. `note` is shown under the run's table.
    """

    seed: Annotated[NonNegativeInt, WEIGHTS]
    id_rate: Annotated[OpenFraction, SCORES]
    bootstrap: Annotated[NonNegativeInt, SCORES]
    local_radius: Annotated[list[str], NOTHING]
    index: Annotated[Literal["torch", "faiss"], NOTHING]
    paths: Annotated[dict, NOTHING]
    benchmark: Annotated[str, NOTHING]
    features: Annotated[str | None, NOTHING] = None
    note: Annotated[str | None, NOTHING] = None


@dataclass(frozen=True)
class Paths:
    """Where images are read from and results are written to."""

    data: Annotated[str, NOTHING]
    output: Annotated[str, NOTHING]
    cache: Annotated[str, NOTHING]


@dataclass(frozen=True)
class Task:
    """What the command does."""

    name: Annotated[
        Literal[
            "train", "evaluate", "report", "export", "data",
            "synthesize", "train_generator", "anchors", "outliers", "decode",
        ],
        NOTHING,
    ]  # fmt: skip
    action: Annotated[Literal["list", "verify", "download"] | None, NOTHING]


@dataclass(frozen=True)
class Trainer:
    """How long and on what a run trains. Epochs, batch sizes (of all devices together) and precision are its identity.

    `workers` decode the images of a streaming set; decoded test sets of up to `cache_gb` are kept below paths.cache.
    Every `evaluate_every` epochs (0 for never) the detectors in `evaluate_scorers` (null for those that learn nothing)
    are scored on ID validation images beside the protocol's validation sets; with `evaluate_test` on the test sets,
    too. The final weights are the last ones, or with `select` those of the epoch with the best accuracy on ID
    validation images. Of the auxiliary set `auxiliary_images` are used, drawn by the seed (null: all).

    The gradients of `accumulate` batches make one step of the optimizer. With `ema` the run ends with a moving average
    of the weights by that decay. `compile` hands the network to torch.compile.
    """

    accelerator: Annotated[Literal["cpu", "gpu"], NOTHING]
    devices: Annotated[PositiveInt, NOTHING]
    max_epochs: Annotated[NonNegativeInt, WEIGHTS | COMPARABILITY]
    batch_size: Annotated[PositiveInt, WEIGHTS | COMPARABILITY]
    auxiliary_batch_size: Annotated[PositiveInt, WEIGHTS | COMPARABILITY]
    precision: Annotated[Literal["32-true", "bf16-mixed", "16-mixed"], WEIGHTS]
    threads: Annotated[PositiveInt, NOTHING]
    workers: Annotated[NonNegativeInt, NOTHING]
    cache_gb: Annotated[NonNegativeFloat, NOTHING]
    eval_batch_size: Annotated[PositiveInt, NOTHING]
    eval_precision: Annotated[Literal["32-true", "bf16-mixed"], FEATURES | COMPARABILITY]
    log_every_n_steps: Annotated[PositiveInt, NOTHING]
    checkpoint_minutes: Annotated[PositiveFloat, NOTHING]
    evaluate_every: Annotated[NonNegativeInt, NOTHING] = 0
    evaluate_scorers: Annotated[list[str] | None, NOTHING] = None
    evaluate_test: Annotated[bool, NOTHING] = False
    select: Annotated[Literal["last", "best_val_accuracy"], WEIGHTS | COMPARABILITY] = "last"
    auxiliary_images: Annotated[PositiveInt | None, WEIGHTS | COMPARABILITY] = None
    accumulate: Annotated[PositiveInt, WEIGHTS | COMPARABILITY] = 1
    ema: Annotated[OpenFraction | None, WEIGHTS | COMPARABILITY] = None
    compile: Annotated[bool, NOTHING] = False


@dataclass(frozen=True)
class Weights:
    """Published weights, or a file of one's own: where they are and how they are got.

    `sha256` is that of the file, or its first digits.
    """

    file: str
    url: str | None = None
    sha256: str | None = None
    how_to_get: str = "Put the file there."
    licence: str = "not stated"


@dataclass(frozen=True)
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

    def published(self) -> Weights | None:
        """What `weights` says, with the defaults of what it leaves out; None without."""
        return None if self.weights is None else Weights(**self.weights)


@dataclass(frozen=True)
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
    missing: Annotated[Literal["error", "skip"], NOTHING]
    check: Literal["strict", "loose"]
    id_val: NonNegativeInt | None
    subset: PositiveInt | None
    draws: PositiveInt
    transform: Annotated[Chain, FEATURES | COMPARABILITY]
    transforms: Annotated[dict, FEATURES | COMPARABILITY]
    folders: dict
    mean: Annotated[ChannelMeans | None, WEIGHTS | FEATURES | COMPARABILITY]
    std: Annotated[ChannelDeviations | None, WEIGHTS | FEATURES | COMPARABILITY]
    fpr95: Literal["ood_pos", "id_pos"]
    fpr_rule: Literal["first", "nearest"]
    aupr_rule: Literal["trapezoid", "average_precision"]


@dataclass(frozen=True)
class Tuning:
    """For each detector, the values of its options that are tried on validation data."""

    name: str
    grids: dict


@dataclass(frozen=True)
class Recipe:
    """What training on an image set takes: sizes that the papers give by data set, and how many test images it has.

    An option without a mark shapes nothing by itself: parts and the trainer have it among their own options.

    Without `num_classes` the training split's classes are counted. `batch_size` is the default of trainer.batch_size;
    without one that is 128. Below `energy_margin` method=energy pushes ID energies.
    """

    num_classes: Annotated[PositiveInt | None, WEIGHTS]
    test_images: PositiveInt | None
    benchmark: str
    serve: Annotated[Literal["resident", "streaming"], WEIGHTS]
    resize: Annotated[PositiveInt, WEIGHTS]
    side: Annotated[PositiveInt, WEIGHTS]
    epochs: dict
    projection_dim: PositiveInt
    bank_size: PositiveInt
    neighbor: PositiveInt
    batch_size: PositiveInt | None = None
    energy_margin: float | None = None


@dataclass(frozen=True)
class Logger:
    """Where training curves go besides the run directory. In Weights & Biases a run belongs to a `group`; those of a
    table to one of its name.
    """

    name: Literal["csv", "wandb", "tensorboard"]
    project: str
    group: str | None = None

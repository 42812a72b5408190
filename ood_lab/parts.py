"""What the parts of a method are to the module that runs them: terms, sources, memories, and the view of a step.

Shape letters: B ID rows, K outliers, C classes, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ood_lab.config.ranges import Moment, NonNegativeFloat, PositiveFloat
from ood_lab.errors import NotDefinedError, RunError
from ood_lab.moment import Progress
from ood_lab.network import Network
from ood_lab.types import Outliers


@dataclass(frozen=True)
class Dimensions:
    """The sizes that a part is built for: ID classes, penultimate features, projections."""

    classes: int
    features: int
    projection: int


class UndeclaredError(RunError, LookupError):
    """A term asked for something that it doesn't declare."""

    @classmethod
    def of(cls, name: str, known: Iterable[str], owner: str = "a term") -> UndeclaredError:
        """For a tensor that was asked for by its name."""
        declared = ", ".join(known) or "nothing that is there"
        return cls(
            f"{owner} reads {name!r} and declares {declared}: add {name!r} to its `reads` (of the ID rows and "
            "of what is kept), `reads_whole`, `reads_shifted` or `reads_outliers`"
        )


class Kept(dict[str, Tensor]):
    """What memories offer, by name."""

    def __missing__(self, name: str) -> Tensor:
        raise UndeclaredError.of(name, self)


class Rows:
    """What the network gives for some images or points: features, logits, z, images; only what is read is there."""

    owner = "a term"
    classes: int | None = None  # outputs of the head that are ID classes; None: all

    def __init__(self, **tensors: Tensor) -> None:
        self._tensors = tensors

    def of_classes(self, classes: int) -> Rows:
        """The same rows, of whose logits the first so many are ID classes."""
        self.classes = classes
        return self

    def only(self, names: Collection[str], owner: str) -> Rows:
        """Of these tensors those that are named, for the term that declares them."""
        rows = Rows(**{name: tensor for name, tensor in self._tensors.items() if name in names})
        rows.owner, rows.classes = owner, self.classes
        return rows

    def _of(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise UndeclaredError.of(name, self._tensors, self.owner)
        return self._tensors[name]

    @property
    def features(self) -> Tensor:
        """Penultimate features."""
        return self._of("features")

    @property
    def logits(self) -> Tensor:
        """Outputs of the head, [.., C] or as many as it has."""
        return self._of("logits")

    @property
    def class_logits(self) -> Tensor:
        """Of the logits those of the ID classes."""
        return self.logits[:, : self.classes]

    @property
    def absent(self) -> Tensor:
        """The last output of a head with one for none of the classes [.., 1]."""
        return self._of("absent")

    @property
    def energy(self) -> Tensor:
        """The energy [.., 1] of a head with class weights of its own."""
        return self._of("energy")

    @property
    def targets(self) -> Tensor:
        """Soft labels of images that a perturbation has made, as wide as the logits."""
        return self._of("targets")

    @property
    def z(self) -> Tensor:
        """Projections of unit norm."""
        return self._of("z")

    @property
    def joint(self) -> Tensor:
        """Outputs of a head for classes and shifts together [.., C S]."""
        return self._of("joint")

    @property
    def images(self) -> Tensor:
        """The network's input."""
        return self._of("images")


SHIFTS = 4  # turns by 0, 90, 180 and 270 degrees


def turned(images: Tensor, shift: int) -> Tensor:
    """Images [B, C, H, W] turned by shift x 90 degrees."""
    return torch.rot90(images, shift, dims=(2, 3))


@dataclass(frozen=True)
class WholeBatch:
    """The ID rows of all devices, for terms that compare rows with one another; of one device its own rows.

    Args:
        rows: N of them, in the order in which one device would have them: first all rows of the first view.
        labels: [N].
        own: [B], the places of this device's rows among them.
        views: augmented copies of each image.
    """

    rows: Rows
    labels: Tensor
    own: Tensor
    views: int

    @property
    def images(self) -> Tensor:
        """The number of each row's image [N], which its copies share."""
        count = len(self.labels)
        return torch.arange(count, device=self.labels.device) % (count // self.views)


@dataclass(frozen=True)
class View:
    """One step as its terms see it.

    Args:
        id: the ID rows; of two views, first all rows of the first.
        labels: [B], of the ID rows.
        kept: what memories offer, by name: before this step ("bank"), or moved by it with its graph ("prototypes").
        outliers: None where the step has none.
        whole: the ID rows of all devices, where a term reads them.
        shifted: those of the turned copies of the ID images, where a term reads them: a block for each of `SHIFTS`, the
            images as they are first; its labels are y + C s.
        id_share: of all ID and outlier rows together, those that are ID; None counts the rows of this view.
        network: for further passes, which leave no trace.
        devices: that share the step.
    """

    id: Rows
    labels: Tensor
    kept: Mapping[str, Tensor]
    outliers: Rows | None = None
    whole: WholeBatch | None = None
    shifted: WholeBatch | None = None
    id_share: float | None = None
    network: Network | None = None
    devices: int = 1

    def of(self, term: Term) -> View:
        """What one term sees: what it declares, and nothing else."""
        owner = f"{term.group}={term.name}" if term.name else type(term).__name__
        kept = Kept({name: tensor for name, tensor in self.kept.items() if name in term.reads})
        outliers = None if self.outliers is None else self.outliers.only(term.reads_outliers, owner)
        whole = None
        if self.whole is not None and term.reads_whole:
            whole = replace(self.whole, rows=self.whole.rows.only(term.reads_whole, owner))
        shifted = None
        if self.shifted is not None and term.reads_shifted:
            shifted = replace(self.shifted, rows=self.shifted.rows.only(term.reads_shifted, owner))
        own = self.id.only(term.reads, owner)
        return replace(self, id=own, kept=kept, outliers=outliers, whole=whole, shifted=shifted)

    @property
    def outlier_rows(self) -> Rows:
        """The outliers, for a term that is called only where there are some."""
        assert self.outliers is not None
        return self.outliers

    @property
    def further_passes(self) -> Network:
        """The network, for a term that passes images or features through it once more."""
        assert self.network is not None
        return self.network

    @property
    def whole_batch(self) -> WholeBatch:
        """The ID rows of all devices, for a term that declares `reads_whole`."""
        if self.whole is None:
            raise UndeclaredError("a term uses view.whole_batch: declare reads_whole, for example ('z',)")
        return self.whole

    @property
    def shifted_batch(self) -> WholeBatch:
        """The rows of turned images of all devices, for a term that declares `reads_shifted`."""
        if self.shifted is None:
            raise UndeclaredError("a term uses view.shifted_batch: declare reads_shifted, for example ('z',)")
        return self.shifted


class Memory(nn.Module):
    """What lives across steps: buffers of fixed shape, so that checkpoints hold it.

    Its options make it what it is: two terms that ask for memories of one name share one, and must agree in them.

    Args:
        dims: of the network's outputs.
    """

    space: ClassVar[str] = "z"  # which rows it is written from: "z" or "features"

    values: Tensor

    def begin(self, class_sums: Callable[[int], Tensor]) -> None:
        """Before the first step; `class_sums(n)` gives the sum of the rows of n training images a class [C, D]."""

    def offer(self, rows_BD: Tensor, labels_B: Tensor, counts_C: np.ndarray) -> Tensor:
        """What the view shows: a function of what is kept and of this step's rows, without writing.

        Args:
            counts_C: rows of each class, known on the host.
        """
        raise NotDefinedError(self, "offer")

    def store(self, rows_BD: Tensor, labels_B: Tensor, counts_C: np.ndarray, offered: Tensor) -> None:
        """Write the step, after the terms; all devices are given the rows of all."""
        raise NotDefinedError(self, "store")

    @property
    def ready(self) -> bool:
        """Whether it can be drawn from; known on the host, without asking the device."""
        return True


# Memories by name, each made for the network's dimensions.
Memories = Mapping[str, Callable[[Dimensions], Memory]]


class Term(nn.Module):
    """One summand of the objective: `loss(view)` gives a scalar; several are `losses`, with `weights` of their names.

    What a term declares is in its class body as plain values, which requests are checked with before anything is
    imported:

    - `reads`: of the ID rows ("features", "logits", "z", "images") and of what is kept ("prototypes", "bank", or one of
      the `memories` of other names that its `keeps` makes);
    - `reads_whole`: of the ID rows of all devices, for a term that compares rows with one another;
    - `reads_shifted`: of turned copies of the ID images of all devices, which then go through the network, too;
    - `reads_outliers`: of the outliers; a term with any, or that `waits_for_outliers`, runs only in steps with some;
    - `views`: augmented copies of each ID image that it needs;
    - `scalars`: the names of several scalars, whose weights are options `w_<name>`;
    - `least_classes`: how many ID classes it needs;
    - `at_most`: pairs of options of which the first must not exceed the second;
    - `watched`: whether it is logged and never minimised.

    Args:
        dims: of the network's outputs.
        weight: factor of the whole term; 0 switches it off.
        start, end: when it takes part: whole numbers are epochs, fractions shares of the run; null: to its end.
        lr_factor: of the learning rate, for the term's own parameters.
    """

    reads: ClassVar[tuple[str, ...]] = ()
    reads_whole: ClassVar[tuple[str, ...]] = ()
    reads_shifted: ClassVar[tuple[str, ...]] = ()
    reads_outliers: ClassVar[tuple[str, ...]] = ()
    waits_for_outliers: ClassVar[bool] = False
    views: ClassVar[int] = 1
    memories: ClassVar[tuple[str, ...]] = ()
    scalars: ClassVar[tuple[str, ...]] = ()
    least_classes: ClassVar[int] = 1
    at_most: ClassVar[tuple[tuple[str, str], ...]] = ()
    watched: ClassVar[bool] = False

    group, name = "", ""  # by which it is chosen; losses are logged by name

    def __init__(
        self,
        dims: Dimensions,
        *,
        weight: NonNegativeFloat = 1.0,
        start: Moment = 0,
        end: Moment | None = None,
        lr_factor: PositiveFloat = 1.0,
    ) -> None:
        super().__init__()
        self.weight, self.start, self.end, self.lr_factor = weight, start, end, lr_factor

    def keeps(self) -> Memories:
        """The memories that the term reads, by name."""
        return {}

    def loss(self, view: View) -> Tensor:
        """The scalar, without its weight."""
        raise NotDefinedError(self, "loss")

    def losses(self, view: View) -> dict[str, Tensor]:
        """The scalars by name, without their weights."""
        return {self.name: self.loss(view)}

    def weights(self) -> dict[str, float]:
        """The factor of each scalar of `losses`."""
        return {self.name: self.weight}

    def remark(self) -> str:
        """What is said of the term when training has ended; empty for nothing."""
        return ""

    def runs(self, progress: Progress) -> bool:
        """Whether the term takes part in a step, as far as its schedule says."""
        ended = self.end is not None and progress.reached(self.end)
        return self.weight > 0 and progress.reached(self.start) and not ended


class Synthesizer:
    """Draws outliers as points of a feature space; a pure function of what is kept and of a generator.

    What it declares is in its class body as plain values:

    - `space`: where the points lie: "projection" (they have z alone), or "penultimate" (the head gives them logits and
      the projector z); of an `ImageSource` "images";
    - `at_most`: pairs of options of which the first must not exceed the second;
    - `caveat`: what every result must say of a source that is not what its paper has;
    - `least_classes`: how many ID classes it needs.
    """

    space: ClassVar[str] = "projection"
    at_most: ClassVar[tuple[tuple[str, str], ...]] = ()
    caveat: ClassVar[str] = ""
    least_classes: ClassVar[int] = 1

    def keeps(self) -> Memories:
        """The memories that it draws from, by name."""
        return {}

    def sample(self, kept: Mapping[str, Tensor], dims: Dimensions, generator: torch.Generator) -> Outliers:
        """Outliers [K, D] and the class each came from; `info` is logged. Carries no gradient."""
        raise NotDefinedError(self, "sample")


@dataclass(frozen=True)
class Parts:
    """The parts of a method, built.

    Args:
        terms: by name, in the order in which they are summed.
        classes: ID classes.
        seed: of the run.
    """

    backbone: Any
    head: Any
    terms: Mapping[str, Term]
    classes: int
    seed: int
    dims: Dimensions
    synthesizer: Synthesizer | None = None
    selector: Any = None
    perturbation: Any = None

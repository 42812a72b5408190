"""What a rule of choosing outlier images is to the rest of the program."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from ood_lab.config.ranges import PositiveInt
from ood_lab.errors import NotDefinedError
from ood_lab.geometry.clustered import Engine
from ood_lab.parts import Rows


class StepSelector:
    """Chooses among a step's candidate images of the auxiliary set; `trainer.auxiliary_batch_size` are taken.

    What it reads of the candidates is in its class body (`reads`: "features", "logits", "absent"), from a pass in
    evaluation mode; one that reads nothing costs no pass. With several devices it is given the candidates of all, so
    that what it takes does not depend on their number.

    Args:
        candidates: images that it chooses from in a step; null: so many that each auxiliary image is one once an epoch.
    """

    reads: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, candidates: PositiveInt | None = None) -> None:
        self.candidates = candidates

    def choose(self, rows: Rows, count: int, take: int, generator: torch.Generator) -> Tensor:
        """The numbers of `take` of the candidates; of all of them where there are fewer.

        Args:
            rows: what the network gives for the candidates.
            count: of candidates.
            generator: where the numbers shall live.
        """
        raise NotDefinedError(self, "choose")


class ClusterSelector(StepSelector):
    """Chooses within clusters of the candidates' directions.

    Args:
        candidates: see `StepSelector`.
        clusters: at most.
        engine: of the k-means; faiss is faster for some hundred candidates on the CPU, and starts from random centres.
    """

    def __init__(
        self, *, candidates: PositiveInt | None = None, clusters: PositiveInt = 64, engine: Engine = "torch"
    ) -> None:
        super().__init__(candidates=candidates)
        self.clusters, self.engine = clusters, engine


class Passes(Protocol):
    """The network's passes over the training sets in evaluation mode, for a choice before an epoch.

    Each device sees its share of the images; `total` adds up what all have found.
    """

    seed: int  # of this epoch
    run_seed: int
    features: int  # D
    device: torch.device

    def of_id(self) -> Iterator[Tensor]:
        """Penultimate features [n, D] of the ID training images."""
        ...

    def of_auxiliary(self, rows: Tensor, what: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Places in `rows` [n], and the penultimate features [n, D] of these auxiliary images."""
        ...

    def total(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all devices."""
        ...


class EpochSelector(nn.Module):
    """Chooses the auxiliary images of an epoch before its first step; part of a checkpoint.

    Args:
        pool: auxiliary images that it looks at before an epoch, drawn at random; all of them where there are fewer.
        take: images that it chooses for an epoch; null: as many as the epoch serves.
        queue: epochs whose choice it remembers.
    """

    chosen: Tensor  # [queue, n], row numbers in the auxiliary set
    epochs: Tensor  # [2]: how many have been chosen for, and of how many the choice is remembered or was

    def __init__(self, *, pool: PositiveInt, take: PositiveInt | None = None, queue: PositiveInt = 1) -> None:
        super().__init__()
        self.pool, self.take, self.queue = pool, take, queue
        self.register_buffer("chosen", torch.zeros(queue, 0, dtype=torch.int64))
        self.register_buffer("epochs", torch.zeros(2, dtype=torch.int64))
        self._epochs = [0, 0]  # the same, on the host

    def choose(self, passes: Passes, pool: Tensor, take: int, epoch: int) -> Tensor:
        """The `take` rows of the pool that are chosen."""
        raise NotDefinedError(self, "choose")

    @torch.no_grad()
    def begin(self, passes: Passes, epoch: int, count: int, served: int) -> None:
        """Choose for an epoch, unless that is done: a run resumed within an epoch goes on with what was chosen.

        Args:
            count: of auxiliary images.
            served: auxiliary images that the epoch serves.
        """
        done, kept = self._epochs
        if done > epoch:
            return
        draw = torch.Generator().manual_seed(passes.seed)
        pool = torch.randperm(count, generator=draw)[: self.pool]
        take = min(len(pool), served if self.take is None else self.take)
        rows = self.choose(passes, pool, take, epoch)
        if self.chosen.shape[1] != take:  # the first epoch, or one that serves another number of images
            self.chosen, kept = self.chosen.new_zeros(self.queue, take), 0
        self.chosen[kept % self.queue] = rows
        self._epochs = [epoch + 1, kept + 1]
        self.epochs.copy_(torch.tensor(self._epochs))

    def current(self) -> Tensor:
        """The rows of the epoch that was chosen for last."""
        return self.chosen[(self._epochs[1] - 1) % self.queue]

    def remembered(self) -> Tensor:
        """The rows of all epochs that are remembered [m n], before the next choice."""
        return self.chosen[: min(self._epochs[1], self.queue)].flatten()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        if f"{prefix}chosen" in state_dict:
            self.chosen = torch.zeros_like(state_dict[f"{prefix}chosen"], device=self.chosen.device)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._epochs = self.epochs.tolist()


def lowest(scores: Tensor, count: int) -> Tensor:
    """The numbers of the `count` lowest scores, of equal ones the first; a score that is no number comes last."""
    return scores.nan_to_num(float("inf"), posinf=float("inf"), neginf=float("-inf")).sort(stable=True).indices[:count]

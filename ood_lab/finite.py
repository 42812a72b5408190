"""Noticing that a loss is no number, without waiting for the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ood_lab.errors import RunError


@dataclass
class _Pending:
    names: tuple[str, ...]
    values: Tensor  # on the host
    copied: torch.cuda.Event | None
    step: int
    epoch: int


class FiniteCheck:
    """Copies each step's losses to the host beside the work, and looks at them when they have arrived.

    On the CPU that is at once; on a GPU with the next step: a run stops one step late, before it saves anything.
    """

    def __init__(self) -> None:
        self._pending: _Pending | None = None

    def check(self, losses: dict[str, Tensor], step: int, epoch: int) -> None:
        """Look at the losses of the step before, and begin to copy these.

        Raises:
            RunError: the sum of a step is not finite; names the step and all terms.
        """
        self.settle()
        values = torch.stack([value.detach().float() for value in losses.values()])
        if values.device.type == "cpu":
            self._pending = _Pending(tuple(losses), values, None, step, epoch)
            self.settle()
            return
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record(torch.cuda.current_stream(values.device))
        self._pending = _Pending(tuple(losses), host, copied, step, epoch)

    def settle(self) -> None:
        """Look at what is still on its way.

        Raises:
            RunError: see `check`.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        if pending.copied is not None:
            pending.copied.synchronize()
        values = pending.values.numpy()
        if np.isfinite(values[pending.names.index("total")]):
            return
        terms = ", ".join(f"{name} = {value:.6g}" for name, value in zip(pending.names, values, strict=True))
        lost = [name for name, v in zip(pending.names, values, strict=True) if name != "total" and not np.isfinite(v)]
        alone = f"{lost[0]} alone is no number: look at what it computes. " if len(lost) == 1 < len(values) - 1 else ""
        raise RunError(
            f"non-finite loss at step {pending.step} (epoch {pending.epoch + 1}): {terms}. {alone}"
            "Lower method.optimizer.lr, or the weight of the term that grew; "
            "with trainer.precision=16-mixed try bf16-mixed or 32-true."
        )

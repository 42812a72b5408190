"""What a computation takes: time, and the memory of the tensors that are alive at once."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ood_lab.progress import Meter

REPEATS, ENOUGH = 5, 10.0  # repeats, and seconds after which no further one begins


class Cost(NamedTuple):
    """Median seconds of up to five repeats after a first one, and bytes at the peak besides what was there before."""

    seconds: float
    peak_bytes: int


def cost_of(compute: Callable[[], Any], device: torch.device, name: str) -> Cost:
    """Run `compute` a few times; `name` is for the progress bar."""
    with Meter(name, REPEATS + 1) as meter:
        peak = _peak_of(compute, device)  # the first run, which also warms caches
        meter.advance()
        times: list[float] = []
        while len(times) < REPEATS and sum(times) < ENOUGH:
            _finish(device)
            began = time.perf_counter()
            compute()
            _finish(device)
            times.append(time.perf_counter() - began)
            meter.advance()
    return Cost(median(times), peak)


def _finish(device: torch.device) -> None:
    """Wait for what was given to the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_of(compute: Callable[[], Any], device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        compute()
        return torch.cuda.max_memory_allocated(device) - before
    with Alive() as alive:
        compute()
    return alive.peak


class Alive(TorchDispatchMode):
    """Counts the bytes of tensors that were made since and are still there; `peak` is the most at one time.

    What an operation or numpy allocates inside and frees again is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._bytes = 0
        self._holders: dict[int, int] = {}  # tensors that share a storage, by its address

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {self._address(t) for t in tree_leaves((args, kwargs or {})) if isinstance(t, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._hold(tensor, given)
        return result

    @staticmethod
    def _address(tensor: torch.Tensor) -> int:
        return tensor.untyped_storage().data_ptr()

    def _hold(self, tensor: torch.Tensor, given: set[int]) -> None:
        address = self._address(tensor)
        if address not in self._holders:
            if address in given or address == 0:
                return  # a view of what was there before
            self._holders[address] = 0
            self._bytes += tensor.untyped_storage().nbytes()
            self.peak = max(self.peak, self._bytes)
        self._holders[address] += 1
        weakref.finalize(tensor, self._release, address, tensor.untyped_storage().nbytes())

    def _release(self, address: int, size: int) -> None:
        self._holders[address] -= 1
        if self._holders[address] == 0:
            del self._holders[address]
            self._bytes -= size

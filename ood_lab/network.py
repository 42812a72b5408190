"""The network as selectors, perturbations and penalties see it: a pass that leaves no trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from ood_lab.types import BackboneOutput


class Network:
    """Further passes through a network within a training step.

    `network(images, mode, grad)` leaves batch statistics, dropout's random stream and the mode of every module as they
    were. With mode "train" batch statistics are those of the images; with "eval" the running ones are taken.

    Args:
        modules: whose modes and batch statistics are kept.
        forward: the pass.
    """

    def __init__(self, modules: nn.Module, forward: Callable[[Tensor], BackboneOutput]) -> None:
        self._modules, self._forward = modules, forward

    def __call__(self, images: Tensor, mode: Literal["train", "eval"] = "eval", grad: bool = False) -> BackboneOutput:
        """Features and logits; with `grad` the graph reaches back to the images and the weights."""
        with self._kept(mode), torch.set_grad_enabled(grad), torch.random.fork_rng(_devices(images)):
            return self._forward(images)

    @contextmanager
    def _kept(self, mode: str) -> Iterator[None]:
        before = [(module, module.training, dict(module._buffers)) for module in self._modules.modules()]
        try:
            self._modules.train(mode == "train")
            for module, _, buffers in before if mode == "train" else ():
                # A normalisation writes its statistics into copies, which are thrown away.
                module._buffers.update({name: None if b is None else b.clone() for name, b in buffers.items()})
            yield
        finally:
            for module, training, buffers in before:
                module.training = training
                module._buffers.update(buffers)


def _devices(images: Tensor) -> list[torch.device]:
    return [images.device] if images.device.type == "cuda" else []

"""The network as selectors, perturbations and penalties see it: a pass that leaves no trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ood_lab.types import BackboneOutput


class Network:
    """Further passes through a network within a training step.

    `network(images, mode, grad)` leaves batch statistics, dropout's random stream and the mode of every module as they
    were. With mode "train" batch statistics are those of the images; with "held" they are, too, but count as constants,
    so that a row's output has no derivative with respect to another row's image; with "eval" the running ones count.

    Args:
        modules: whose modes and batch statistics are kept.
        forward: the pass.
        classify: the outputs for penultimate features.
    """

    def __init__(
        self,
        modules: nn.Module,
        forward: Callable[[Tensor], BackboneOutput],
        classify: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._modules, self._forward, self._classify = modules, forward, classify

    def __call__(
        self, images: Tensor, mode: Literal["train", "held", "eval"] = "eval", grad: bool = False
    ) -> BackboneOutput:
        """Features and logits; with `grad` the graph reaches back to the images and the weights."""
        with self._kept(mode), torch.set_grad_enabled(grad), torch.random.fork_rng(_devices(images)):
            return self._forward(images)

    def classify(self, features: Tensor) -> Tensor:
        """The outputs of the head for penultimate features, with their graph."""
        assert self._classify is not None
        return self._classify(features)

    @contextmanager
    def _kept(self, mode: str) -> Iterator[None]:
        before = [(m, m.training, dict(m._buffers), m.__dict__.get("forward")) for m in self._modules.modules()]
        try:
            self._modules.train(mode != "eval")
            for module, _, buffers, _ in before if mode != "eval" else ():
                # A normalisation writes its statistics into copies, which are thrown away.
                module._buffers.update({name: None if b is None else b.clone() for name, b in buffers.items()})
                if mode == "held" and isinstance(module, _BatchNorm):
                    module.__dict__["forward"] = partial(_held, module)  # before that of its class
            yield
        finally:
            for module, training, buffers, forward in before:
                module.training = training
                module._buffers.update(buffers)
                module.__dict__.pop("forward", None)
                if forward is not None:
                    module.__dict__["forward"] = forward


def _held(module: _BatchNorm, rows: Tensor) -> Tensor:
    """A batch normalisation with its statistics held, and what timm's have behind it: dropout and an activation."""
    rows = _with_statistics_held(module, rows)
    for name in ("drop", "act"):
        behind = getattr(module, name, None)
        rows = behind(rows) if isinstance(behind, nn.Module) else rows
    return rows


def _with_statistics_held(module: _BatchNorm, rows: Tensor) -> Tensor:
    """A batch normalisation by the mean and variance of these rows, as constants."""
    others = [dim for dim in range(rows.dim()) if dim != 1]
    given = rows.detach()
    variance, mean = torch.var_mean(given.float() if given.dtype.itemsize < 4 else given, others, correction=0)
    scale = (variance + module.eps).rsqrt()
    if module.weight is not None:
        scale = scale * module.weight
    shift = -mean * scale if module.bias is None else module.bias - mean * scale
    # As a product and a sum, which cost less to differentiate twice than torch's own normalisation.
    shape = [1, -1, *[1] * (rows.dim() - 2)]
    return rows * scale.view(shape).to(rows.dtype) + shift.view(shape).to(rows.dtype)


def _devices(images: Tensor) -> list[torch.device]:
    return [images.device] if images.device.type == "cuda" else []

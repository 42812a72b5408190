"""Networks whose gradients are differentiated again at the cost of a few ordinary passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from ood_lab.autograd.batch_norm import normalised
from ood_lab.autograd.convolution import Geometry, convolved


@contextmanager
def twice_differentiable(modules: nn.Module) -> Iterator[None]:
    """Within it convolutions, and batch normalisations in training mode, have derivatives of their own; attention is
    computed from products and a softmax, since torch's fused kernels can't be differentiated twice.

    Values and running statistics are the same. A subclass that computes something else in its forward pass (timm's
    normalisations with an activation) is left as it is.
    """
    found = [(module, forward) for module in modules.modules() if (forward := _forward_of(module)) is not None]
    try:
        for module, forward in found:
            module.__dict__["forward"] = partial(forward, module)  # before that of its class
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        for module, _ in found:
            module.__dict__.pop("forward", None)


def _forward_of(module: nn.Module) -> Callable[..., Tensor] | None:
    if not _is_plain(module):
        return None
    if isinstance(module, _BatchNorm):
        usual = module.weight is not None and module.momentum is not None and module.track_running_stats
        return _normalise if module.training and usual else None
    if isinstance(module, _ConvNd):
        usual = not module.transposed and module.padding_mode == "zeros" and not isinstance(module.padding, str)
        return _convolve if usual else None
    return None


def _is_plain(module: nn.Module) -> bool:
    """Whether a module's forward pass is that of torch's own convolution or batch normalisation."""
    plain = (_BatchNorm.forward, nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward)
    return type(module).forward in plain


def _normalise(module: _BatchNorm, x_NC: Tensor) -> Tensor:
    assert module.num_batches_tracked is not None
    assert module.momentum is not None
    module.num_batches_tracked.add_(1)
    return normalised(
        x_NC, module.weight, module.bias, module.running_mean, module.running_var, module.momentum, module.eps
    )


def _convolve(module: _ConvNd, x: Tensor) -> Tensor:
    weight, bias, kind = module.weight, module.bias, x.device.type
    if torch.is_autocast_enabled(kind):  # which casts for torch's own convolution, not for a function of ours
        lower = torch.get_autocast_dtype(kind)
        x, weight = x.to(lower), weight.to(lower)
        bias = None if bias is None else bias.to(lower)
    assert not isinstance(module.padding, str)
    return convolved(x, weight, bias, Geometry(module.stride, module.padding, module.dilation, module.groups))

"""Convolution whose derivative can be differentiated again at the cost of ordinary convolutions.

torch takes the second derivative with respect to the weights by a convolution whose kernel is as large as the images,
which is slow on the CPU. Here it is the weight gradient of an ordinary backward pass.

y = w * x is linear in x and in w, so each of the three maps (y, the gradient on x, the gradient on w) has the other two
as its derivatives. Shapes: x [B, I, ...], weight [O, I / groups, ...], y and the gradient d on it [B, O, ...]. In a
second derivative a and p come down on the gradients on x and on w, and have their shapes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Geometry(NamedTuple):
    """How a kernel goes over images, as `nn.Conv2d` has it; padding in pixels, with zeros."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def output(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """y of x."""
        return torch.convolution(
            x, weight, bias, self.stride, self.padding, self.dilation, False, [0] * len(self.stride), self.groups
        )

    def to_input(self, d: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """The gradient on x for d on y; of x the shape is read alone."""
        return self._backward(d, x, weight, 0)

    def to_weight(self, d: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """The gradient on the weights for d on y; of the weights the shape is read alone."""
        return self._backward(d, x, weight, 1)

    def _backward(self, d: Tensor, x: Tensor, weight: Tensor, which: int) -> Tensor:
        wanted = [number == which for number in range(3)]
        found: Tensor = torch.ops.aten.convolution_backward(
            d, x, weight, None, self.stride, self.padding, self.dilation, False, [0] * len(self.stride), self.groups,
            wanted,
        )[which]  # fmt: skip
        return found


def convolved(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """`F.conv2d` and the like, with the same values.

    Its derivatives with respect to x and to the weights are nodes of their own in the graph, so that the first can be
    taken without the second, as a penalty on the gradient of the images does.
    """
    y = _OfInput.apply(x, weight, bias, geometry)
    y_sum: Tensor = _Sum.apply(y, _OfWeights.apply(weight, bias, (x,), geometry, y.shape))
    return y_sum


class _OfInput(torch.autograd.Function):
    """y, as a function of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        return geometry.output(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        if not ctx.needs_input_grad[0]:
            return None, None, None, None
        return _ToInput.apply(gradients[0], *ctx.saved_tensors, ctx.geometry), None, None, None


class _OfWeights(torch.autograd.Function):
    """y, as a function of the weights and the bias, less y: zeros that take no memory.

    x comes in a tuple, where autograd does not see it: with an edge to x, this node would be run for the gradient on x.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, bias: Tensor | None, inputs: tuple[Tensor], geometry: Geometry, shape: torch.Size
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.inputs, ctx.geometry, ctx.biased = inputs, geometry, bias is not None
        return weight.new_zeros(()).expand(shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (d,) = gradients
        (weight,) = ctx.saved_tensors
        to_bias = d.sum([dim for dim in range(d.dim()) if dim != 1]) if ctx.biased else None
        return _ToWeight.apply(d, *ctx.inputs, weight, ctx.geometry), to_bias, None, None, None


class _Sum(torch.autograd.Function):
    """The first of two, when the second is zero; y itself and no view, so that an activation may write into it."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, _zeros: Tensor) -> Tensor:
        ctx.mark_dirty(y)
        return y

    @staticmethod
    def backward(_ctx: Any, *gradients: Any) -> Any:
        return gradients[0], gradients[0]


class _ToInput(torch.autograd.Function):
    """The gradient on x: linear in d and in the weights, and its adjoints are the other two."""

    @staticmethod
    def forward(ctx: Any, d: Tensor, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(d, weight)
        ctx.geometry = geometry
        return geometry.to_input(d, x, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (a,) = gradients
        d, weight = ctx.saved_tensors
        return ctx.geometry.output(a, weight), None, ctx.geometry.to_weight(d, a, weight), None


class _ToWeight(torch.autograd.Function):
    """The gradient on the weights: linear in d and in x."""

    @staticmethod
    def forward(ctx: Any, d: Tensor, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(d, x)
        ctx.geometry = geometry
        return geometry.to_weight(d, x, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (p,) = gradients
        d, x = ctx.saved_tensors
        return ctx.geometry.output(x, p), ctx.geometry.to_input(d, x, p), None, None

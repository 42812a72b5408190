"""Batch normalisation whose derivative can be differentiated again without many passes over the data.

Shape letters: N rows, C channels; what follows C are positions. M rows and positions together.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def normalised(
    x_NC: Tensor,
    weight_C: Tensor,
    bias_C: Tensor,
    running_mean_C: Tensor | None,
    running_var_C: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """`F.batch_norm` in training mode; running statistics are updated in place."""
    y_NC: Tensor = _Normalise.apply(x_NC, weight_C, bias_C, running_mean_C, running_var_C, momentum, eps)
    return y_NC


class _Normalise(torch.autograd.Function):
    """y = w (x - mean) / deviation + b."""

    @staticmethod
    def forward(ctx: Any, x_NC: Tensor, weight_C: Tensor, bias_C: Tensor, *rest: Any) -> Tensor:
        running_mean_C, running_var_C, momentum, eps = rest
        y_NC, mean_C, inverse_C = torch.native_batch_norm(
            x_NC, weight_C, bias_C, running_mean_C, running_var_C, True, momentum, eps
        )
        ctx.save_for_backward(x_NC, weight_C, mean_C, inverse_C)
        ctx.eps = eps
        return y_NC

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        x_NC, weight_C, mean_C, inverse_C = ctx.saved_tensors
        dx_NC, dw_C, db_C = _Derivative.apply(gradients[0], x_NC, weight_C, mean_C, inverse_C, ctx.eps)
        return dx_NC, dw_C, db_C, None, None, None, None


class _Derivative(torch.autograd.Function):
    """With h = (x - mean) / deviation and m() the mean over M: dx = (w / deviation) (d - m(d) - h m(d h))."""

    @staticmethod
    def forward(
        ctx: Any, d_NC: Tensor, x_NC: Tensor, weight_C: Tensor, mean_C: Tensor, inverse_C: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        dx_NC, dw_C, db_C = _first(d_NC, x_NC, weight_C, mean_C, inverse_C, eps)
        ctx.save_for_backward(d_NC, x_NC, weight_C, mean_C, inverse_C, dw_C, db_C)
        ctx.eps = eps
        return dx_NC, dw_C, db_C

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """For a, p and q, the gradients of what is sought on dx, dw and db.

        dx is linear in d and its own adjoint, so that d gets the same of a. x gets, through h and the deviation,

            (w / deviation^2) (-a m(d h) - d m(a h) + m(a) m(d h) + m(d) m(a h) + h (3 m(a h) m(d h) - s)),
            s = m(a d) - m(a) m(d),

        and both get their share of p, since dw = M m(d h), and of q, since db = M m(d).
        """
        a_NC, p_C, q_C = gradients
        d_NC, x_NC, weight_C, mean_C, inverse_C, dw_C, db_C = ctx.saved_tensors
        count = x_NC.numel() // x_NC.shape[1]
        shape = [1, -1, *[1] * (x_NC.dim() - 2)]
        others = [dim for dim in range(x_NC.dim()) if dim != 1]
        to_d, ah_C, a_C = _first(a_NC, x_NC, weight_C, mean_C, inverse_C, ctx.eps)
        ah_C, a_C, dh_C, d_C = (total_C / count for total_C in (ah_C, a_C, dw_C, db_C))
        ad_C = torch.mul(a_NC, d_NC).sum(others, dtype=mean_C.dtype) / count
        scale_C = weight_C * inverse_C.square()
        of_h_C = scale_C * (3 * ah_C * dh_C - ad_C + a_C * d_C)
        of_1_C = scale_C * (a_C * dh_C + d_C * ah_C)
        of_a_C, of_d_C = -scale_C * dh_C, -scale_C * ah_C
        to_weight = count * inverse_C * (ad_C - a_C * d_C - ah_C * dh_C)
        # p on dw = sum d h: d gets p h, and x gets (p / deviation) (d - m(d) - h m(d h)).
        of_d_C = of_d_C + p_C * inverse_C
        of_1_C = of_1_C - p_C * inverse_C * d_C
        of_h_C = of_h_C - p_C * inverse_C * dh_C
        slope_C = of_h_C * inverse_C
        constant_C = of_1_C - slope_C * mean_C
        kind = x_NC.dtype
        to_x = a_NC * of_a_C.view(shape).to(kind)
        to_x = torch.addcmul(to_x, d_NC, of_d_C.view(shape).to(kind))
        to_x = torch.addcmul(to_x, x_NC, slope_C.view(shape).to(kind)).add_(constant_C.view(shape).to(kind))
        along_C = p_C * inverse_C
        shift_C = q_C - along_C * mean_C
        to_d = torch.addcmul(to_d, x_NC, along_C.view(shape).to(kind)).add_(shift_C.view(shape).to(kind))
        return to_d, to_x, to_weight, None, None, None


def _first(
    d_NC: Tensor, x_NC: Tensor, weight_C: Tensor, mean_C: Tensor, inverse_C: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """dx, sum of d h, and sum of d."""
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_batch_norm_backward(
        d_NC, x_NC, weight_C, None, None, mean_C, inverse_C, True, eps, [True, True, True]
    )
    return found

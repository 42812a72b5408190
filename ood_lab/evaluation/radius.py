"""How far an image may move before the detector's verdict changes, to first order (GReg, Eq. 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ood_lab.types import Batch

ROWS = 64  # images differentiated at a time: their graph takes the memory of a training step


def gradient_norms(batches: Iterable[Batch], score: Callable[[Tensor], Tensor]) -> Tensor:
    """|dS/dx|, the L2 norm with respect to the normalised image, of each image [N], on the CPU.

    Args:
        score: normalised images [B, 3, H, W] -> S [B], in evaluation mode: each score depends on its own image alone.

    Raises:
        ValueError: the score has no gradient, or one that is not finite.
    """
    norms: list[Tensor] = []
    for batch in batches:
        for images in batch.images.split(ROWS):
            x = images.detach().float().requires_grad_()
            with torch.enable_grad():
                try:
                    scores = score(x)
                except RuntimeError as error:  # torch's own, of a score that leaves it, such as by numpy()
                    raise ValueError(f"its score can't be differentiated ({error})") from error
            if not scores.requires_grad:
                raise ValueError("its score can't be differentiated")
            (gradient,) = torch.autograd.grad(scores.sum(), x)
            norms.append(gradient.flatten(1).norm(dim=1).cpu())
    norms_N = torch.cat(norms)
    lost = int((~norms_N.isfinite()).sum())
    if lost:
        raise ValueError(f"its score has no finite gradient on {lost:,} of {len(norms_N):,} images")
    return norms_N


def local_radius(scores_N: Tensor, norms_N: Tensor, threshold: float, ood: bool) -> Tensor:
    """|gamma - S(x)| / |dS/dx| of images on the right side of the threshold gamma, and 0 of the others [N].

    An estimate, no certificate: Eq. 4 divides by a Lipschitz constant of S around x, and holds in that neighbourhood
    only. The norm is that constant where S is linear, which it is nowhere for long: energies are curved, and a ReLU
    network is linear in a region of unknown size. Where the gradient is zero the radius is infinite.

    Args:
        scores_N, norms_N: of images of one set [N], as `gradient_norms` and the detector give them.
        threshold: gamma; a score above it says OOD.
        ood: whether the right side is above the threshold.
    """
    margin = scores_N - threshold if ood else threshold - scores_N
    return torch.where(margin > 0, margin / norms_N, 0.0)

"""The local radius against finite differences and loops; on a linear score it is the exact distance to the boundary."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ood_lab.evaluation.radius import ROWS, gradient_norms, local_radius
from ood_lab.types import Batch
from tests.cases import each


def batches(images: Tensor, size: int) -> list[Batch]:
    return [Batch(part, torch.zeros(len(part), dtype=torch.int64)) for part in images.split(size)]


def smooth_score(images: Tensor) -> Tensor:
    weight = torch.linspace(-1, 1, 12 * 5, dtype=images.dtype).view(12, 5)
    return -(images.flatten(1).tanh() @ weight).logsumexp(1)


@each("size", [3, ROWS + 7])
def test_norms_are_those_of_finite_differences_one_image_at_a_time(size: int) -> None:
    images = torch.randn(ROWS + 7, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    norms = gradient_norms(batches(images, size), smooth_score)
    step = 1e-5
    for row in (0, 5, ROWS + 6):
        squares = 0.0
        for place in range(12):
            moved = images[row].double().flatten().repeat(2, 1)
            moved[0, place] += step
            moved[1, place] -= step
            above, below = smooth_score(moved.view(2, 3, 2, 2)).tolist()
            squares += ((above - below) / (2 * step)) ** 2
        assert float(norms[row]) == pytest.approx(math.sqrt(squares), rel=1e-5)


def test_on_a_linear_score_the_radius_is_the_distance_to_the_boundary() -> None:
    generator = torch.Generator().manual_seed(1)
    images, direction = (torch.randn(n, 3, 2, 2, generator=generator).double() for n in (40, 1))
    scores = (images * direction).sum((1, 2, 3))
    norms = gradient_norms(batches(images, 16), lambda x: (x * direction.to(x.dtype)).sum((1, 2, 3)))
    for ood, sign in ((False, 1), (True, -1)):
        radii = local_radius(scores, norms, 0.3, ood)
        for image, score, radius in zip(images, scores.tolist(), radii.tolist(), strict=True):
            if sign * (0.3 - score) <= 0:
                assert radius == 0
                continue
            unit = sign * direction[0] / direction.norm()
            assert float(((image + radius * unit) * direction[0]).sum()) == pytest.approx(0.3, abs=1e-5)


def test_on_the_threshold_it_is_zero_and_where_the_score_is_flat_infinite() -> None:
    scores, norms = torch.tensor([0.5, 0.2, 0.9]).double(), torch.tensor([0.0, 0.0, 2.0])
    assert local_radius(scores, norms, 0.5, ood=False).tolist() == [0, math.inf, 0]
    assert local_radius(scores, norms, 0.5, ood=True).tolist() == pytest.approx([0, 0, 0.2])


def test_a_score_without_a_gradient_is_refused() -> None:
    with pytest.raises(ValueError, match="can't be differentiated"):
        gradient_norms(batches(torch.randn(2, 3, 2, 2), 2), lambda x: x.detach().sum((1, 2, 3)))


def test_parameters_get_no_gradient() -> None:
    layer = nn.Linear(12, 1)
    gradient_norms(batches(torch.randn(5, 3, 2, 2), 5), lambda x: layer(x.flatten(1)).squeeze(1))
    assert layer.weight.grad is None


def test_gradients_that_are_not_finite_are_refused_with_their_number() -> None:
    images = torch.zeros(4, 3, 2, 2)
    images[:3] = 1
    with pytest.raises(ValueError, match="no finite gradient on 1 of 4 images"):
        gradient_norms(batches(images, 2), lambda x: x.flatten(1).sum(1).sqrt())


def test_a_score_that_leaves_torch_is_refused() -> None:
    with pytest.raises(ValueError, match="can't be differentiated"):
        gradient_norms(batches(torch.ones(2, 3, 2, 2), 2), lambda x: torch.from_numpy(x.flatten(1).sum(1).numpy()))

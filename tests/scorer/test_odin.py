"""ODIN's score against a plain loop, and its change of the images against finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from ood_lab.evaluation.extract import perturbed
from ood_lab.scorer import build_scorer
from ood_lab.scorer.base import InputScorer
from tests.cases import each
from tests.scorer.case import TEST


@each("temperature", [1.0, 1000.0])
def test_it_is_one_minus_the_largest_probability_at_its_temperature(temperature: float) -> None:
    scores = build_scorer("odin", temperature=temperature).score(TEST).tolist()
    for logits, ours in zip(TEST.logits.tolist(), scores, strict=True):
        powers = [math.exp(v / temperature) for v in logits]
        assert ours == pytest.approx(1 - max(powers) / sum(powers), rel=1e-9)


class Smooth(torch.nn.Module):
    """A small differentiable network."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(12, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4)
        )

    def extract(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.net(images)}


def test_each_pixel_moves_by_epsilon_to_where_the_prediction_gains() -> None:
    network = Smooth().double()
    draw = torch.Generator().manual_seed(1)
    images = torch.randn(5, 3, 2, 2, generator=draw, dtype=torch.float64)
    std = torch.tensor([0.2, 0.25, 0.5], dtype=torch.float64).view(1, 3, 1, 1)
    odin = build_scorer("odin", temperature=3.0, epsilon=0.01)
    assert isinstance(odin, InputScorer)
    moved = perturbed(network, images, odin.objective, odin.epsilon, std)
    torch.testing.assert_close((moved - images).abs(), (0.01 / std).expand_as(images))

    @torch.no_grad()
    def gain(x: torch.Tensor) -> float:
        return float((network.net(x[None]) / 3).softmax(1).max().log())

    for image, step in zip(images, moved - images, strict=True):
        for place in torch.ones_like(image).nonzero():
            nudge = torch.zeros_like(image)
            nudge[tuple(place)] = 1e-6
            slope = gain(image + nudge) - gain(image - nudge)
            assert math.copysign(1, slope) == math.copysign(1, float(step[tuple(place)]))


def test_the_change_is_named_by_what_it_depends_on() -> None:
    names = {build_scorer("odin", **o).change() for o in ({}, {"temperature": 1.0}, {"epsilon": 0.1})}  # type: ignore[attr-defined]
    assert len(names) == 3
    assert all(name.startswith("odin ") for name in names)

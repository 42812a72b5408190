"""Iterated function systems: a known attractor, contraction, and pictures that depend on their number alone."""

from __future__ import annotations

import math

import numpy as np
import torch

from ood_lab.images.fractal import BLOCK, FILLED, Systems, chaos_game, fractals, render, sample_systems


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sierpinski() -> Systems:
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 1.0]])
    half = torch.eye(2).expand(1, 3, 2, 2) / 2
    return Systems(half, corners[None] / 2, torch.full((1, 3), 1 / 3), torch.eye(3)[None])


def boxes(points: np.ndarray, size: int) -> int:
    return len(np.unique((points * size).astype(int), axis=0))


def test_the_chaos_game_draws_the_sierpinski_triangle() -> None:
    positions, _ = chaos_game(sierpinski(), 500, 400, seeded())
    points = positions[0].double().numpy()
    x, y = points.T
    slack = 1e-3  # walks begin at a corner
    assert (y > -slack).all()
    assert (y < 2 * x + slack).all()
    assert (y < 2 * (1 - x) + slack).all()
    # The middle triangle is empty: upside down, with corners (0.25, 0.5), (0.75, 0.5), (0.5, 0).
    hole = (y < 0.5 - slack) & (y > 1 - 2 * x + 2 * slack) & (y > 2 * x - 1 + 2 * slack)
    assert not hole.any()
    dimension = math.log2(boxes(points, 128) / boxes(points, 16)) / 3
    assert abs(dimension - math.log2(3)) < 0.05


def test_each_map_is_taken_as_often_as_it_should_and_gives_its_colour() -> None:
    systems = sierpinski()._replace(probabilities=torch.tensor([[0.7, 0.2, 0.1]]))
    positions, weighted = chaos_game(systems, 400, 100, seeded(1))
    x, y = positions[0].T
    assert abs(((x < 0.5) & (y < 0.5)).float().mean().item() - 0.7) < 0.01
    assert abs((y >= 0.5).float().mean().item() - 0.1) < 0.01
    # Half of a point's colour is that of the last map.
    assert (weighted[0][y >= 0.5][:, 3] >= 0.5 - 1e-6).all()
    assert (weighted[..., 0] == 1).all()


def test_maps_contract_and_their_values_sum_to_the_target() -> None:
    systems = sample_systems(3000, seeded(2))
    values = torch.linalg.svdvals(systems.matrices)
    used = systems.probabilities > 0
    assert (values[used] < 0.99).all()
    maps = used.sum(1)
    assert set(maps.tolist()) == set(range(2, 9))
    total = ((values[..., 0] + 2 * values[..., 1]) * used).sum(1)
    assert (total >= (5 + maps) / 2 - 1e-3).all()
    assert (total <= (6 + maps) / 2 + 1e-3).all()
    torch.testing.assert_close(systems.probabilities.sum(1), torch.ones(3000))
    assert systems.colours.min() >= 0
    assert systems.colours.max() <= 1


def test_a_picture_does_not_depend_on_how_many_are_drawn_and_every_seed_has_its_own() -> None:
    few, many = fractals(3, 16, 5), fractals(BLOCK + 3, 16, 5)
    assert few.shape == (3, 3, 16, 16)
    assert few.dtype == torch.uint8
    assert torch.equal(many[:3], few)
    assert torch.equal(fractals(BLOCK + 3, 16, 5), many)
    assert not torch.equal(fractals(3, 16, 6), few)
    assert len(torch.unique(many.flatten(1), dim=0)) == len(many)


def test_pictures_are_neither_sparse_nor_solid_and_have_colours() -> None:
    pictures = fractals(BLOCK, 32, 0).float()
    corner = pictures[:, :, 0, 0][:, :, None, None]
    drawn = ((pictures - corner).abs().sum(1) > 24).float().mean((1, 2))
    assert drawn.median() > FILLED[0]
    assert (drawn > 0.03).float().mean() > 0.97
    assert pictures.std((2, 3)).mean() > 15
    assert (pictures.amax(1) - pictures.amin(1)).mean() > 20


def test_a_picture_is_framed_by_its_points_wherever_they_lie() -> None:
    positions = torch.rand(1, 5000, 2, generator=seeded(3))
    weighted = torch.ones(1, 5000, 4)
    here, share = render(positions, weighted, 16, torch.zeros(1, 3))
    there, _ = render(positions * 100 - 7, weighted, 16, torch.zeros(1, 3))
    assert (here.int() - there.int()).abs().float().mean() < 2
    assert share.item() > 0.8

"""Geometry and vMF densities on the sphere against explicit matrices, loops and numerical integrals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor
from torch.nn import functional as F

from ood_lab.geometry.sphere import (
    geodesic_step,
    log_vmf_normaliser,
    project_to_tangent,
    uniform_on_sphere,
    vmf_kernel_log_density,
)
from tests.cases import each


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(normal(*shape, seed=seed), dim=-1)


def tangent_pair(rows: int = 7, dim: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    z = unit(rows, dim, seed=seed)
    return z, project_to_tangent(z, 2 * normal(rows, dim, seed=seed + 1))


def log_vmf_integral(dim: int, kappa: float) -> float:
    """log of the integral of exp(kappa mu.x) over the unit sphere of `dim` dimensions, by the angle to mu."""
    log_area = math.log(2) + (dim - 1) / 2 * math.log(math.pi) - math.lgamma((dim - 1) / 2)
    angles = np.linspace(1e-4, math.pi - 1e-4, 20001)
    logs = kappa * np.cos(angles) + (dim - 2) * np.log(np.sin(angles))
    peak, place = logs.max(), angles[logs.argmax()]

    def integrand(angle: float) -> float:
        return math.exp(kappa * math.cos(angle) - peak) * math.sin(angle) ** (dim - 2)

    value = sum(quad(integrand, *ends, epsabs=0, epsrel=1e-11, limit=400)[0] for ends in ((0, place), (place, math.pi)))
    return log_area + peak + math.log(value)


def test_projection_is_the_explicit_projector_matrix() -> None:
    z, v = unit(6, 9), normal(6, 9, seed=1)
    got = project_to_tangent(z, v)
    for i in range(len(z)):
        matrix = np.eye(9) - np.outer(z[i].numpy(), z[i].numpy())
        np.testing.assert_allclose(got[i].numpy(), matrix @ v[i].numpy(), atol=1e-13)


def test_projection_is_tangent_and_idempotent() -> None:
    z, v = unit(6, 9), normal(6, 9, seed=1)
    once = project_to_tangent(z, v)
    assert (z * once).sum(1).abs().max() < 1e-13
    torch.testing.assert_close(project_to_tangent(z, once), once, atol=1e-13, rtol=0)


@each("step", [0.01, 0.4, 3.0])
def test_geodesic_step_matches_the_loop_over_coordinates(step: float) -> None:
    z, q = tangent_pair()
    moved, carried = geodesic_step(z, q, step)
    for i in range(len(z)):
        speed = math.sqrt(sum(float(x) ** 2 for x in q[i]))
        c, s = math.cos(speed * step), math.sin(speed * step)
        for j in range(z.shape[1]):
            assert float(moved[i, j]) == pytest.approx(float(z[i, j]) * c + float(q[i, j]) / speed * s, abs=1e-12)
            assert float(carried[i, j]) == pytest.approx(-float(z[i, j]) * speed * s + float(q[i, j]) * c, abs=1e-12)


def test_geodesic_step_stays_on_the_sphere_with_the_same_speed_and_tangent() -> None:
    z, q = tangent_pair()
    moved, carried = geodesic_step(z, q, 0.7)
    torch.testing.assert_close(moved.norm(dim=1), torch.ones(7, dtype=torch.float64), atol=1e-14, rtol=0)
    torch.testing.assert_close(carried.norm(dim=1), q.norm(dim=1), atol=1e-12, rtol=0)
    assert (moved * carried).sum(1).abs().max() < 1e-12


def test_geodesic_step_is_reversed_by_the_negated_velocity() -> None:
    z, q = tangent_pair()
    moved, carried = geodesic_step(z, q, 0.7)
    back, velocity = geodesic_step(moved, -carried, 0.7)
    torch.testing.assert_close(back, z, atol=1e-12, rtol=0)
    torch.testing.assert_close(-velocity, q, atol=1e-12, rtol=0)


def test_many_float32_geodesic_steps_do_not_leave_the_sphere() -> None:
    z, q = (x.float() for x in tangent_pair(dim=128))
    for _ in range(500):
        z, q = geodesic_step(z, q, 0.1)
    assert (z.norm(dim=1) - 1).abs().max() < 1e-6


def test_geodesic_step_with_zero_velocity_stays() -> None:
    z = unit(3, 4)
    moved, carried = geodesic_step(z, torch.zeros_like(z), 0.5)
    torch.testing.assert_close(moved, z, atol=1e-15, rtol=0)
    assert carried.abs().max() == 0


@each("dim", [3, 8, 128])
@each("kappa", [1e-6, 1e-4, 0.1, 2.0, 30.0, 900.0])
def test_vmf_density_integrates_to_one(dim: int, kappa: float) -> None:
    assert log_vmf_normaliser(dim, kappa) + log_vmf_integral(dim, kappa) == pytest.approx(0, abs=1e-8)


def test_vmf_normaliser_in_three_dimensions_is_the_closed_form() -> None:
    for kappa in (0.01, 1.0, 7.0):
        expected = math.log(kappa / (4 * math.pi * math.sinh(kappa)))
        assert log_vmf_normaliser(3, kappa) == pytest.approx(expected, abs=1e-11)


def test_vmf_normaliser_has_no_jump_where_the_bessel_function_underflows() -> None:
    limit = math.lgamma(64) - math.log(2) - 64 * math.log(math.pi)  # -log of the sphere's area in 128 dimensions
    for kappa in np.geomspace(1e-5, 1e-2, 3001):
        assert log_vmf_normaliser(128, float(kappa)) == pytest.approx(limit - kappa**2 / 256, abs=1e-7), kappa


@each(("dim", "kappa"), [(512, 2.0), (512, 11.0), (2048, 2.0), (2048, 300.0)])
def test_vmf_density_integrates_to_one_in_many_dimensions(dim: int, kappa: float) -> None:
    assert log_vmf_normaliser(dim, kappa) + log_vmf_integral(dim, kappa) == pytest.approx(0, abs=1e-3)


@each("kappa", [0.5, 2.0, 40.0])
def test_kernel_log_density_matches_the_loop_of_equation_11(kappa: float) -> None:
    z, centres = unit(5, 6), unit(11, 6, seed=1)
    got = vmf_kernel_log_density(z, centres, kappa)
    for i in range(5):
        total = 0.0
        for centre in centres:
            total += math.exp(kappa * sum(float(a) * float(b) for a, b in zip(z[i], centre, strict=True)))
        assert float(got[i]) == pytest.approx(math.log(total / 11), abs=1e-12)


def test_kernel_log_density_does_not_overflow_for_a_large_kappa() -> None:
    z, centres, kappa = unit(5, 6), unit(11, 6, seed=1), 5000.0
    got = vmf_kernel_log_density(z.float(), centres.float(), kappa)
    for i in range(5):
        logs = [kappa * float(z[i] @ centre) for centre in centres]
        expected = max(logs) + math.log(sum(math.exp(x - max(logs)) for x in logs) / 11)
        assert float(got[i]) == pytest.approx(expected, rel=1e-4, abs=1e-2)


def test_kernel_log_density_leaves_its_inputs_alone() -> None:
    z, centres = unit(5, 6), unit(11, 6, seed=1)
    z_before, centres_before = z.clone(), centres.clone()
    vmf_kernel_log_density(z, centres, 2.0)
    assert torch.equal(z, z_before)
    assert torch.equal(centres, centres_before)


def test_uniform_on_sphere_has_the_moments_of_the_uniform_distribution() -> None:
    n, dim = 40000, 5
    z = uniform_on_sphere((n // 4, 4, dim), torch.Generator().manual_seed(3))
    assert z.shape == (n // 4, 4, dim)
    z = z.reshape(n, dim).double()
    assert (z.norm(dim=1) - 1).abs().max() < 1e-6
    assert z.mean(0).abs().max() < 5 / math.sqrt(n * dim)
    second = z.T @ z / n
    assert (second - torch.eye(dim, dtype=torch.float64) / dim).abs().max() < 5 / math.sqrt(n) * 0.25
    assert z.pow(4).mean(0).sub(3 / (dim * (dim + 2))).abs().max() < 5 / math.sqrt(n) * 0.16


def test_uniform_on_sphere_is_a_function_of_the_generator() -> None:
    first, again, other = (uniform_on_sphere((4, 3), torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)

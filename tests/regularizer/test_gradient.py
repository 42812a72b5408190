"""GReg's regularisation against one image after the other, and its second-order gradient against differences."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from ood_lab.parts import Dimensions, Rows, View
from ood_lab.regularizer.gradient import Gradient
from tests.views import assert_close, assert_reads_exactly, differences, normal

IDS, OUTLIERS, SHAPE = 5, 4, (3, 3, 3)
LABELS = torch.zeros(IDS, dtype=torch.int64)
EVERYTHING = (math.inf, -math.inf)
NOTHING = (-math.inf, math.inf)
Reading = Literal["batch", "released"]


def network() -> nn.Sequential:
    """Smooth, and with group normalisation, so that an image's energy is a function of that image alone."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3))
    return nn.Sequential(*layers).double()


def images() -> tuple[Tensor, Tensor]:
    return normal(IDS, *SHAPE), normal(OUTLIERS, *SHAPE, seed=1)


def view(net: nn.Module, ids: Tensor, outliers: Tensor) -> View:
    """Of one pass with all images."""
    ids, outliers = ids.clone().requires_grad_(), outliers.clone().requires_grad_()
    logits = net(torch.cat([ids, outliers]))
    rows = Rows(images=ids, logits=logits[: len(ids)])
    return View(id=rows, labels=LABELS, kept={}, outliers=Rows(images=outliers, logits=logits[len(ids) :]))


def term(m_in: float, m_out: float, reading: Reading = "batch") -> Gradient:
    return Gradient(Dimensions(3, 36, 5), m_in=m_in, m_out=m_out, reading=reading)


def energy(net: nn.Module, image: Tensor) -> float:
    return -math.log(sum(math.exp(x) for x in net(image[None])[0].tolist()))


def margins(net: nn.Module) -> tuple[float, float]:
    """Between the energies, so that some images of each side count and some don't."""
    ids, outliers = (sorted(energy(net, image) for image in side) for side in images())
    return (ids[2] + ids[3]) / 2, (outliers[0] + outliers[1]) / 2


def naive(net: nn.Module, m_in: float, m_out: float, *, by_differences: bool = False) -> float:
    """Equation 3, one image after the other."""
    sides = []
    for side, counts in zip(images(), (lambda e: e <= m_in, lambda e: e >= m_out), strict=True):
        total = 0.0
        for image in side:
            if not counts(energy(net, image)):
                continue
            if by_differences:
                slope = differences(lambda x: energy(net, torch.tensor(x, dtype=torch.float64)), image)
            else:
                alone = image.clone().requires_grad_()
                (slope,) = torch.autograd.grad(-net(alone[None]).exp().sum().log(), alone)
            total += math.sqrt(sum(x * x for x in slope.flatten().tolist()))
        sides.append(total / len(side))
    return sum(sides)


def changed(net: nn.Module, name: str, direction: Tensor) -> nn.Module:
    moved = deepcopy(net)
    with torch.no_grad():
        moved.get_parameter(name).add_(direction)
    return moved


@pytest.mark.parametrize("some", [True, False])
def test_it_is_equation_3_by_finite_differences_of_each_images_energy(some: bool) -> None:
    net = network()
    bounds = margins(net) if some else EVERYTHING
    expected = naive(net, *bounds, by_differences=True)
    assert expected > 0.1
    assert term(*bounds).loss(view(net, *images())).item() == pytest.approx(expected, abs=1e-8)


def test_as_released_it_is_divided_by_the_number_of_all_images() -> None:
    net = network()
    bounds = margins(net)
    got = term(*bounds, reading="released").loss(view(net, *images())).item()
    assert got == pytest.approx(naive(net, *bounds) / (IDS + OUTLIERS), abs=1e-12)


@pytest.mark.parametrize(("m_in", "m_out"), [(math.inf, math.inf), (-math.inf, -math.inf)])
def test_each_side_has_its_own_margin(m_in: float, m_out: float) -> None:
    net = network()
    expected = naive(net, m_in, m_out)
    assert 0 < expected < naive(net, *EVERYTHING)
    assert term(m_in, m_out).loss(view(net, *images())).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("reading", ["batch", "released"])
def test_it_trains_every_weight_through_the_second_derivative(reading: Reading) -> None:
    net = network()
    bounds = margins(net)
    term(*bounds, reading=reading).loss(view(net, *images())).backward()
    factor, step = 1 if reading == "batch" else 1 / (IDS + OUTLIERS), 1e-5
    for number, (name, parameter) in enumerate(net.named_parameters()):
        direction = normal(*parameter.shape, seed=10 + number)
        there, back = (naive(changed(net, name, sign * step * direction), *bounds) for sign in (1, -1))
        slope = factor * (there - back) / (2 * step)
        assert abs(slope) > 1e-6, name
        assert (parameter.grad * direction).sum().item() == pytest.approx(slope, abs=1e-8), name


def test_single_weights_match_too() -> None:
    net = network()
    bounds = margins(net)
    term(*bounds).loss(view(net, *images())).backward()
    bias = net.get_parameter("4.bias")

    def at(values: list) -> float:
        return naive(changed(net, "4.bias", torch.tensor(values, dtype=torch.float64) - bias.detach()), *bounds)

    assert_close(bias.grad, differences(at, bias))


@pytest.mark.parametrize("bounds", [EVERYTHING, NOTHING])
def test_a_gradient_of_zero_trains_nothing_and_gives_no_nan(bounds: tuple[float, float]) -> None:
    net = network()
    if bounds == EVERYTHING:
        with torch.no_grad():
            net.get_parameter("4.weight").zero_()  # all images have the same energy
    found = term(*bounds).loss(view(net, *images()))
    found.backward()
    assert found.item() == 0
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() == 0, name


def test_it_reads_images_and_logits_of_both_sides_alone() -> None:
    made = view(network(), *images())
    rows = {"images": made.id.images, "logits": made.id.logits}
    outliers = {"images": made.outlier_rows.images, "logits": made.outlier_rows.logits}
    assert_reads_exactly(term(*EVERYTHING), LABELS, rows, outliers, {})
    assert term(*EVERYTHING).keeps() == {}


def test_by_default_it_has_the_released_margins_and_equation_3() -> None:
    made = Gradient(Dimensions(3, 36, 5))
    assert (made.m_in, made.m_out, made.reading) == (-25.0, -7.0, "batch")

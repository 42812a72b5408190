"""GReg's regularisation against one image after the other, and its second-order gradient against differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from ood_lab.network import Network
from ood_lab.parts import Dimensions, Rows, View
from ood_lab.regularizer.gradient import Gradient
from ood_lab.types import BackboneOutput
from tests.cases import each
from tests.views import assert_close, assert_reads_exactly, differences, normal

IDS, OUTLIERS, C, SHAPE = 5, 4, 3, (3, 3, 3)
ALL = IDS + OUTLIERS
LABELS = torch.zeros(IDS, dtype=torch.int64)
EVERYTHING = (math.inf, -math.inf)
NOTHING = (-math.inf, math.inf)
Reading = Literal["batch", "released", "sample"]
READINGS: tuple[Reading, ...] = ("batch", "released", "sample")
NORMS = ("group", "batch")
Norm = Literal["group", "batch"]
Penalty = Callable[[nn.Module, float, float], float]


def network(norm: Norm = "group", outputs: int = C) -> nn.Sequential:
    """Smooth; with group normalisation an image's energy is a function of that image alone."""
    torch.manual_seed(0)
    norms = [nn.GroupNorm(2, 4) if norm == "group" else nn.BatchNorm2d(4) for _ in range(2)]
    layers = (nn.Conv2d(3, 4, 3, padding=1), norms[0], nn.Tanh(), nn.Conv2d(4, 4, 1), norms[1], nn.Tanh())
    made = nn.Sequential(*layers, nn.Flatten(), nn.Linear(36, outputs)).double()
    with torch.no_grad():
        made(normal(6, *SHAPE, seed=5))  # running statistics that are not those at the beginning
    return made


def images() -> tuple[Tensor, Tensor]:
    return normal(IDS, *SHAPE), normal(OUTLIERS, *SHAPE, seed=1) + 0.3


def view(net: nn.Module, ids: Tensor, outliers: Tensor) -> View:
    """Of one pass with all images, of whose outputs C stand for classes."""
    ids, outliers = ids.clone().requires_grad_(), outliers.clone().requires_grad_()
    logits = net(torch.cat([ids, outliers]))
    rows = Rows(images=ids, logits=logits[: len(ids)]).of_classes(C)
    others = Rows(images=outliers, logits=logits[len(ids) :]).of_classes(C)
    further = Network(net, lambda x: BackboneOutput(x.flatten(1), net(x)))
    return View(id=rows, labels=LABELS, kept={}, outliers=others, network=further)


def term(m_in: float | None, m_out: float | None, reading: Reading = "batch") -> Gradient:
    return Gradient(Dimensions(C, 36, 5), m_in=m_in, m_out=m_out, reading=reading)


def penalty(net: nn.Module, m_in: float | None, m_out: float | None, reading: Reading = "batch") -> Tensor:
    made = term(m_in, m_out, reading)
    return made.loss(view(net, *images()).of(made))


def energy(net: nn.Module, image: Tensor) -> float:
    return -math.log(sum(math.exp(x) for x in net(image[None])[0, :C].tolist()))


def margins(net: nn.Module) -> tuple[float, float]:
    """Between the energies in the step's pass, so that some images of each side count and some don't."""
    energies = (-deepcopy(net)(torch.cat(images()))[:, :C].logsumexp(1)).tolist()
    ids, outliers = sorted(energies[:IDS]), sorted(energies[IDS:])
    return (ids[2] + ids[3]) / 2, (outliers[0] + outliers[1]) / 2


def naive(net: nn.Module, m_in: float, m_out: float, *, by_differences: bool = False) -> float:
    """Equation 3, one image after the other, of a network that treats each image by itself."""
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
                (slope,) = torch.autograd.grad(-net(alone[None])[:, :C].exp().sum().log(), alone)
            total += math.sqrt(sum(x * x for x in slope.flatten().tolist()))
        sides.append(total / len(side))
    return sum(sides)


def with_constants(net: nn.Module) -> nn.Module:
    """The network that counts the statistics of all images as constants: a function of each image by itself."""
    frozen = deepcopy(net).eval()
    rows = torch.cat(images())
    for layer in frozen:
        if isinstance(layer, nn.BatchNorm2d):
            for channel in range(rows.shape[1]):
                values = rows[:, channel].flatten().tolist()
                mean = sum(values) / len(values)
                layer.running_mean[channel] = mean
                layer.running_var[channel] = sum((x - mean) ** 2 for x in values) / len(values)
        rows = layer(rows).detach()
    return frozen


def naive_of_batch(net: nn.Module, m_in: float, m_out: float, *, by_differences: bool = False) -> float:
    """The norms of the images' gradients of mean_in S 1[S <= m_in] + mean_out S 1[S >= m_out] in one pass."""
    net = deepcopy(net).train()

    def counted(everything: Tensor) -> Tensor:
        energies = [-row[:C].exp().sum().log() for row in net(everything)]
        id_side = [e if e <= m_in else 0 * e for e in energies[:IDS]]
        outlier_side = [e if e >= m_out else 0 * e for e in energies[IDS:]]
        return sum(id_side) / IDS + sum(outlier_side) / OUTLIERS

    everything = torch.cat(images())
    if by_differences:
        with torch.no_grad():
            slopes = differences(lambda x: counted(torch.tensor(x, dtype=torch.float64)).item(), everything)
    else:
        everything.requires_grad_()
        (slopes,) = torch.autograd.grad(counted(everything), everything)
    return sum(math.sqrt(sum(x * x for x in slope.flatten().tolist())) for slope in slopes)


def changed(net: nn.Module, name: str, direction: Tensor) -> nn.Module:
    moved = deepcopy(net)
    with torch.no_grad():
        moved.get_parameter(name).add_(direction)
    return moved


def slope_along(net: nn.Module, name: str, direction: Tensor, value: Callable[[nn.Module], float]) -> float:
    there, back = (value(changed(net, name, sign * 1e-6 * direction)) for sign in (1, -1))
    return (there - back) / 2e-6


@each("some", [True, False])
@each("reading", ["batch", "sample"])
def test_it_is_equation_3_by_finite_differences_of_each_images_energy(reading: Reading, some: bool) -> None:
    net = network()
    bounds = margins(net) if some else EVERYTHING
    expected = naive(net, *bounds, by_differences=True)
    assert expected > 0.1
    assert penalty(net, *bounds, reading).item() == pytest.approx(expected, abs=1e-8)


@each("some", [True, False])
def test_with_batch_statistics_the_scores_of_a_pass_are_averaged_and_differentiated_together(some: bool) -> None:
    net = network("batch")
    bounds = margins(net) if some else EVERYTHING
    expected = naive_of_batch(net, *bounds, by_differences=True)
    assert expected > 0.1
    assert penalty(net, *bounds, "batch").item() == pytest.approx(expected, abs=1e-8)
    assert penalty(net, *bounds, "released").item() == pytest.approx(expected / ALL, abs=1e-8)


@each("some", [True, False])
def test_by_sample_it_is_equation_3_of_each_image_with_the_batchs_statistics_held(some: bool) -> None:
    net = network("batch")
    bounds = margins(net) if some else EVERYTHING
    expected = naive(with_constants(net), *bounds, by_differences=True)
    assert expected > 0.1
    assert penalty(net, *bounds, "sample").item() == pytest.approx(expected, abs=1e-8)


@each("norm", NORMS)
@each("some", [True, False])
def test_all_readings_agree_with_group_normalisation_and_not_with_batch_normalisation(some: bool, norm: Norm) -> None:
    net = network(norm)
    bounds = margins(net) if some else EVERYTHING
    batch, released, sample = (penalty(net, *bounds, reading).item() for reading in READINGS)
    assert ALL * released == pytest.approx(batch, abs=1e-12)
    if norm == "group":
        assert sample == pytest.approx(batch, abs=1e-12)
    else:
        assert abs(sample - batch) > 0.01


def test_as_released_it_is_divided_by_the_number_of_all_images() -> None:
    net = network()
    bounds = margins(net)
    assert penalty(net, *bounds, "released").item() == pytest.approx(naive(net, *bounds) / ALL, abs=1e-12)


@each("reading", ["batch", "sample"])
@each(("m_in", "m_out"), [(math.inf, math.inf), (-math.inf, -math.inf)])
def test_each_side_has_its_own_margin(m_in: float, m_out: float, reading: Reading) -> None:
    net = network()
    expected = naive(net, m_in, m_out)
    assert 0 < expected < naive(net, *EVERYTHING)
    assert penalty(net, m_in, m_out, reading).item() == pytest.approx(expected, abs=1e-12)


@each("norm", NORMS)
@each("reading", READINGS)
def test_without_a_margin_all_images_of_its_side_count(reading: Reading, norm: Norm) -> None:
    net = network(norm)
    m_in, m_out = margins(net)
    of_null = [penalty(net, *bounds, reading).item() for bounds in ((None, None), (None, m_out), (m_in, None))]
    infinite = ((math.inf, -math.inf), (math.inf, m_out), (m_in, -math.inf))
    assert of_null == [penalty(net, *bounds, reading).item() for bounds in infinite]
    assert len(set(of_null)) == 3


@each("norm", NORMS)
@each("reading", READINGS)
def test_of_a_head_with_one_output_more_the_classes_alone_count(reading: Reading, norm: Norm) -> None:
    more, fewer = network(norm, C + 1), network(norm)
    fewer.load_state_dict({name: v[:C] if name.startswith("7.") else v for name, v in more.state_dict().items()})
    bounds = margins(fewer)
    expected = penalty(fewer, *bounds, reading)
    torch.testing.assert_close(penalty(more, *bounds, reading), expected, atol=1e-12, rtol=0)
    penalty(more, *bounds, reading).backward()
    assert more.get_parameter("7.weight").grad[C].abs().max() == 0


# What is trained: of "sample" the function of the weights in which the statistics of the batch are those of the weights
# as they are; of the others that in which they follow the weights.
TRAINED: dict[Reading, Penalty] = {
    "batch": naive_of_batch,
    "released": lambda net, m_in, m_out: naive_of_batch(net, m_in, m_out) / ALL,
    "sample": naive,
}


@each("norm", NORMS)
@each("reading", READINGS)
def test_it_trains_every_weight_through_the_second_derivative(reading: Reading, norm: Norm) -> None:
    net = network(norm)
    bounds = margins(net)
    penalty(net, *bounds, reading).backward()
    base = with_constants(net) if reading == "sample" else net
    for number, (name, parameter) in enumerate(net.named_parameters()):
        direction = normal(*parameter.shape, seed=10 + number)
        slope = slope_along(base, name, direction, lambda moved: TRAINED[reading](moved, *bounds))
        if norm == "batch" and reading != "sample" and name in ("0.bias", "3.bias"):
            assert abs(slope) < 1e-8, name  # normalisation takes it out
        else:
            assert abs(slope) > 1e-6, name
        assert (parameter.grad * direction).sum().item() == pytest.approx(slope, abs=1e-8), name


def test_by_sample_statistics_that_follow_the_weights_are_not_differentiated() -> None:
    net = network("batch")
    bounds = margins(net)
    penalty(net, *bounds, "sample").backward()
    direction = normal(4, 3, 3, 3, seed=10)
    found = (net.get_parameter("0.weight").grad * direction).sum().item()
    following = slope_along(net, "0.weight", direction, lambda moved: naive(with_constants(moved), *bounds))
    assert abs(found - following) > 1e-3


def test_single_weights_match_too() -> None:
    net = network()
    bounds = margins(net)
    penalty(net, *bounds).backward()
    bias = net.get_parameter("7.bias")

    def at(values: list) -> float:
        return naive(changed(net, "7.bias", torch.tensor(values, dtype=torch.float64) - bias.detach()), *bounds)

    assert_close(bias.grad, differences(at, bias))


@each("norm", NORMS)
@each("reading", READINGS)
@each("bounds", [EVERYTHING, NOTHING])
def test_a_gradient_of_zero_trains_nothing_and_gives_no_nan(
    bounds: tuple[float, float], reading: Reading, norm: Norm
) -> None:
    net = network(norm)
    if bounds == EVERYTHING:
        with torch.no_grad():
            net.get_parameter("7.weight").zero_()  # all images have the same energy
    found = penalty(net, *bounds, reading)
    found.backward()
    assert found.item() == 0
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() == 0, name


def test_by_sample_a_further_pass_of_all_images_together_leaves_no_trace() -> None:
    net, asked = network("batch"), []

    class Watched(Network):
        def __call__(self, images: Tensor, mode: Any = "eval", grad: bool = False) -> BackboneOutput:
            asked.append((images.detach(), mode, grad))
            return super().__call__(images, mode, grad)

    made = view(net, *images())
    watched = Watched(net, lambda x: BackboneOutput(x.flatten(1), net(x)))
    for reading in READINGS:
        before = {name: value.clone() for name, value in net.state_dict().items()}
        term(*EVERYTHING, reading).loss(View(made.id, LABELS, {}, made.outliers, network=watched))
        for name, value in net.state_dict().items():
            assert torch.equal(value, before[name]), name
    ((passed, mode, grad),) = asked
    assert torch.equal(passed, torch.cat(images()))
    assert (mode, grad) == ("held", True)


def test_it_reads_images_and_logits_of_both_sides_alone() -> None:
    made = view(network(), *images())
    rows = {"images": made.id.images, "logits": made.id.logits}
    outliers = {"images": made.outlier_rows.images, "logits": made.outlier_rows.logits}
    assert_reads_exactly(term(*EVERYTHING), LABELS, rows, outliers, {})
    assert term(*EVERYTHING).keeps() == {}
    assert Gradient.at_most == (("m_in", "m_out"),)


def test_by_default_it_has_the_released_margins_and_equation_3() -> None:
    made = Gradient(Dimensions(C, 36, 5))
    assert (made.m_in, made.m_out, made.reading) == (-25.0, -7.0, "batch")

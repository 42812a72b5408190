"""A further pass through the network: it leaves no trace, and takes the statistics and the gradients asked for."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from ood_lab.network import Network
from ood_lab.types import BackboneOutput
from tests.cases import each

Mode = Literal["train", "held", "eval"]
MODES: tuple[Mode, ...] = ("train", "held", "eval")


def images(rows: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(rows, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


class Small(nn.Module):
    """With dropout, two kinds of batch normalisation, and one without running statistics."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.BatchNorm2d(4, track_running_stats=False),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.BatchNorm1d(64, momentum=None),
        )
        self.fc = nn.Linear(64, 5)
        self.fails = False
        self.body(images(seed=9))  # running statistics that are not those at the beginning

    def forward(self, given: Tensor) -> BackboneOutput:
        features = self.body(given)
        logits = self.fc(features)
        if self.fails:
            raise RuntimeError("after all layers")
        return BackboneOutput(features, logits)


def mixed(net: Small) -> None:
    """Some parts train, some don't."""
    net.train()
    net.body[1].eval()
    net.body[4].eval()
    net.fc.eval()


STARTS = {"all in training": nn.Module.train, "all in evaluation": nn.Module.eval, "mixed": mixed}


@contextmanager
def no_trace(net: Small) -> Iterator[None]:
    """What is in the block leaves the network and the global generator as they were."""

    def seen() -> dict[str, Any]:
        return {
            "modes": [module.training for module in net.modules()],
            "attributes": [sorted(module.__dict__) for module in net.modules()],
            "buffers": [id(buffer) for buffer in net.buffers()],
            "tracking": [getattr(module, "track_running_stats", None) for module in net.modules()],
            "gradients": [p.grad for p in net.parameters()],
            "requires": [p.requires_grad for p in net.parameters()],
            "ambient": torch.is_grad_enabled(),
        }

    before, state, stream = seen(), copy.deepcopy(net.state_dict()), torch.get_rng_state()
    yield
    assert seen() == before
    assert torch.equal(torch.get_rng_state(), stream)
    assert set(net.state_dict()) == set(state)
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[name]), name


@each("start", STARTS)
@each("fails", [False, True])
@each("grad", [False, True])
@each("mode", MODES)
def test_a_pass_leaves_no_trace(mode: Mode, grad: bool, fails: bool, start: str) -> None:
    net = Small()
    STARTS[start](net)
    net.fails = fails
    with no_trace(net), pytest.raises(RuntimeError, match="after all layers") if fails else nullcontext():
        Network(net, net)(images(), mode, grad)


def test_a_batch_that_batch_normalisation_refuses_leaves_no_trace() -> None:
    net = Small()
    with no_trace(net), pytest.raises(ValueError, match="more than 1 value per channel"):
        Network(net, net)(images(rows=1), "train")


def test_passes_without_the_network_do_leave_one() -> None:
    net = Small().train()
    with pytest.raises(AssertionError), no_trace(net):
        net(images())
    with pytest.raises(AssertionError, match="running_mean"), no_trace(net), torch.random.fork_rng():
        net(images())


def test_training_goes_on_as_if_there_had_been_no_pass() -> None:
    first, second = Small().train(), Small().train()
    torch.manual_seed(3)
    expected = [first(images(seed=seed)).logits for seed in range(3)]
    torch.manual_seed(3)
    found = []
    for seed in range(3):
        for mode in MODES:
            Network(second, second)(images(seed=20 + seed), mode)
        found.append(second(images(seed=seed)).logits)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)
    for name, value in second.state_dict().items():
        assert torch.equal(value, first.state_dict()[name]), name


def normalised(given: Tensor, norm: nn.BatchNorm2d, mode: Mode) -> list[list[float]]:
    """Batch normalisation value by value; one row an image."""
    values = given.tolist()
    rows: list[list[float]] = [[] for _ in values]
    for channel in range(len(values[0])):
        flat = [x for image in values for line in image[channel] for x in line]
        mean = sum(flat) / len(flat)
        variance = sum((x - mean) ** 2 for x in flat) / len(flat)
        if mode == "eval":
            mean, variance = norm.running_mean[channel].item(), norm.running_var[channel].item()
        weight, bias = norm.weight[channel].item(), norm.bias[channel].item()
        for row, image in zip(rows, values, strict=True):
            scaled = [(x - mean) / math.sqrt(variance + norm.eps) for line in image[channel] for x in line]
            row += [weight * x + bias for x in scaled]
    return rows


@each("training", [True, False])
@each("mode", MODES)
def test_the_mode_says_whose_statistics_are_taken_whatever_mode_the_network_is_in(mode: Mode, training: bool) -> None:
    norm = nn.BatchNorm2d(3).double().train(training)
    for number, values in enumerate((norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data)):
        values.copy_(torch.rand(3, generator=torch.Generator().manual_seed(number)) + 0.5)
    given = images().double()
    found = Network(norm, lambda x: BackboneOutput(norm(x).flatten(1), x))(given, mode)
    expected = torch.tensor(normalised(given, norm, mode), dtype=torch.float64)
    torch.testing.assert_close(found.features, expected, atol=1e-10, rtol=0)


def test_without_a_mode_it_evaluates() -> None:
    net = Small().train()
    given = images()
    found = Network(net, net)(given)
    net.eval()
    assert torch.equal(found.logits, net(given).logits)
    assert not found.logits.requires_grad


def test_dropout_drops_in_training_mode_alone_and_each_pass_alike() -> None:
    drop = nn.Dropout(0.5)
    network, ones = Network(drop, lambda x: BackboneOutput(drop(x), x)), torch.ones(2, 100)
    first = network(ones, "train").features
    assert 0.2 < (first == 0).double().mean() < 0.8
    assert torch.equal(network(ones, "train").features, first)
    assert torch.equal(network(ones, "held").features, first)
    assert torch.equal(network(ones, "eval").features, ones)


@each("ambient", [True, False])
@each("mode", MODES)
def test_with_grad_the_graph_reaches_images_and_weights(mode: Mode, ambient: bool) -> None:
    net, given = Small(), images().requires_grad_()
    with torch.set_grad_enabled(ambient):
        logits = Network(net, net)(given, mode, grad=True).logits
        assert torch.is_grad_enabled() is ambient
    logits.square().sum().backward()
    assert given.grad.abs().max() > 0
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
    assert net.body[0].weight.grad.abs().max() > 0


@each("mode", ["train", "eval"])
def test_gradients_on_the_images_match_finite_differences_of_the_pass(mode: Mode) -> None:
    net = Small().double()
    network, given = Network(net, net), images(rows=3).double().requires_grad_()
    torch.manual_seed(0)

    def score(x: Tensor) -> Tensor:
        return network(x, mode, grad=True).logits[:, 0].square().sum()

    (got,) = torch.autograd.grad(score(given), given)
    assert got.abs().max() > 1e-4
    for seed in range(4):
        direction = images(rows=3, seed=30 + seed).double()
        there, back = (score(given.detach() + sign * 1e-6 * direction).item() for sign in (1, -1))
        assert (got * direction).sum().item() == pytest.approx((there - back) / 2e-6, rel=1e-5)


@each("mode", MODES)
def test_without_grad_there_is_none(mode: Mode) -> None:
    net = Small()
    found = Network(net, net)(images().requires_grad_(), mode)
    assert not found.features.requires_grad
    assert not found.logits.requires_grad
    assert torch.is_grad_enabled()


NORMS = {
    "of images": (nn.BatchNorm2d(3), (6, 3, 2, 2)),
    "of images, not affine": (nn.BatchNorm2d(3, affine=False), (6, 3, 2, 2)),
    "of features": (nn.BatchNorm1d(3, eps=0.1), (6, 3)),
    "of features, not affine": (nn.BatchNorm1d(3, affine=False), (6, 3)),
    "of sequences": (nn.BatchNorm1d(3), (6, 3, 5)),
    "without running statistics": (nn.BatchNorm2d(3, track_running_stats=False), (6, 3, 2, 2)),
}


def some_norm(kind: str) -> tuple[Any, Tensor]:
    """In float64 and in evaluation mode, with a slope and running statistics of its own."""
    norm, shape = NORMS[kind]
    norm, draw = copy.deepcopy(norm).double().eval(), torch.Generator().manual_seed(0)
    for values in (*norm.parameters(), *(b for b in norm.buffers() if b.is_floating_point())):
        values.data.copy_(torch.rand(3, generator=draw) + 0.5)
    return norm, 2 * torch.randn(shape, generator=draw, dtype=torch.float64) + 1


def alone(module: nn.Module) -> Network:
    return Network(module, lambda x: BackboneOutput(module(x), x))


def statistics(given: Tensor, channel: int) -> tuple[float, float]:
    """Mean and variance of a channel over rows and places, value by value."""
    values = given[:, channel].flatten().tolist()
    mean = sum(values) / len(values)
    return mean, sum((x - mean) ** 2 for x in values) / len(values)


@each("kind", NORMS)
def test_held_statistics_are_those_of_the_rows_as_in_training_mode(kind: str) -> None:
    norm, given = some_norm(kind)
    held, trained = (alone(norm)(given, mode).features for mode in ("held", "train"))
    torch.testing.assert_close(held, trained, atol=1e-12, rtol=0)
    for channel in range(3):
        mean, variance = statistics(given, channel)
        slope, offset = (values[channel].item() for values in norm.parameters()) if norm.affine else (1.0, 0.0)
        expected = slope * (given[:, channel] - mean) / math.sqrt(variance + norm.eps) + offset
        torch.testing.assert_close(held[:, channel], expected, atol=1e-12, rtol=0)


@each("kind", NORMS)
def test_a_row_whose_statistics_are_held_has_no_derivative_with_respect_to_another_row(kind: str) -> None:
    norm, given = some_norm(kind)
    given.requires_grad_()
    for row in range(len(given)):
        others = [i for i in range(len(given)) if i != row]
        slopes = {}
        for mode in ("held", "train"):
            output = alone(norm)(given, mode, grad=True).features[row]
            weights = torch.arange(1.0, output.numel() + 1).view(output.shape)
            (slopes[mode],) = torch.autograd.grad((output * weights).sum(), given)
        assert slopes["held"][others].abs().max() == 0
        assert slopes["train"][others].abs().max() > 1e-3
        for channel in range(3):
            slope = norm.weight[channel].item() if norm.affine else 1.0
            scale = slope / math.sqrt(statistics(given, channel)[1] + norm.eps)
            expected = weights[channel].double() * scale
            torch.testing.assert_close(slopes["held"][row, channel], expected, atol=1e-12, rtol=0)


def constants(net: Small, given: Tensor) -> Small:
    """The network whose normalisations count the statistics of these images as constants, one layer after the other."""
    frozen = copy.deepcopy(net).eval()
    rows = given
    for number, layer in enumerate(frozen.body):
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            found = torch.tensor([statistics(rows, channel) for channel in range(rows.shape[1])], dtype=torch.float64)
            layer.track_running_stats = True
            layer.running_mean, layer.running_var = found.T.contiguous()
        rows = frozen.body[number](rows).detach()
    return frozen


def without_dropout() -> Small:
    """Smooth, too."""
    net = Small().double().train()
    net.body[2], net.body[4] = nn.Tanh(), nn.Identity()
    return net


def slopes_of(logits: Tensor, given: Tensor) -> Tensor:
    """The norm of each row's gradient, of a score that is not linear."""
    (slope,) = torch.autograd.grad(logits.square().sum(), given, create_graph=True)
    return slope.flatten(1).norm(dim=1)


def test_first_and_second_derivatives_are_those_with_constant_statistics_in_all_layers() -> None:
    net, given = without_dropout(), images(rows=4).double()
    frozen = constants(net, given)
    first, second = given.clone().requires_grad_(), given.clone().requires_grad_()
    held = Network(net, net)(first, "held", grad=True).logits
    torch.testing.assert_close(held, net(given).logits, atol=1e-10, rtol=0)
    found, expected = slopes_of(held, first), slopes_of(frozen(second).logits, second)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
    third = given.clone().requires_grad_()
    assert (found - slopes_of(net(third).logits, third)).abs().max() > 1e-2
    found.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(first.grad, second.grad, atol=1e-9, rtol=1e-9)
    for (name, parameter), other in zip(net.named_parameters(), frozen.parameters(), strict=True):
        assert parameter.grad is not None, name
        assert name == "fc.bias" or parameter.grad.abs().max() > 1e-4, name
        torch.testing.assert_close(parameter.grad, other.grad, atol=1e-9, rtol=1e-9)


def test_a_normalisation_that_is_used_twice_is_as_before_after_a_held_pass() -> None:
    norm, given = some_norm("of images")
    norm.train()
    twice = nn.ModuleList([norm, norm])
    before = norm(given)
    Network(twice, lambda x: BackboneOutput(twice[1](twice[0](x)), x))(given, "held")
    assert "forward" not in vars(norm)
    means = norm.running_mean.clone()
    assert torch.equal(norm(given), before)
    assert (norm.running_mean - means).abs().max() > 1e-3


def test_other_normalisations_are_not_changed_by_held_statistics() -> None:
    net = nn.Sequential(nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.LayerNorm([4, 4])).double()
    given = torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    held, expected = (alone(net)(given, mode).features for mode in ("held", "eval"))
    assert torch.equal(held, expected)


def test_outputs_of_the_head_for_features_have_their_graph() -> None:
    net, features = Small(), torch.randn(3, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = Network(net, net, net.fc).classify(features)
    torch.testing.assert_close(found, features @ net.fc.weight.T + net.fc.bias)
    found.sum().backward()
    torch.testing.assert_close(features.grad, net.fc.weight.sum(0).expand(3, -1))
    assert net.fc.weight.grad.abs().max() > 0

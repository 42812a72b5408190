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

Mode = Literal["train", "eval"]
MODES: tuple[Mode, ...] = ("train", "eval")


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


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("mode", MODES)
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


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mode", MODES)
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
    assert torch.equal(network(ones, "eval").features, ones)


@pytest.mark.parametrize("ambient", [True, False])
@pytest.mark.parametrize("mode", MODES)
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


@pytest.mark.parametrize("mode", MODES)
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


@pytest.mark.parametrize("mode", MODES)
def test_without_grad_there_is_none(mode: Mode) -> None:
    net = Small()
    found = Network(net, net)(images().requires_grad_(), mode)
    assert not found.features.requires_grad
    assert not found.logits.requires_grad
    assert torch.is_grad_enabled()

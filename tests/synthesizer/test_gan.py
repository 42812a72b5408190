"""The GAN: steps against autograd and an Adam of our own, what it leaves alone, the images that it makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ood_lab
from ood_lab.config import RequestError, prepare
from ood_lab.dcgan import Discriminator, Generator
from ood_lab.network import Network
from ood_lab.synthesizer.gan import GAN
from ood_lab.types import BackboneOutput
from tests.cases import each
from tests.small_gan import BETAS, CLASSES, DROPOUT, LR, MEAN, RUN, SIDE, STD, Z, copied, draws, equal, float64, gan
from tests.views import normal

# A classifier with batch statistics and dropout.


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.dropout, self.last = nn.Dropout(DROPOUT), nn.Linear(6, CLASSES)
        for number, value in enumerate(self.parameters()):
            value.data = 0.5 * normal(*value.shape, seed=20 + number)

    def forward(self, images: Tensor) -> BackboneOutput:
        features = self.dropout(F.relu(self.norm(self.convolution(images)))).mean((2, 3))
        return BackboneOutput(features, self.last(features))


def network_of(net: nn.Module) -> Network:
    return Network(net, net)


# The reference, from the description: functions of lists of weights in the order of the layers.


def by_batch(maps: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Normalised by the statistics of these rows."""
    mean = maps.mean((0, 2, 3), keepdim=True)
    variance = ((maps - mean) ** 2).mean((0, 2, 3), keepdim=True)
    return scale[:, None, None] * (maps - mean) / (variance + 1e-5).sqrt() + shift[:, None, None]


def pictures(ours: Sequence[Tensor], noise: Tensor) -> Tensor:
    """G(z), normalised as the classifier's images."""
    maps = F.conv_transpose2d(noise[:, :, None, None], ours[0])
    for scale, shift, kernel in zip(ours[1::3], ours[2::3], ours[3::3], strict=True):
        maps = F.conv_transpose2d(F.relu(by_batch(maps, scale, shift)), kernel, stride=2, padding=1)
    raw = 1 / (1 + (-maps).exp())
    return torch.stack([(raw[:, c] - MEAN[c]) / STD[c] for c in range(3)], 1)


def realness(theirs: Sequence[Tensor], images: Tensor) -> Tensor:
    """The logit of D."""
    maps = F.leaky_relu(F.conv2d(images, theirs[0], stride=2, padding=1), 0.2)
    for kernel, scale, shift in zip(theirs[1:-1:3], theirs[2:-1:3], theirs[3:-1:3], strict=True):
        maps = F.leaky_relu(by_batch(F.conv2d(maps, kernel, stride=2, padding=1), scale, shift), 0.2)
    return F.conv2d(maps, theirs[-1]).flatten()


def entropy(logits: Tensor, label: float) -> Tensor:
    """Mean binary cross-entropy."""
    probability = 1 / (1 + (-logits).exp())
    return -(label * probability.log() + (1 - label) * (1 - probability).log()).mean()


def uncertain(net: Classifier, images: Tensor) -> Tensor:
    """mean_b (logsumexp_c f - mean_c f) of the classifier with the batch statistics of these images."""
    maps = F.conv2d(images, net.convolution.weight, net.convolution.bias, padding=1)
    maps = F.dropout(F.relu(by_batch(maps, net.norm.weight, net.norm.bias)), DROPOUT, training=True)
    logits = maps.mean((2, 3)) @ net.last.weight.T + net.last.bias
    rows = [row.exp().sum().log() - sum(row) / CLASSES for row in logits]
    return torch.stack(rows).sum() / len(rows)


def resizing(ins: int, outs: int, smooth: bool) -> Tensor:
    """Weights [outs, ins] of bilinear resizing in one direction; smooth: a tent as wide as what a pixel covers."""
    weights, ratio = torch.zeros(outs, ins, dtype=torch.float64), ins / outs
    wide = max(1.0, ratio) if smooth else 1.0
    for i in range(outs):
        centre = (i + 0.5) * ratio
        if not smooth:
            centre = min(max(centre, 0.5), ins - 0.5)  # the pixels at the edge go on
        for j in range(ins):
            weights[i, j] = max(0.0, 1 - abs(j + 0.5 - centre) / wide)
        weights[i] /= weights[i].sum()
    return weights


def resized(images: Tensor, shape: Sequence[int], smooth: bool = False) -> Tensor:
    down, across = (resizing(images.shape[2 + n], shape[n], smooth) for n in range(2))
    return torch.einsum("hi,bcij,wj->bchw", down, images, across)


class ByHand:
    """Adam (Kingma and Ba 2015), one weight tensor after the other."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.weights = [value.detach().clone().requires_grad_() for value in weights]
        self.first = [torch.zeros_like(value) for value in weights]
        self.second = [torch.zeros_like(value) for value in weights]
        self.steps = 0

    def step(self, loss: Tensor, lr: float) -> None:
        self.steps += 1
        moved = []
        for n, gradient in enumerate(torch.autograd.grad(loss, self.weights)):
            self.first[n] = BETAS[0] * self.first[n] + (1 - BETAS[0]) * gradient
            self.second[n] = BETAS[1] * self.second[n] + (1 - BETAS[1]) * gradient**2
            first = self.first[n] / (1 - BETAS[0] ** self.steps)
            second = self.second[n] / (1 - BETAS[1] ** self.steps)
            moved.append((self.weights[n] - lr * first / (second.sqrt() + 1e-8)).detach().requires_grad_())
        self.weights = moved


@each(
    ("shape", "side", "uncertainty"),
    [((8, 8), 8, 0.7), ((8, 8), 8, 0.0), ((16, 16), 16, 5.0), ((12, 10), 8, 5.0), ((6, 9), 8, 5.0)],
)
def test_steps_are_those_of_autograd_and_an_adam_of_our_own(
    shape: tuple[int, int], side: int, uncertainty: float
) -> None:
    """Three steps with different rates, and after each the images that the classifier is given."""
    source, net = gan(side=side, uncertainty=uncertainty).double(), Classifier().double()
    source.begin(*(torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in (MEAN, STD)))
    ours, theirs = (ByHand(list(part.parameters())) for part in (source.generator, source.discriminator))
    with float64():
        for number, rate in enumerate((1.0, 0.1, 0.5)):
            real, draw, own = normal(6, 3, *shape, seed=40 + number), draws(number), draws(number)
            torch.manual_seed(number)
            found = source.learn(real, network_of(net), rate, draw)
            made = source.make(4, shape, draw)
            torch.manual_seed(number)
            small = real if shape == (side, side) else resized(real, (side, side), smooth=True)
            fakes = pictures(ours.weights, torch.randn(6, Z, generator=own))
            apart = entropy(realness(theirs.weights, small), 1) + entropy(realness(theirs.weights, fakes.detach()), 0)
            theirs.step(apart, LR * rate)
            fooled = entropy(realness(theirs.weights, fakes), 1)
            doubt = uncertain(net, resized(fakes, shape))
            ours.step(fooled + uncertainty * doubt, LR * rate)
            expected = {"discriminator": apart, "generator": fooled, "uncertainty": doubt}
            assert found.keys() == expected.keys()
            for name, value in found.items():
                assert not value.requires_grad
                torch.testing.assert_close(value, expected[name].detach(), atol=1e-10, rtol=0, msg=name)
            for part, reference in ((source.generator, ours), (source.discriminator, theirs)):
                for (name, value), weight in zip(part.named_parameters(), reference.weights, strict=True):
                    torch.testing.assert_close(value.data, weight.data, atol=1e-8, rtol=0, msg=name)
            fresh = resized(pictures(ours.weights, torch.randn(4, Z, generator=own)), shape)
            torch.testing.assert_close(made, fresh.detach(), atol=1e-7, rtol=0)
            assert not made.requires_grad


def test_the_weights_move_by_what_the_reference_resolves() -> None:
    """The tolerance above is far below a step, and below what the classifier changes."""
    moves = []
    for uncertainty in (0.0, 0.7):
        source = gan(uncertainty=uncertainty)
        before = copied(source.generator)
        source.learn(torch.randn(6, 3, 8, 8, generator=draws()), network_of(Classifier().float()), 1.0, draws())
        after = source.generator.state_dict()
        moves.append(torch.cat([(after[n] - before[n]).flatten() for n, _ in source.generator.named_parameters()]))
    assert moves[0].abs().mean() > 1e-3
    assert (moves[1] - moves[0]).abs().max() > 1e-3


def test_without_uncertainty_the_classifier_does_not_matter() -> None:
    def moved(uncertainty: float, factor: float) -> dict[str, Tensor]:
        source, net = gan(uncertainty=uncertainty), Classifier().float()
        with torch.no_grad():
            net.last.weight.mul_(factor)
        source.learn(torch.randn(6, 3, 8, 8, generator=draws()), network_of(net), 1.0, draws())
        return source.state_dict()

    assert equal(moved(0.0, 1.0), moved(0.0, -3.0))
    assert not equal(moved(0.5, 1.0), moved(0.5, -3.0))


# What is left alone.


@each("training", [True, False])
def test_the_classifier_and_the_global_generator_stay_bit_for_bit(training: bool) -> None:
    source, net = gan(), Classifier().float().train(training)
    before = copied(net)
    called: list[Tensor] = []
    for value in net.parameters():
        value.register_post_accumulate_grad_hook(called.append)
    torch.manual_seed(9)
    state = torch.get_rng_state()
    for number in range(2):
        source.learn(torch.randn(6, 3, 8, 8, generator=draws()), network_of(net), 1.0, draws(number))
        source.make(3, (8, 8), draws(number))
    assert torch.equal(torch.get_rng_state(), state)
    assert equal(net.state_dict(), before)
    assert all(value.grad is None and value.requires_grad for value in net.parameters())
    assert called == []
    assert {module.training for module in net.modules()} == {training}


def test_each_network_moves_in_its_own_step_and_then_no_other_has_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    source, net, steps = gan(), Classifier().float(), []
    networks = {"discriminator": source.discriminator, "generator": source.generator}

    def watched(name: str) -> Callable[[], None]:
        step = source.optimizers[name].step

        def run() -> None:
            other = networks["generator" if name == "discriminator" else "discriminator"]
            assert all(value.grad is not None for value in networks[name].parameters())
            assert all(value.grad is None for part in (other, net) for value in part.parameters())
            before = [copied(part) for part in (networks[name], other, net)]
            step()
            now = [part.state_dict() for part in (networks[name], other, net)]
            assert [equal(*pair) for pair in zip(before, now, strict=True)] == [False, True, True]
            steps.append(name)

        return run

    for name in networks:
        monkeypatch.setattr(source.optimizers[name], "step", watched(name))
    source.learn(torch.randn(6, 3, 8, 8, generator=draws()), network_of(net), 1.0, draws())
    assert steps == ["discriminator", "generator"]
    assert all(value.grad is None for value in (*source.parameters(), *net.parameters()))


def test_the_images_that_it_is_given_stay() -> None:
    source, images = gan(), torch.randn(6, 3, 8, 8, generator=draws())
    before = images.clone()
    source.learn(images, network_of(Classifier().float()), 1.0, draws())
    assert torch.equal(images, before)
    assert images.grad is None


def test_both_networks_work_in_float32_under_mixed_precision() -> None:
    def after(mixed: bool, uncertainty: float) -> tuple[GAN, Tensor, float]:
        source = gan(uncertainty=uncertainty)
        images = torch.randn(6, 3, 8, 8, generator=draws())
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16) if mixed else nullcontext():
            found = source.learn(images, network_of(Classifier().float()), 1.0, draws())
            return source, source.make(3, (8, 8), draws()), float(found["uncertainty"])

    (plain, images, doubt), (mixed, others, again) = after(False, 0.0), after(True, 0.0)
    assert equal(plain.state_dict(), mixed.state_dict())
    assert torch.equal(images, others)
    assert others.dtype == torch.float32
    assert again == pytest.approx(doubt, rel=0.05)
    assert again != doubt, "the classifier works in its own precision"
    source, *_ = after(True, 5.0)
    assert all(value.isfinite().all() for value in source.state_dict().values())
    assert not equal(source.generator.state_dict(), mixed.generator.state_dict())


# Made images.


def test_images_are_a_function_of_the_generator_alone_and_in_the_range_of_normalised_ones() -> None:
    source = gan()
    source.begin(torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1))
    torch.manual_seed(0)
    first = source.make(7, (8, 8), draws())
    torch.manual_seed(1)
    assert torch.equal(source.make(7, (8, 8), draws()), first)
    assert not torch.equal(source.make(7, (8, 8), draws(4)), first)
    draw = draws()
    source.make(7, (8, 8), draw)
    assert not torch.equal(source.make(7, (8, 8), draw), first), "the noise is fresh"
    assert first.shape == (7, 3, 8, 8)
    assert first.dtype == torch.float32
    for c in range(3):
        assert -MEAN[c] / STD[c] < float(first[:, c].min()) < float(first[:, c].max()) < (1 - MEAN[c]) / STD[c]


@each("shape", [(4, 4), (8, 16), (20, 13), (8, 8)])
def test_images_of_another_side_are_resized_bilinearly(shape: tuple[int, int]) -> None:
    source = gan()
    made, plain = source.make(5, shape, draws()), source.make(5, (SIDE, SIDE), draws())
    assert made.shape == (5, 3, *shape)
    torch.testing.assert_close(made, resized(plain.double(), shape).float(), atol=1e-5, rtol=0)


def test_the_default_is_the_authors_network_for_32_pixels() -> None:
    """By the name of a method's recipe, too."""
    (part,) = (part for part in prepare(["method=gan"]).parts if part.group == "synthesizer")
    options = {"noise": 100, "width": 512, "side": 32, "uncertainty": 0.1, "lr": 2e-4, "betas": [0.5, 0.999]}
    assert {name: part.options[name] for name in options} == options
    source = GAN()
    assert source.noise == 100
    for made, expected in ((source.generator, Generator(100, 512, 32)), (source.discriminator, Discriminator(512, 32))):
        assert str(made) == str(expected)
    for optimizer in source.optimizers.values():
        (group,) = optimizer.param_groups
        assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (2e-4, (0.5, 0.999), 1e-8, 0)
        assert not group["amsgrad"]


# Sides.


@each("side", [8, 16, 32, 64])
def test_a_side_of_4_doubled_is_made(side: int) -> None:
    assert gan(side=side).make(2, (side, side), draws()).shape == (2, 3, side, side)


@each("side", [4, 20, 48])
def test_another_side_is_refused_by_its_option(side: int) -> None:
    with pytest.raises(RequestError, match=rf"^synthesizer\.side={side}: expected 8, 16, 32, 64"):
        gan(side=side)


def test_a_run_with_a_wrong_side_is_refused_before_it_leaves_anything(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"synthesizer\.side=20: expected 8, 16, 32, 64"):
        ood_lab.run([*RUN, "synthesizer.side=20", f"paths.output={tmp_path}"])
    assert not list(tmp_path.glob("gan-*"))


# Requests.


@each(
    ("override", "said"),
    [
        (
            "method.outlier_space=raw01",
            "synthesizer=gan makes images as the classifier takes them",
        ),
        ("trainer.auxiliary_batch_size=7", "synthesizer=gan makes as many images a step as there are ID images"),
        ("trainer.precision=16-mixed", "may vanish in float16; use bf16-mixed or 32-true"),
        ("perturbation=gaussian_noise", "synthesizer=gan gives images of its own"),
        ("auxiliary=fractals", "two sources of outliers"),
    ],
)
def test_what_made_images_can_not_do_is_refused(override: str, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        prepare([*RUN, override], look=False)


@each("override", ["method.outlier_statistics=own", "method.mean_over=all_rows", "regularizer=[gradient]"])
def test_what_is_about_outlier_images_is_about_made_ones_too(override: str) -> None:
    assert prepare([*RUN, override], look=False).makes_outlier_images


@each("betas", [(0.5,), (0.5, 0.9, 0.99)])
def test_adam_has_two_betas(betas: tuple[float, ...]) -> None:
    with pytest.raises(RequestError, match=r"synthesizer\.betas=.*: expected two numbers"):
        gan(betas=betas)

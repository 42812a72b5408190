"""The GAN beside a classifier: steps against autograd and an Adam of our own, what it leaves alone, exact resume."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import ood_lab
from ood_lab.config import RequestError, prepare
from ood_lab.dcgan import Discriminator, Generator
from ood_lab.method.base import Method
from ood_lab.network import Network
from ood_lab.optimizer import SGD
from ood_lab.runs.claim import claim
from ood_lab.runs.run_folder import RunFolder
from ood_lab.synthesizer.gan import GAN
from ood_lab.task.build import build_method
from ood_lab.task.train import _train
from ood_lab.training.checkpoint import newest
from ood_lab.training.datamodule import Normalise
from ood_lab.types import BackboneOutput, Batch
from tests.cases import each
from tests.method.test_base import WAITS, NoWaiting
from tests.small import C, at, batch, method, terms
from tests.views import normal

Z, WIDTH, SIDE, LR, BETAS = 5, 4, 8, 0.01, (0.5, 0.9)
MEAN, STD = [0.3, 0.5, 0.6], [0.2, 0.25, 0.5]
DROPOUT, CLASSES = 0.3, 3


def gan(**options: Any) -> GAN:
    torch.manual_seed(1)
    return GAN(**{"noise": Z, "width": WIDTH, "side": SIDE, "uncertainty": 0.7, "lr": LR, "betas": BETAS, **options})


def draws(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@contextmanager
def float64() -> Iterator[None]:
    """Noise is drawn in the default precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


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


# Within a method.


def classifier(
    source: GAN | None = None, *, views: int = 1, milestones: Sequence[float] = (), **options: Any
) -> Method:
    """CE + 0.1 outlier exposure on the images of a source, which has begun."""
    module = method(
        terms(cider=views == 2, outlier_loss="outlier_exposure", weight=0.1), source or gan(uncertainty=0.7), **options
    )
    module.optimizer_settings = SGD(
        lr=0.1, momentum=0.9, weight_decay=0.1, warmup=0.0, schedule="milestones", milestones=list(milestones)
    )
    return placed(module)


def placed(module: Method, step: int = 0, epoch: int = 0) -> Method:
    at(module, step, epoch, normalise=Normalise(MEAN, STD))
    trainer: Any = module._trainer
    trainer.precision_plugin = SimpleNamespace(forward_context=nullcontext)
    return module


def source_of(module: Method) -> GAN:
    assert isinstance(module.image_source, GAN)
    return module.image_source


def one_step(module: Method, data: Batch, step: int = 0) -> dict[str, Tensor]:
    module.on_train_batch_start(data, step)
    found = module.training_step(data, step)
    found["loss"].backward()
    module.on_after_backward()
    return found


def test_a_run_begins_with_the_mean_and_deviation_of_its_images() -> None:
    module = classifier()
    module.on_train_start()
    source = source_of(module)
    assert source.mean.flatten().tolist() == pytest.approx(MEAN)
    assert source.std.flatten().tolist() == pytest.approx(STD)
    raw = torch.rand(2, 3, 4, 4, generator=draws())
    torch.testing.assert_close(source.normalised(raw), Normalise(MEAN, STD)(raw))


class Watched(GAN):
    """Keeps what it was asked with and what it gave."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.asked: list[dict[str, Any]] = []
        self.gave: list[Tensor] = []

    def learn(self, images_B: Tensor, network: Network, rate: float, draw: torch.Generator) -> Mapping[str, Tensor]:
        self.asked.append({"images": images_B.clone(), "rate": rate, "state": draw.get_state()})
        return super().learn(images_B, network, rate, draw)

    def make(self, count: int, shape: Sequence[int], draw: torch.Generator) -> Tensor:
        self.gave.append(super().make(count, shape, draw))
        return self.gave[-1].clone()


def watched(**options: Any) -> Watched:
    torch.manual_seed(1)
    return Watched(noise=Z, width=WIDTH, side=SIDE, lr=LR, betas=BETAS, **options)


@each("views", [1, 2])
def test_the_classifier_trains_on_as_many_images_of_the_moved_generator(views: int) -> None:
    source, data = watched(), batch()
    module = classifier(source, views=views)
    source.begin(torch.tensor(MEAN), torch.tensor(STD))
    before = [copied(part) for part in (source.generator, source.discriminator)]
    count = len(data.labels) // views
    found = one_step(module, data)
    assert torch.equal(source.asked[0]["images"], data.images[:count]), "of two views the first"
    (made,) = source.gave
    assert len(made) == count
    draw = draws()
    draw.set_state(source.asked[0]["state"])
    torch.randn(count, Z, generator=draw)  # of the step of G and D
    assert torch.equal(GAN.make(source, count, (8, 8), draw), made), "from noise of their own"
    assert not any(map(equal, before, (source.generator.state_dict(), source.discriminator.state_dict())))
    again = classifier(watched(), views=views).train()
    logits = again(torch.cat([data.images, made])).logits.tolist()
    rows = [math.log(sum(math.exp(x) for x in row)) for row in logits]
    n = len(data.labels)
    ce = sum(rows[i] - logits[i][int(data.labels[i])] for i in range(n)) / n
    exposure = sum(rows[n + i] - sum(logits[n + i]) / C for i in range(count)) / count
    assert float(found["ce"]) == pytest.approx(ce, abs=1e-5)
    assert float(found["outlier_exposure"]) == pytest.approx(exposure, abs=1e-5)
    if views == 1:
        assert float(found["total"].detach()) == pytest.approx(ce + 0.1 * exposure, abs=1e-5)
    assert set(module.info) == {"discriminator", "generator", "uncertainty"}


def test_the_rate_is_that_of_the_classifiers_schedule() -> None:
    source = watched()
    module = classifier(source, milestones=[2, 0.55])
    settings = module.optimizer_settings.configure(module.parameter_groups(), 10, 10)
    optimizer, schedule = settings["optimizer"], settings["lr_scheduler"]["scheduler"]
    for step in range(60):
        if step in (0, 19, 20, 54, 55):
            placed(module, step % 10, step // 10)
            one_step(module, batch(), step % 10)
            peak = optimizer.param_groups[0]["lr"] / module.optimizer_settings.lr
            assert source.asked[-1]["rate"] == pytest.approx(peak)
            assert [o.param_groups[0]["lr"] for o in source.optimizers.values()] == pytest.approx([LR * peak] * 2)
        optimizer.step()
        schedule.step()
    assert [asked["rate"] for asked in source.asked] == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.01])


def test_draws_are_a_function_of_seed_epoch_and_step() -> None:
    states = []
    for step, epoch in ((0, 0), (1, 0), (0, 1), (0, 0)):
        source = watched()
        one_step(placed(classifier(source), step, epoch), batch(), step)
        states.append(source.asked[0]["state"])
    assert torch.equal(states[0], states[3])
    assert not any(torch.equal(*pair) for pair in ((states[0], states[1]), (states[0], states[2]), states[1:3]))


def test_the_classifiers_step_moves_neither_network() -> None:
    module = classifier()
    source, data = source_of(module), batch()
    assert not any(parameter.requires_grad for parameter in source.parameters()), "as devices are told before a run"
    groups = module.parameter_groups()
    listed = [parameter for group in groups for parameter in group.parameters]
    theirs = {id(parameter) for parameter in source.parameters()}
    assert len(listed) == len({id(parameter) for parameter in listed})
    assert {id(parameter) for parameter in listed} == {id(parameter) for parameter in module.parameters()} - theirs
    optimizer = module.optimizer_settings.configure(groups, 10, 10)["optimizer"]
    for step in range(2):
        one_step(module, data, step)
        before, network = copied(source), copied(module.backbone)
        assert all(parameter.grad is None for parameter in source.parameters())
        assert not any(parameter.requires_grad for parameter in source.parameters())
        optimizer.step()
        optimizer.zero_grad()
        assert equal(source.state_dict(), before)
        assert not equal(module.backbone.state_dict(), network)


def test_the_gradient_of_the_classifier_is_that_of_the_same_images_from_elsewhere() -> None:
    """Nothing of the GAN's own steps is left in it, and no batch statistics."""
    source, data = watched(), batch()
    module = classifier(source)
    one_step(module, data)
    plain = placed(method(terms(cider=False, outlier_loss="outlier_exposure", weight=0.1)))
    one_step(plain, data._replace(auxiliary=source.gave[0]))
    for (name, value), other in zip(module.backbone.named_parameters(), plain.backbone.parameters(), strict=True):
        assert value.grad is not None
        assert torch.equal(value.grad, other.grad), name
    assert equal(module.backbone.state_dict(), plain.backbone.state_dict())


def test_while_no_term_reads_outliers_nothing_learns() -> None:
    made = terms(cider=False, outlier_loss="outlier_exposure")
    made[-1].start = 5
    source = watched()
    module = placed(method(made, source))
    one_step(module, batch())
    assert (source.asked, source.gave, module.info) == ([], [], {})
    one_step(placed(module, 0, 5), batch())
    assert len(source.asked) == len(source.gave) == 1


def test_there_are_no_points_of_a_feature_space() -> None:
    assert classifier().outliers() is None


class NoWaitingButCounters(NoWaiting):
    """Adam counts its steps in tensors that stay on the host on every device; to read these waits for nothing."""

    def __init__(self, source: GAN) -> None:
        super().__init__()
        self.optimizers, self.read = source.optimizers.values(), 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ == "_local_scalar_dense":
            states = [state for optimizer in self.optimizers for state in optimizer.state.values()]
            if any(args[0] is state["step"] for state in states):
                self.read += 1
                return func(*args, **(kwargs or {}))
        return super().__torch_dispatch__(func, types, args, kwargs)


@each("side", [8, 16])
def test_nothing_in_a_step_waits_for_the_device(side: int) -> None:
    assert "_local_scalar_dense" in WAITS
    module = classifier(gan(side=side))
    data = batch()
    data = data._replace(counts=data.labels.bincount(minlength=C).numpy())
    with NoWaitingButCounters(source_of(module)) as watch:
        for step in range(3):
            one_step(module, data, step)
    weights = len(list(source_of(module).parameters()))
    assert watch.read == 3 * weights, "one counter of each weight in each step"
    assert int(module.outlier_steps) == 3


# Checkpoints.


def saved(module: Method) -> dict[str, Any]:
    """What is read of the bytes of a checkpoint."""
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    buffer.seek(0)
    read: dict[str, Any] = torch.load(buffer, weights_only=True)
    return read


def test_a_checkpoint_holds_both_networks_and_what_moves_them() -> None:
    first, second, fresh = classifier(), classifier(), classifier()
    first.on_train_start()
    for step in range(2):
        one_step(first, batch(seed=step), step)
    checkpoint = saved(first)
    resume(second, checkpoint)
    resume(fresh, {name: value for name, value in checkpoint.items() if name != "image_source"})
    for module in (first, second, fresh):
        one_step(module, batch(seed=2), 2)
    assert equal(source_of(first).state_dict(), source_of(second).state_dict())
    assert all(adam_equal(source_of(first), source_of(second)))
    assert not equal(source_of(first).state_dict(), source_of(fresh).state_dict()), "the state of Adam counts"


def resume(module: Method, checkpoint: dict[str, Any], device: str = "cpu") -> None:
    """As the trainer does it: a checkpoint is read before the module is moved to the device."""
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint["state_dict"])
    if device != "cpu":
        try:
            torch.__future__.set_swap_module_params_on_conversion(True)  # a weight stays itself, as on the way to a GPU
            module.to(device)
        finally:
            torch.__future__.set_swap_module_params_on_conversion(False)
    module.on_fit_start()
    module.on_train_start()


def adam_equal(one: GAN, other: GAN) -> Iterator[bool]:
    """Whether each number that Adam keeps is the same, of both networks."""
    assert set(one.optimizers) == set(other.optimizers)
    for name, optimizer in one.optimizers.items():
        ours, theirs = (found.state_dict() for found in (optimizer, other.optimizers[name]))
        assert ours["param_groups"] == theirs["param_groups"]
        assert ours["state"].keys() == theirs["state"].keys() == set(range(len(list(optimizer.state))))
        for number, state in ours["state"].items():
            assert state.keys() == {"step", "exp_avg", "exp_avg_sq"}
            yield equal(state, theirs["state"][number])


def test_what_moves_them_follows_a_resumed_run_to_its_device() -> None:
    first, second = classifier(), classifier()
    one_step(first, batch())
    resume(second, saved(first), "meta")
    for optimizer in source_of(second).optimizers.values():
        assert optimizer.state
        for weight, state in optimizer.state.items():
            assert weight.device == state["exp_avg"].device == state["exp_avg_sq"].device == torch.device("meta")
            assert state["step"].device == torch.device("cpu"), "which stays on the host"


# Runs.

RUN = [
    "method=gan", "backbone=narrow", "backbone.width=4", "dataset.recipe.resize=16", "dataset.recipe.side=16",
    "synthesizer.width=8", "synthesizer.side=8", "trainer.batch_size=300", "trainer.max_epochs=2", "trainer.threads=1",
    "trainer.log_every_n_steps=1",
]  # fmt: skip


def fitted(folder: Path) -> tuple[Method, list[dict[str, Any]]]:
    """Train to the end, or go on; the method and its curves."""
    experiment = claim(prepare([*RUN, "trainer.checkpoint_minutes=1e-9", f"paths.output={folder}"]))
    trained = build_method(experiment)
    _train(experiment, trained, [])
    return trained, [json.loads(line) for line in RunFolder(experiment.run_dir).curves.read_text().splitlines()]


class StoppedError(Exception):
    """The run is stopped here."""


def test_a_run_stopped_within_an_epoch_ends_in_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed, curves = fitted(tmp_path / "undisturbed")
    learn, seen = GAN.learn, []

    def stopping(self: GAN, *arguments: Any) -> Any:
        """After a step of G and D that no checkpoint has."""
        found = learn(self, *arguments)
        seen.append(found)
        if len(seen) == 5:
            raise StoppedError
        return found

    with monkeypatch.context() as patched:
        patched.setattr(GAN, "learn", stopping)
        with pytest.raises(StoppedError):
            fitted(tmp_path / "stopped")
    (checkpoints,) = (tmp_path / "stopped").glob("gan-*/checkpoints")
    found = newest(checkpoints)
    assert found is not None
    assert found.name.startswith("step000000004-"), "the first of the three steps of the second epoch"
    torch.manual_seed(12345)
    resumed, again = fitted(tmp_path / "stopped")
    assert equal(resumed.state_dict(), undisturbed.state_dict())
    assert all(adam_equal(source_of(resumed), source_of(undisturbed)))
    for optimizer in source_of(resumed).optimizers.values():
        assert {float(state["step"]) for state in optimizer.state.values()} == {6.0}
    assert again == curves
    rows = [row for row in curves if "info/generator" in row]
    assert len(rows) == 6
    assert all(math.isfinite(row[f"info/{name}"]) for row in rows for name in ("discriminator", "uncertainty"))
    assert {"image_source.generator.layers.0.weight", "image_source.mean"} <= set(undisturbed.state_dict())


def test_a_whole_run_is_scored_as_any_other(tmp_path: Path) -> None:
    more = ["scorer=[msp]", "figure=[]", "protocol.far=[gaussian_noise]", "protocol.near=[]"]
    results = ood_lab.run([*RUN, *more, "trainer.max_epochs=1", f"paths.output={tmp_path}"])
    (row, *_) = [row for row in results.rows if row["ood_set"] and row["scorer"]]
    assert (row["method"], row["scorer"], row["ood_set"]) == ("gan", "msp", "gaussian_noise")
    detector = ood_lab.load_detector(results.run_dir, "msp")
    assert detector.score([Image.new("RGB", (16, 16))]).isfinite().all()

"""BigGAN's networks: sizes, both forward passes against plain functions in float64, spectral norm and first weights."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ood_lab.biggan.networks import ClassNorm, Discriminator, Generator
from tests.cases import each
from tests.views import normal

CLASSES, WIDTH, NOISE = 3, 6, 5
State = Mapping[str, Tensor]


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """In float64, with every weight, bias and statistic drawn anew; singular vectors are three iterations old."""
    network.double()
    draw = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if not value.dtype.is_floating_point:
            continue
        values = torch.randn(value.shape, generator=draw, dtype=torch.float64)
        value.copy_(values.abs() + 0.5 if name.endswith("running_var") else values)
    state = network.state_dict()
    for name in [name for name in state if name.endswith("._v")]:
        base = name.removesuffix("0._v")
        rows, v = state[f"{base}original"].flatten(1), state[name]
        for _ in range(3):
            u = F.normalize(rows @ v, dim=0)
            v = F.normalize(u @ rows, dim=0)
        state[f"{base}0._u"].copy_(u)
        state[name].copy_(v)
    return network


def state_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def normed(state: State, layer: str, training: bool) -> Tensor:
    """W / (u W v); in training u and v are moved first, from the v that is stored."""
    weight = state[f"{layer}.parametrizations.weight.original"]
    rows = weight.reshape(weight.shape[0], -1)
    u, v = (state[f"{layer}.parametrizations.weight.0.{name}"] for name in ("_u", "_v"))
    if training:
        u = rows @ v
        u = u / u.norm()
        v = u @ rows
        v = v / v.norm()
    return weight / (u @ rows @ v)


def conv(state: State, layer: str, training: bool, x: Tensor) -> Tensor:
    weight = normed(state, layer, training)
    return F.conv2d(x, weight, state[f"{layer}.bias"], padding=(weight.shape[-1] - 1) // 2)


def standard(state: State, norm: str, training: bool, x: Tensor) -> Tensor:
    """(x - mean) / sqrt(var + 1e-5), the statistics those of the batch in training."""
    if training:
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    else:
        mean, var = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
    return (x - mean.view(1, -1, 1, 1)) / (var.view(1, -1, 1, 1) + 1e-5).sqrt()


def class_normed(state: State, norm: str, training: bool, x: Tensor, labels: Tensor) -> Tensor:
    gain, bias = (state[f"{norm}.{name}.weight"][labels][:, :, None, None] for name in ("gain", "bias"))
    return (1 + gain) * standard(state, f"{norm}.norm", training, x) + bias


def doubled(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def halved(x: Tensor) -> Tensor:
    return (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4


def naive_generator(state: State, noise: Tensor, labels: Tensor, training: bool) -> Tensor:
    x = noise @ normed(state, "linear", training).T + state["linear.bias"]
    x = x.reshape(len(noise), -1, 4, 4)
    for b in ("blocks.0", "blocks.1", "blocks.2"):
        out = doubled(class_normed(state, f"{b}.norm1", training, x, labels).clamp(min=0))
        out = conv(state, f"{b}.conv1", training, out)
        out = class_normed(state, f"{b}.norm2", training, out, labels).clamp(min=0)
        x = conv(state, f"{b}.conv2", training, out) + conv(state, f"{b}.shortcut", training, doubled(x))
    gain, bias = (state[f"norm.{name}"].view(1, -1, 1, 1) for name in ("weight", "bias"))
    x = (gain * standard(state, "norm", training, x) + bias).clamp(min=0)
    return conv(state, "conv", training, x).tanh()


def naive_discriminator(state: State, images: Tensor, labels: Tensor, training: bool) -> Tensor:
    def two(block: str, x: Tensor) -> Tensor:
        return conv(state, f"{block}.conv2", training, conv(state, f"{block}.conv1", training, x).clamp(min=0))

    x = halved(two("blocks.0", images)) + conv(state, "blocks.0.shortcut", training, halved(images))
    x = halved(two("blocks.1", x.clamp(min=0))) + halved(conv(state, "blocks.1.shortcut", training, x))
    for block in ("blocks.2", "blocks.3"):
        x = two(block, x.clamp(min=0)) + x
    features = x.clamp(min=0).flatten(2).sum(2)
    linear, table = normed(state, "linear", training)[0], normed(state, "embedding", training)
    return features @ linear + state["linear.bias"] + (table[labels] * features).sum(1)


@each(("classes", "of_generator", "of_discriminator"), [(10, 4_304_387, 4_207_361), (100, 4_580_867, 4_230_401)])
def test_they_have_as_many_parameters_as_the_public_code(
    classes: int, of_generator: int, of_discriminator: int
) -> None:
    networks = Generator(classes, width=256, noise=128), Discriminator(classes, width=256)
    assert [sum(p.numel() for p in n.parameters()) for n in networks] == [of_generator, of_discriminator]


@each("training", [True, False])
@each("rows", [1, 7])
def test_the_generator_matches_plain_functions(rows: int, training: bool) -> None:
    network = randomised(Generator(CLASSES, WIDTH, NOISE)).train(training)
    noise, labels = normal(rows, NOISE, seed=1), torch.arange(rows) * 2 % CLASSES
    expected = naive_generator(state_of(network), noise, labels, training)
    found = network(noise, labels)
    assert found.shape == (rows, 3, 32, 32)
    assert expected.abs().mean() < 0.98, "images without any detail would tell nothing"
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)


@each("training", [True, False])
@each("rows", [1, 7])
def test_the_discriminator_matches_plain_functions(rows: int, training: bool) -> None:
    network = randomised(Discriminator(CLASSES, WIDTH)).train(training)
    images, labels = normal(rows, 3, 32, 32, seed=1), torch.arange(rows) * 2 % CLASSES
    expected = naive_discriminator(state_of(network), images, labels, training)
    found = network(images, labels)
    assert found.shape == (rows,)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)


def test_a_score_does_not_depend_on_the_other_images() -> None:
    network = randomised(Discriminator(CLASSES, WIDTH)).eval()
    images, labels = normal(4, 3, 32, 32), torch.tensor([0, 1, 2, 1])
    alone = torch.cat([network(images[i : i + 1], labels[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(network(images, labels), alone, atol=1e-10, rtol=1e-10)


def test_a_pass_in_training_moves_the_singular_vectors_once_and_one_in_evaluation_leaves_them() -> None:
    """Passes are counted by the vectors of a layer: after n of them they are those of n power iterations."""
    network = randomised(Discriminator(CLASSES, WIDTH))
    images, labels = normal(2, 3, 32, 32), torch.tensor([0, 2])
    for layer in ("blocks.0.conv1", "blocks.3.conv2", "linear", "embedding"):
        parametrised = network.get_submodule(f"{layer}.parametrizations.weight")
        rows, v = parametrised.original.detach().flatten(1), parametrised[0]._v.clone()
        for training in (True, False, True, False, True):
            network.train(training)(images, labels)
            if training:
                u = F.normalize(rows @ v, dim=0)
                v = F.normalize(u @ rows, dim=0)
            torch.testing.assert_close(parametrised[0]._u, u, msg=layer)
            torch.testing.assert_close(parametrised[0]._v, v, msg=layer)


def test_after_many_passes_every_normed_weight_has_the_largest_singular_value_1() -> None:
    layers = 0
    for network in (randomised(Generator(CLASSES, WIDTH, NOISE)), randomised(Discriminator(CLASSES, WIDTH))):
        for name, module in network.named_modules():
            if not hasattr(module, "parametrizations"):
                assert not isinstance(module, nn.Conv2d | nn.Linear), f"{name} is not normed"
                continue
            for _ in range(300):
                weight = module.weight
            layers += 1
            assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-3), name
    assert layers == (1 + 3 * 3 + 1) + (4 * 2 + 2 + 2)


@each("layer", ["linear", "embedding", "blocks.1.conv2", "blocks.0.shortcut"])
def test_the_gradient_goes_through_the_singular_value_but_not_through_its_vectors(layer: str) -> None:
    """Of <g, W / sigma>, sigma = u W v with fixed u and v: g / sigma - <g, W> u v' / sigma^2."""
    module = randomised(Discriminator(CLASSES, WIDTH)).get_submodule(layer)
    towards = normal(*module.weight.shape, seed=2)
    (module.weight * towards).sum().backward()
    original, vectors = module.parametrizations.weight.original, module.parametrizations.weight[0]
    weight, u, v = original.detach(), vectors._u, vectors._v
    sigma = u @ weight.flatten(1) @ v
    expected = towards / sigma - (towards * weight).sum() / sigma**2 * torch.outer(u, v).view_as(weight)
    torch.testing.assert_close(original.grad, expected, atol=1e-10, rtol=1e-10)
    assert not u.requires_grad
    assert not v.requires_grad


def test_a_score_can_go_backward_through_two_passes() -> None:
    """Real and made images may be scored one after the other, the vectors moving between."""
    network = randomised(Discriminator(CLASSES, WIDTH))
    images, labels = normal(4, 3, 32, 32), torch.tensor([0, 1, 2, 1])
    (network(images[:2], labels[:2]).sum() - network(images[2:], labels[2:]).sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_the_class_norm_has_a_gain_and_a_bias_for_each_class() -> None:
    norm = ClassNorm(2, classes=3).double().train()
    gain, bias = normal(3, 2, seed=1), normal(3, 2, seed=2)
    norm.gain.weight.data.copy_(gain)
    norm.bias.weight.data.copy_(bias)
    x, labels = 3 + 2 * normal(4, 2, 3, 3), torch.tensor([2, 0, 2, 1])
    found = norm(x, labels)
    for channel in range(2):
        values = x[:, channel].flatten().tolist()
        mean = sum(values) / len(values)
        squares = sum((value - mean) ** 2 for value in values)
        for row, label in enumerate(labels.tolist()):
            flat = (x[row, channel] - mean) / (squares / len(values) + 1e-5) ** 0.5
            expected = (1 + gain[label, channel]) * flat + bias[label, channel]
            torch.testing.assert_close(found[row, channel], expected)
        assert norm.norm.running_mean[channel].item() == pytest.approx(0.1 * mean)
        assert norm.norm.running_var[channel].item() == pytest.approx(0.9 + 0.1 * squares / (len(values) - 1))


@each("make", [lambda: Generator(10, 64, 64), lambda: Discriminator(10, 64)])
def test_first_weights_are_normal_with_deviation_002(make: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network = make()
    seen = 0
    for name, module in network.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
            continue
        parametrised = getattr(module, "parametrizations", None)
        weight = (module.weight if parametrised is None else parametrised.weight.original).detach()
        within = 4 / weight.numel() ** 0.5
        assert abs(weight.mean().item()) < 0.02 * within, name
        assert weight.std().item() == pytest.approx(0.02, rel=within), name
        assert (weight.abs() > 0.04).float().mean().item() == pytest.approx(0.0455, abs=within), name
        bias = getattr(module, "bias", None)
        if isinstance(bias, nn.Parameter):
            bound = weight[0].numel() ** -0.5
            assert bias.detach().abs().max() <= bound, name
            assert bias.detach().abs().max() > bound / 4 or bias.numel() == 1, name
        seen += 1
    assert seen == (11 + 12 if isinstance(network, Generator) else 12)


def test_at_first_norms_change_nothing_on_average() -> None:
    network = Generator(10, 64, 16)
    assert torch.equal(network.norm.weight, torch.ones(64))
    assert torch.equal(network.norm.bias, torch.zeros(64))
    for name, value in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            assert torch.equal(value, torch.full((64,), float(name.endswith("var")))), name

"""DCGAN's networks: their layers as the description has them, passes against loops, sizes and first weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ood_lab.dcgan import Discriminator, Generator, doublings
from tests.cases import each
from tests.views import normal

# Of the layers' weights: (inputs, outputs, kernel, stride, padding), and channels of a batch normalisation.
GENERATORS = {
    32: [(100, 512, 4, 1, 0), 512, (512, 256, 4, 2, 1), 256, (256, 128, 4, 2, 1), 128, (128, 3, 4, 2, 1)],
    64: [
        (100, 512, 4, 1, 0), 512, (512, 256, 4, 2, 1), 256, (256, 128, 4, 2, 1), 128, (128, 64, 4, 2, 1), 64,
        (64, 3, 4, 2, 1),
    ],
}  # fmt: skip
DISCRIMINATORS = {
    32: [(3, 128, 4, 2, 1), (128, 256, 4, 2, 1), 256, (256, 512, 4, 2, 1), 512, (512, 1, 4, 1, 0)],
    64: [
        (3, 64, 4, 2, 1), (64, 128, 4, 2, 1), 128, (128, 256, 4, 2, 1), 256, (256, 512, 4, 2, 1), 512,
        (512, 1, 4, 1, 0),
    ],
}  # fmt: skip


def described(network: nn.Module) -> list:
    """Its convolutions and normalisations in order."""
    found: list = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            assert module.bias is None
            sizes = module.kernel_size, module.stride, module.padding
            assert all(size[0] == size[1] for size in sizes)
            found.append((module.in_channels, module.out_channels, *(int(size[0]) for size in sizes)))
        elif isinstance(module, nn.BatchNorm2d):
            found.append(module.num_features)
    return found


def count(layers: list) -> int:
    """Parameters, by hand: no biases but those of the normalisations."""
    return sum(2 * layer if isinstance(layer, int) else layer[0] * layer[1] * layer[2] ** 2 for layer in layers)


def parameters(network: nn.Module) -> int:
    return sum(value.numel() for value in network.parameters())


def of_kind(network: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, kind)]


# Naive passes on nested indices.


def convolved(images: Tensor, kernel: Tensor, stride: int, padding: int) -> Tensor:
    """out[o, i, j] = sum_c,k,l w[o, c, k, l] x[c, i s - p + k, j s - p + l]."""
    rows, ins, height, width = images.shape
    size = (height + 2 * padding - 4) // stride + 1
    out = torch.zeros(rows, len(kernel), size, size, dtype=images.dtype)
    for i in range(size):
        for j in range(size):
            for k in range(4):
                for m in range(4):
                    y, x = i * stride - padding + k, j * stride - padding + m
                    if 0 <= y < height and 0 <= x < width:
                        for c in range(ins):
                            out[:, :, i, j] += images[:, c, y, x, None] * kernel[:, c, k, m]
    return out


def spread(images: Tensor, kernel: Tensor, stride: int, padding: int) -> Tensor:
    """The transposed one: each pixel adds its kernel around the place i s - p, j s - p; w is [inputs, outputs, ..]."""
    rows, ins, height, width = images.shape
    size = (height - 1) * stride - 2 * padding + 4
    out = torch.zeros(rows, kernel.shape[1], size, size, dtype=images.dtype)
    for i in range(height):
        for j in range(width):
            for k in range(4):
                for m in range(4):
                    y, x = i * stride - padding + k, j * stride - padding + m
                    if 0 <= y < size and 0 <= x < size:
                        for c in range(ins):
                            out[:, :, y, x] += images[:, c, i, j, None] * kernel[c, :, k, m]
    return out


def standardised(images: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """By mean and biased variance of each channel in this batch."""
    out = torch.empty_like(images)
    for c in range(images.shape[1]):
        values = images[:, c].flatten().tolist()
        mean = sum(values) / len(values)
        variance = sum((v - mean) ** 2 for v in values) / len(values)
        out[:, c] = scale[c] * (images[:, c] - mean) / math.sqrt(variance + 1e-5) + shift[c]
    return out


def stirred(network: nn.Module) -> list[Tensor]:
    """Its parameters, far from what they begin with."""
    for number, value in enumerate(network.parameters()):
        value.data = 0.6 * normal(*value.shape, seed=number) + (1 if value.dim() == 1 else 0)
    return [value.detach() for value in network.parameters()]


@each("side", [8, 16])
def test_a_generator_passes_as_in_loops(side: int) -> None:
    network = Generator(3, 4, side).double()
    first, *rest = stirred(network)
    noise = normal(3, 3, seed=50)
    maps = spread(noise[:, :, None, None], first, stride=1, padding=0)
    assert maps.shape[-1] == 4
    for scale, shift, kernel in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        maps = spread(standardised(maps, scale, shift).clamp(min=0), kernel, stride=2, padding=1)
    expected = 1 / (1 + (-maps).exp())
    assert expected.std() > 0.1
    torch.testing.assert_close(network(noise), expected, atol=1e-10, rtol=0)


@each("side", [8, 16])
def test_a_discriminator_passes_as_in_loops(side: int) -> None:
    network = Discriminator(4, side).double()
    first, *rest, last = stirred(network)
    images = normal(3, 3, side, side, seed=50)

    def leaky(maps: Tensor) -> Tensor:
        return maps.clamp(min=0) + 0.2 * maps.clamp(max=0)

    maps = leaky(convolved(images, first, stride=2, padding=1))
    for kernel, scale, shift in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        maps = leaky(standardised(convolved(maps, kernel, stride=2, padding=1), scale, shift))
    expected = convolved(maps, last, stride=1, padding=0)[:, 0, 0, 0]
    assert expected.std() > 0.1
    torch.testing.assert_close(network(images), expected, atol=1e-10, rtol=0)


@each("side", [32, 64])
def test_layers_and_parameter_counts_are_those_of_the_description(side: int) -> None:
    ours, theirs = Generator(100, 512, side), Discriminator(512, side)
    assert described(ours) == GENERATORS[side]
    assert described(theirs) == DISCRIMINATORS[side]
    assert parameters(ours) == count(GENERATORS[side])
    assert parameters(theirs) == count(DISCRIMINATORS[side])
    assert len(of_kind(ours, nn.ReLU)) == len(of_kind(ours, nn.BatchNorm2d)) == len(GENERATORS[side]) // 2
    assert len(of_kind(ours, nn.Sigmoid)) == 1
    slopes = [module.negative_slope for module in of_kind(theirs, nn.LeakyReLU)]
    assert slopes == [0.2] * (len(DISCRIMINATORS[side]) // 2)
    assert not of_kind(theirs, nn.Sigmoid), "it gives logits"


def test_the_counts_at_32_pixels_by_number() -> None:
    assert parameters(Generator(100, 512, 32)) == 3_448_576
    assert parameters(Discriminator(512, 32)) == 2_637_312


@each("side", [8, 16, 32, 64, 128])
def test_images_have_the_side_values_between_0_and_1_and_one_logit_each(side: int) -> None:
    noise = torch.randn(2, 5)
    images = Generator(5, 8, side)(noise)
    assert images.shape == (2, 3, side, side)
    assert 0 < float(images.detach().min()) < float(images.detach().max()) < 1
    logits = Discriminator(8, side)(images)
    assert logits.shape == (2,)
    assert Discriminator(8, side)(images[:1]).shape == (1,)


@each(("side", "times"), [(8, 1), (16, 2), (32, 3), (64, 4), (128, 5), (256, 6)])
def test_sides_are_4_doubled(side: int, times: int) -> None:
    assert doublings(side) == times
    for network in (Generator(1, 1, side), Discriminator(1, side)):
        assert {layer.num_features for layer in of_kind(network, nn.BatchNorm2d)} <= {1}, "never fewer than a channel"


@each("side", [-8, 0, 1, 2, 4, 5, 7, 12, 20, 24, 31, 33, 48, 96])
def test_other_sides_are_refused_with_their_number(side: int) -> None:
    with pytest.raises(ValueError, match=rf"^side={side}: expected 8, 16, 32"):
        doublings(side)
    for made in (lambda: Generator(1, 1, side), lambda: Discriminator(1, side)):
        with pytest.raises(ValueError, match=rf"^side={side}:"):
            made()


def test_first_weights_have_the_moments_of_dcgan() -> None:
    torch.manual_seed(0)
    scales = []
    for network in (Generator(100, 256, 32), Discriminator(256, 32)):
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                weight, places = module.weight.detach().double(), module.weight.numel()
                assert abs(weight.mean()) < 5 * 0.02 / math.sqrt(places)
                assert abs(weight.std() / 0.02 - 1) < 5 / math.sqrt(2 * places)
                assert abs((weight / 0.02).pow(4).mean() - 3) < 5 * math.sqrt(96 / places), "as of a normal"
            elif isinstance(module, nn.BatchNorm2d):
                scales.append(module.weight.detach().double())
                assert not module.bias.any()
                statistics = module.state_dict()
                assert not statistics["running_mean"].any()
                assert torch.equal(statistics["running_var"], torch.ones(module.num_features))
    scale = torch.cat(scales)
    assert len(scale) == 256 + 128 + 64 + 128 + 256
    assert abs(scale.mean() - 1) < 5 * 0.02 / math.sqrt(len(scale))
    assert abs(scale.std() / 0.02 - 1) < 5 / math.sqrt(2 * len(scale))


def test_first_weights_are_drawn_from_the_global_generator() -> None:
    def weights(seed: int) -> Tensor:
        torch.manual_seed(seed)
        networks = Generator(5, 8, 16), Discriminator(8, 16)
        return torch.cat([value.detach().flatten() for network in networks for value in network.parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))

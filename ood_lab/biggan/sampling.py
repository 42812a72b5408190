"""Images of a trained BigGAN, ours or a released one, by number: a function of the number and the seed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from ood_lab.biggan.networks import BOTTOM, SIGMA_EPSILON, Generator
from ood_lab.errors import RunError
from ood_lab.random import generator as seeded
from ood_lab.training.weights import keeps_order, read_weights

Statistics = Literal["batch", "running"]
WEIGHT, U, V = "parametrizations.weight.original", "parametrizations.weight.0._u", "parametrizations.weight.0._v"
# Names of the public PyTorch code to ours; what is not renamed has one name in both.
RELEASED = (
    (r"^output_layer\.0\.gain$", "norm.weight"),
    (r"^output_layer\.0\.", "norm."),
    (r"^output_layer\.2\.", "conv."),
    (r"^blocks\.(\d+)\.0\.bn(\d)\.stored_", r"blocks.\1.norm\2.norm.stored_"),
    (r"^blocks\.(\d+)\.0\.bn(\d)\.", r"blocks.\1.norm\2."),
    (r"^blocks\.(\d+)\.0\.conv_sc\.", r"blocks.\1.shortcut."),
    (r"^blocks\.(\d+)\.0\.", r"blocks.\1."),
    (r"stored_mean$", "running_mean"),
    (r"stored_var$", "running_var"),
)


def load_generator(path: Path, key: str | None = None) -> tuple[Generator, tuple[str, ...] | None]:
    """A trained generator in evaluation mode, its weights divided by their singular values, and its classes' names.

    Width, noise and number of classes follow from the shapes. Files of the public code (`G_ema.pth`, 32x32, without
    shared embedding or hierarchical noise) are read by their names; these have no class names.

    Args:
        key: where the network lies in a file that holds several.

    Raises:
        RequestError: no checkpoint of tensors.
        RunError: not such a generator; the tensor that is missing, unknown or of another shape is named.
    """
    found = read_weights(path, key=key, option="producer.key")
    if shared := next((name for name in found if name.startswith("shared.")), None):
        raise RunError(f"{path}: {shared} is a shared embedding, which the CIFAR generators don't have; choose another")
    if any(name.startswith("output_layer.") for name in found):
        found = _renamed(found)
    linear, gain = found.get(f"linear.{WEIGHT}"), found.get("blocks.0.norm1.gain.weight")
    if linear is None or gain is None or linear.dim() != 2 or gain.dim() != 2:
        names = ", ".join(list(found)[:4])
        raise RunError(f"{path} holds no BigGAN generator of 32x32 images: it begins with {names}. Choose another file")
    network = Generator(len(gain), gain.shape[1], linear.shape[1])
    ours = network.state_dict()
    counted = {name for name in ours if name.endswith("num_batches_tracked")}
    for name, value in ours.items():
        if name in found and found[name].shape != value.shape:
            raise RunError(
                f"{path}: {name} has the shape {tuple(found[name].shape)}, a generator of {network.width} channels "
                f"{tuple(value.shape)}. Only 32x32 generators of one width, from {BOTTOM}x{BOTTOM} pixels, can be read"
            )
    found |= _singular_vectors(found)
    if missing := sorted(set(ours) - set(found) - counted):
        raise RunError(f"{path}: {missing[0]} is missing; the file holds no whole generator")
    if unknown := sorted(set(found) - set(ours)):
        raise RunError(f"{path}: {unknown[0]} is no part of a 32x32 generator without attention or shared embedding")
    network.load_state_dict({name: found.get(name, ours[name]) for name in ours})
    network.eval()
    for module in network.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    return network.requires_grad_(False), _class_names(path)


def _renamed(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the public code under our names; singular values, which it logs, are left out."""
    named: dict[str, Tensor] = {}
    normed = {name.removesuffix(".u0") for name in released if name.endswith(".u0")}
    for name, value in released.items():
        layer, _, kind = name.rpartition(".")
        if kind == "sv0":
            continue
        ours = name
        for pattern, replacement in RELEASED:
            ours = re.sub(pattern, replacement, ours)
        if layer in normed and kind == "u0":
            ours, value = f"{ours.removesuffix('.u0')}.{U}", value.flatten()
        elif layer in normed and kind == "weight":
            ours = f"{ours.removesuffix('.weight')}.{WEIGHT}"
        named[ours] = value
    return named


def _singular_vectors(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of each weight those that one power iteration gives, from the stored left one.

    The public code makes it in every pass, also when it samples. What is stored is an average of vectors, and shorter
    than 1: as it is it would make the weights too large.
    """
    vectors: dict[str, Tensor] = {}
    for name, u in found.items():
        if name.endswith(U) and (weight := found.get(f"{name.removesuffix(U)}{WEIGHT}")) is not None:
            rows = weight.flatten(1)
            v = F.normalize(u @ rows, dim=0, eps=SIGMA_EPSILON)
            vectors |= {name: F.normalize(rows @ v, dim=0, eps=SIGMA_EPSILON), f"{name.removesuffix(U)}{V}": v}
    return vectors


def _class_names(path: Path) -> tuple[str, ...] | None:
    """Those that training wrote into the file."""
    if keeps_order(path):
        return None
    with safe_open(path, "pt") as file:
        stated = (file.metadata() or {}).get("classes")
    return None if stated is None else tuple(json.loads(stated))


@torch.no_grad()
def block(network: Generator, number: int, size: int, *, seed: int, z_std: float, statistics: Statistics) -> Tensor:
    """The images `number * size ..` as uint8 [size, 3, 32, 32]; image i is of class i modulo the number of classes.

    With statistics of the batch, images depend on the others of their block; so that a block is always made whole.
    Values are cut, not rounded: 255 (x + 1) / 2, as in the public code.

    Args:
        z_std: standard deviation of the noise; 1 in training.
        statistics: batch normalisation by those of the "batch", as the public sampling script has it, or by the
            "running" ones of training.

    Raises:
        RunError: all images of the block are the same one, or hold numbers that are not finite.
    """
    device = next(network.parameters()).device
    noise = torch.randn(size, network.noise, generator=seeded(seed, "images", number)) * z_std
    labels = torch.arange(number * size, (number + 1) * size) % network.classes
    with _normalising_by(network, statistics):
        images = network(noise.to(device), labels.to(device))
    if not images.isfinite().all():
        raise RunError("the generator gives numbers that are not finite; train it again, with another seed or rate")
    pixels = ((images + 1) * 127.5).clamp_(0, 255).to(torch.uint8).cpu()
    if size > 1 and bool((pixels == pixels[:1]).all()):
        raise RunError(
            "the generator gives the same picture for every noise and class: it is not trained, or has collapsed. "
            "Train it longer, or with another seed"
        )
    return pixels


@contextmanager
def _normalising_by(network: nn.Module, statistics: Statistics) -> Iterator[None]:
    """Within it, batch normalisation takes these statistics, and none of them changes."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)] if statistics == "batch" else []
    before = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.train()
            norm.momentum = 0.0  # running statistics stay as they are
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.eval()
            norm.momentum = momentum

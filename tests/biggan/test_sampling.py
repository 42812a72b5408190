"""Images of a generator: files of the public code and of ours, both kinds of statistics, and what decides an image."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from ood_lab.biggan.networks import Generator
from ood_lab.biggan.sampling import Statistics, block, load_generator
from ood_lab.errors import OodLabError, RunError
from ood_lab.random import generator as seeded
from tests.cases import each

CLASSES, WIDTH, NOISE, SIZE = 3, 6, 5, 8
EITHER: tuple[Statistics, ...] = ("batch", "running")
State = dict[str, Tensor]


def released() -> State:
    """What the public code saves of a 32x32 generator, with random numbers."""
    shapes: dict[str, tuple[int, ...]] = {}

    def normed(layer: str, *shape: int) -> None:
        shapes.update({f"{layer}.weight": shape, f"{layer}.bias": shape[:1]})
        shapes.update({f"{layer}.u0": (1, shape[0]), f"{layer}.sv0": (1,)})

    def statistics(norm: str) -> None:
        shapes.update({f"{norm}.stored_mean": (WIDTH,), f"{norm}.stored_var": (WIDTH,)})

    normed("linear", 16 * WIDTH, NOISE)
    for part in ("blocks.0.0", "blocks.1.0", "blocks.2.0"):
        for layer, side in (("conv1", 3), ("conv2", 3), ("conv_sc", 1)):
            normed(f"{part}.{layer}", WIDTH, WIDTH, side, side)
        for norm in ("bn1", "bn2"):
            statistics(f"{part}.{norm}")
            for table in ("gain", "bias"):
                shapes[f"{part}.{norm}.{table}.weight"] = (CLASSES, WIDTH)
    statistics("output_layer.0")
    shapes.update({"output_layer.0.gain": (WIDTH,), "output_layer.0.bias": (WIDTH,)})
    normed("output_layer.2", 3, WIDTH, 3, 3)
    draw = torch.Generator().manual_seed(0)
    state = {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    for name, value in state.items():
        if name.endswith("stored_var"):
            state[name] = value.abs() + 0.5
        elif name.endswith(".u0"):  # two iterations old
            rows = state[name.replace("u0", "weight")].flatten(1)
            for _ in range(2):
                value = F.normalize(F.normalize(value @ rows) @ rows.T)
            state[name] = value
    state["output_layer.0.gain"] *= 0.3
    return state


def saved(folder: Path, state: Any, name: str = "G_ema.pth") -> Path:
    torch.save(state, folder / name)
    return folder / name


def public_images(state: State, noise: Tensor, labels: Tensor, statistics: Statistics) -> Tensor:
    """The public code's forward pass in float64; one power iteration from u0 gives the singular values."""
    state = {name: value.double() for name, value in state.items()}
    noise = noise.double()

    def normed(layer: str) -> Tensor:
        weight, u = state[f"{layer}.weight"], state[f"{layer}.u0"]
        rows = weight.reshape(len(weight), -1)
        v = u @ rows
        v = v / v.norm()
        u = v @ rows.T
        u = u / u.norm()
        return weight / (v @ rows.T @ u.T).squeeze()

    def conv(layer: str, x: Tensor) -> Tensor:
        weight = normed(layer)
        return F.conv2d(x, weight, state[f"{layer}.bias"], padding=weight.shape[-1] // 2)

    def norm(layer: str, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        if statistics == "batch":
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        else:
            mean, var = state[f"{layer}.stored_mean"], state[f"{layer}.stored_var"]
        flat = (x - mean.view(1, -1, 1, 1)) / (var.view(1, -1, 1, 1) + 1e-5).sqrt()
        return flat * gain[:, :, None, None] + bias[:, :, None, None]

    def of_class(layer: str, x: Tensor) -> Tensor:
        return norm(layer, x, 1 + state[f"{layer}.gain.weight"][labels], state[f"{layer}.bias.weight"][labels])

    def doubled(x: Tensor) -> Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    x = (noise @ normed("linear").T + state["linear.bias"]).reshape(len(noise), -1, 4, 4)
    for part in ("blocks.0.0", "blocks.1.0", "blocks.2.0"):
        out = conv(f"{part}.conv1", doubled(of_class(f"{part}.bn1", x).relu()))
        x = conv(f"{part}.conv2", of_class(f"{part}.bn2", out).relu()) + conv(f"{part}.conv_sc", doubled(x))
    x = norm("output_layer.0", x, state["output_layer.0.gain"][None], state["output_layer.0.bias"][None])
    return conv("output_layer.2", x.relu()).tanh()


def noise_of(number: int, seed: int, size: int = SIZE) -> Tensor:
    return torch.randn(size, NOISE, generator=seeded(seed, "images", number))


def assert_cut(pixels: Tensor, images: Tensor) -> None:
    """Pixels are the whole part of 255 (x + 1) / 2; of what is computed in float32, within a hundredth."""
    exact = 255 * (images.double() + 1) / 2
    assert pixels.dtype == torch.uint8
    assert pixels.shape == images.shape
    assert (pixels <= exact + 0.01).all()
    assert (pixels > exact - 1.01).all()
    assert 10 < exact.std() < 120, "images without any detail would tell nothing"


def made(network: Generator, number: int = 0, **options: Any) -> Tensor:
    asked: dict[str, Any] = {"seed": 4, "z_std": 1.0, "statistics": "running", **options}
    return block(network, number, SIZE, **asked)


@each("statistics", EITHER)
@each(("number", "z_std"), [(0, 1.0), (2, 2.0), (5, 0.5)])
def test_images_of_released_weights_are_those_of_the_public_code(
    number: int, z_std: float, statistics: Statistics, tmp_path: Path
) -> None:
    state = released()
    network, names = load_generator(saved(tmp_path, state))
    assert names is None
    assert (network.classes, network.width, network.noise) == (CLASSES, WIDTH, NOISE)
    labels = torch.tensor([i % CLASSES for i in range(number * SIZE, number * SIZE + SIZE)])
    expected = public_images(state, z_std * noise_of(number, seed=4), labels, statistics)
    assert_cut(made(network, number, z_std=z_std, statistics=statistics), expected)


def test_a_loaded_network_is_fixed_and_gives_the_values_of_the_public_code(tmp_path: Path) -> None:
    state = released()
    network, _ = load_generator(saved(tmp_path, state))
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    noise, labels = noise_of(0, 0), torch.arange(SIZE) % CLASSES
    expected = public_images(state, noise, labels, "running")
    for _ in range(2):
        torch.testing.assert_close(network(noise, labels).double(), expected, atol=1e-4, rtol=1e-3)


@each(
    ("wrap", "key"),
    [
        (lambda state: {"state_dict": state, "epoch": 3}, None),
        (lambda state: {"module." + name: value for name, value in state.items()}, None),
        (lambda state: {"G": {n: v + 1 for n, v in state.items()}, "G_ema": state}, "G_ema"),
        (lambda state: {"state_dict": {"G_ema." + n: v for n, v in state.items()}}, "G_ema"),
    ],
)
def test_a_generator_is_found_below_a_key(wrap: Callable[[State], Any], key: str | None, tmp_path: Path) -> None:
    plain, _ = load_generator(saved(tmp_path, released(), "plain.pth"))
    below, _ = load_generator(saved(tmp_path, wrap(released())), key)
    assert torch.equal(made(plain), made(below))


@each("classes", [None, ("cat", "dog", "bird")])
def test_a_generator_that_training_wrote_is_read_with_the_names_of_its_classes(
    classes: tuple[str, ...] | None, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = Generator(CLASSES, WIDTH, NOISE)
    for module in network.modules():
        for _ in range(300 * hasattr(module, "parametrizations")):
            _ = module.weight  # moves the singular vectors
    network(torch.randn(SIZE, NOISE), torch.arange(SIZE) % CLASSES)
    network.eval()
    metadata = None if classes is None else {"classes": json.dumps(classes)}
    save_file(network.state_dict(), tmp_path / "final.safetensors", metadata)
    read, names = load_generator(tmp_path / "final.safetensors")
    assert names == classes
    noise, labels = noise_of(0, 0), torch.arange(SIZE) % CLASSES
    torch.testing.assert_close(read(noise, labels), network(noise, labels), atol=1e-4, rtol=1e-3)


def without(name: str) -> Callable[[State], State]:
    return lambda state: {n: v for n, v in state.items() if n != name}


def having(name: str, *shape: int) -> Callable[[State], State]:
    return lambda state: {**state, name: torch.ones(shape)}


@each(
    ("change", "named"),
    [
        (without("blocks.1.0.conv2.bias"), ("blocks.1", "conv2.bias", "missing")),
        (without("blocks.2.0.bn2.stored_var"), ("blocks.2", "norm2", "var", "missing")),
        (without("output_layer.0.gain"), ("norm.weight", "missing")),
        (without("output_layer.2.u0"), ("conv.", "missing")),
        (having("blocks.1.1.gamma"), ("blocks.1.1.gamma", "no part")),
        (having("blocks.1.1.theta.weight", 2, WIDTH, 1, 1), ("blocks.1.1.theta.weight", "no part")),
        (having("shared.weight", CLASSES, 4), ("shared.weight", "a shared embedding")),
        (without("blocks.1.0.conv1.weight"), ("blocks.1.conv1", "missing")),
        (having("blocks.1.0.conv1.u0", 1, WIDTH + 1), ("blocks.1.conv1", f"({WIDTH + 1},)", f"({WIDTH},)")),
        (having("blocks.3.0.conv1.bias", WIDTH), ("blocks.3", "conv1.bias", "no part")),
        (having("blocks.2.0.conv_sc.bias", WIDTH + 1), ("shortcut.bias", f"({WIDTH + 1},)", f"({WIDTH},)")),
        (having("linear.bias", 64 * WIDTH), ("linear.bias", f"({64 * WIDTH},)", f"({16 * WIDTH},)")),
        (having("blocks.0.0.bn1.bias.weight", CLASSES + 1, WIDTH), ("norm1.bias.weight", f"({CLASSES + 1}, {WIDTH})")),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(
    change: Callable[[State], State], named: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(RunError) as refused:
        load_generator(saved(tmp_path, change(released())))
    for part in ("G_ema.pth", *named):
        assert part in str(refused.value)


@each(
    "content",
    [
        {"fc.weight": torch.ones(2, 2), "fc.bias": torch.ones(2)},
        {"linear.weight": torch.ones(2, 2), "linear.u0": torch.ones(1, 2), "output_layer.0.gain": torch.ones(2)},
        {"seed": 3},
        [1, 2],
    ],
)
def test_a_file_that_holds_no_generator_is_refused(content: Any, tmp_path: Path) -> None:
    with pytest.raises(OodLabError, match=r"G_ema\.pth"):
        load_generator(saved(tmp_path, content))


@each("statistics", EITHER)
def test_an_image_is_a_function_of_its_number_and_the_seed(statistics: Statistics, tmp_path: Path) -> None:
    path = saved(tmp_path, released())
    fresh = {number: made(load_generator(path)[0], number, statistics=statistics) for number in (0, 1, 3)}
    network, _ = load_generator(path)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(8)
    expected = torch.rand(2)
    torch.manual_seed(8)
    for number, other in ((3, "batch"), (0, "running"), (1, "batch"), (0, "batch"), (3, "running")):
        made(network, number + 1, statistics=other, z_std=3.0, seed=9)
        assert torch.equal(made(network, number, statistics=statistics), fresh[number]), (number, other)
    assert torch.equal(torch.rand(2), expected), "the global generator was used"
    for name, value in network.state_dict().items():
        assert name.endswith("num_batches_tracked") or torch.equal(value, before[name]), name
    assert not any(module.training for module in network.modules())
    pictures = [*fresh.values(), made(network, 0, statistics=statistics, seed=5)]
    assert len({picture.numpy().tobytes() for picture in pictures}) == 4


def test_by_the_statistics_of_the_batch_an_image_depends_on_its_block_by_running_ones_it_does_not(
    tmp_path: Path,
) -> None:
    network, _ = load_generator(saved(tmp_path, released()))
    for statistics in EITHER:
        # Of 16 images and of 32 the noise begins with the same numbers.
        short, long = (block(network, 0, size, seed=4, z_std=1.0, statistics=statistics) for size in (16, 32))
        near = (short.int() - long[:16].int()).abs() <= 1
        assert bool(near.all()) == (statistics == "running")


def test_averaged_vectors_make_no_weight_too_large(tmp_path: Path) -> None:
    """Those that training keeps are means of unit vectors, so that they are shorter than 1."""
    network = Generator(CLASSES, WIDTH, NOISE)
    for _ in range(20):  # iterations
        network(torch.randn(4, NOISE), torch.arange(4) % CLASSES)
    state = network.state_dict()
    kept = {name: 0.9 * value if name.endswith(("._u", "._v")) else value for name, value in state.items()}
    save_file({name: value.contiguous() for name, value in kept.items()}, tmp_path / "final.safetensors")
    loaded, _ = load_generator(tmp_path / "final.safetensors")
    for layer in (loaded.linear, loaded.conv, loaded.blocks[1].conv2):
        assert float(torch.linalg.svdvals(layer.weight.flatten(1))[0]) == pytest.approx(1, abs=0.02)


@each("statistics", EITHER)
def test_numbers_that_are_not_finite_are_refused(statistics: Statistics, tmp_path: Path) -> None:
    state = released()
    state["blocks.1.0.bn1.gain.weight"][0] = torch.nan
    network, _ = load_generator(saved(tmp_path, state))
    with pytest.raises(RunError, match="not finite"):
        made(network, statistics=statistics)


@each("statistics", EITHER)
def test_a_generator_that_makes_one_picture_is_refused(statistics: Statistics, tmp_path: Path) -> None:
    state = released()
    state["output_layer.0.gain"].zero_()
    network, _ = load_generator(saved(tmp_path, state))
    with pytest.raises(RunError, match="same picture for every noise and class"):
        made(network, statistics=statistics)

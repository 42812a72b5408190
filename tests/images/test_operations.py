"""Operations on batches of images against Pillow's on one picture at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from ood_lab.images import operations as ops
from tests.cases import each

Picture = Image.Image
BILINEAR = Image.Resampling.BILINEAR
SIZES = [(32, 32), (20, 33), (7, 5)]
ROUNDING = 2e-3  # of single precision, in levels of a byte


def pictures(height: int, width: int, rows: int = 12, seed: int = 0) -> np.ndarray:
    """uint8 [B, H, W, 3]: noise of few and of many levels, flat areas, one value, two values, gradients."""
    draw = np.random.default_rng(seed)
    found = draw.integers(0, 256, (rows, height, width, 3))
    found[1] = draw.integers(100, 140, (height, width, 3))
    found[2] = draw.integers(0, 256, 3)
    found[3] = np.where(draw.random((height, width, 1)) < 0.9, 30, 200)
    found[4] = np.linspace(0, 255, width)[None, :, None]
    found[5] = np.linspace(17, 90, height)[:, None, None]
    found[6, :, :, 0] = 0
    found[7, :, :, 1] = 255
    found[8] = np.minimum(draw.exponential(20, (height, width, 3)), 255)
    return found.astype(np.uint8)


def images(of: np.ndarray) -> Tensor:
    return torch.from_numpy(of).permute(0, 3, 1, 2).float() / 255


def above(found: Tensor, of: np.ndarray, change: Callable[[Picture, float], Picture], strength: Tensor) -> np.ndarray:
    """By how many levels of a byte our images lie above Pillow's."""
    assert found.dtype == torch.float32
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-6
    expected = [np.asarray(change(Image.fromarray(p), s)) for p, s in zip(of, strength.tolist(), strict=True)]
    return found.double().permute(0, 2, 3, 1).numpy() * 255 - np.stack(expected)


def strengths(low: float, high: float, rows: int = 12, whole: bool = False) -> Tensor:
    """From the one to the other, in no order."""
    spread = torch.linspace(low, high, rows)[torch.randperm(rows, generator=torch.Generator().manual_seed(0))]
    return spread.round() if whole else spread


# On the levels of a byte.


def stretched(picture: Picture, _: float) -> Picture:
    return ImageOps.autocontrast(picture)


def equalized(picture: Picture, _: float) -> Picture:
    return ImageOps.equalize(picture)


@each(("height", "width"), SIZES)
def test_autocontrast_is_pillows_but_for_one_level_where_a_product_is_nearly_whole(height: int, width: int) -> None:
    given = pictures(height, width)
    off = above(ops.autocontrast(images(given)), given, stretched, torch.zeros(len(given))).round()
    assert np.abs(off).max() <= 1
    assert (off != 0).mean() < 0.02


@each("seed", [0, 1, 2])
@each(("height", "width"), [*SIZES, (16, 16), (15, 17), (64, 48)])
def test_equalize_is_pillows(height: int, width: int, seed: int) -> None:
    given = pictures(height, width, seed=seed)
    off = above(ops.equalize(images(given)), given, equalized, torch.zeros(len(given)))
    assert np.abs(off).max() < ROUNDING
    if height * width > 300:
        assert (ops.equalize(images(given)) != images(given)).any()


def test_posterize_and_solarize_are_pillows_at_every_level() -> None:
    given = pictures(20, 33)
    for bits in range(1, 9):
        some = torch.full((len(given),), float(bits))
        off = above(ops.posterize(images(given), some), given, lambda p, b: ImageOps.posterize(p, int(b)), some)
        assert np.abs(off).max() < ROUNDING
    for threshold in (0, 1, 30, 128, 180, 255, 256):
        some = torch.full((len(given),), float(threshold))
        off = above(ops.solarize(images(given), some), given, lambda p, t: ImageOps.solarize(p, int(t)), some)
        assert np.abs(off).max() < ROUNDING


def test_each_image_has_a_strength_of_its_own_on_the_levels_of_a_byte() -> None:
    given = pictures(20, 33)
    bits, threshold = strengths(1, 8, whole=True), strengths(0, 256, whole=True)
    off = above(ops.posterize(images(given), bits), given, lambda p, b: ImageOps.posterize(p, int(b)), bits)
    assert np.abs(off).max() < ROUNDING
    off = above(ops.solarize(images(given), threshold), given, lambda p, t: ImageOps.solarize(p, int(t)), threshold)
    assert np.abs(off).max() < ROUNDING


@each("change", [ops.autocontrast, ops.equalize, partial(ops.posterize, bits_B=torch.full((12,), 3.0)),
                 partial(ops.solarize, threshold_B=torch.full((12,), 100.0))])  # fmt: skip
def test_what_lies_between_two_levels_is_rounded_first(change: Callable[[Tensor], Tensor]) -> None:
    given = images(pictures(20, 33))
    draw = torch.Generator().manual_seed(3)
    moved = (given + (torch.rand(given.shape, generator=draw) - 0.5) * 0.9 / 255).clamp(0, 1)
    torch.testing.assert_close(change(moved), change(given), atol=1e-6, rtol=0)


# Geometry: Pillow cuts the interpolated value to a whole level, ours are not cut.


def through(*matrix: float) -> Callable[[Picture], Picture]:
    return lambda picture: picture.transform(picture.size, Image.Transform.AFFINE, matrix, BILINEAR)


GEOMETRY: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Picture, float], Picture], Tensor]] = {
    "rotate": (ops.rotate, lambda p, s: p.rotate(s, BILINEAR), strengths(-29, 30)),
    "rotate by whole degrees": (ops.rotate, lambda p, s: p.rotate(s, BILINEAR), strengths(-8, 8, whole=True)),
    "shear_x": (ops.shear_x, lambda p, s: through(1, s, 0, 0, 1, 0)(p), strengths(-0.3, 0.31)),
    "shear_y": (ops.shear_y, lambda p, s: through(1, 0, 0, s, 1, 0)(p), strengths(-0.3, 0.31)),
    "translate_x": (ops.translate_x, lambda p, s: through(1, 0, s, 0, 1, 0)(p), strengths(-4, 4, whole=True)),
    "translate_y": (ops.translate_y, lambda p, s: through(1, 0, 0, 0, 1, s)(p), strengths(-4, 4, whole=True)),
    "translate_x by parts": (ops.translate_x, lambda p, s: through(1, 0, s, 0, 1, 0)(p), strengths(-3.3, 3.4)),
}


@each("name", GEOMETRY)
@each(("height", "width"), SIZES)
def test_geometry_is_pillows_before_it_cuts_to_whole_levels(height: int, width: int, name: str) -> None:
    ours, change, strength = GEOMETRY[name]
    given = pictures(height, width)
    off = above(ours(images(given), strength), given, change, strength)
    assert off.min() > -ROUNDING
    assert off.max() < 1 + ROUNDING
    assert np.abs(images(given).numpy() - ours(images(given), strength).numpy()).max() > 0.1


def test_a_shift_by_whole_pixels_moves_them_left_and_up_and_leaves_black() -> None:
    given = images(pictures(9, 11))
    left = ops.translate_x(given, torch.full((12,), 2.0))
    torch.testing.assert_close(left[..., :-2], given[..., 2:])
    assert (left[..., -2:] == 0).all()
    down = ops.translate_y(given, torch.full((12,), -3.0))
    torch.testing.assert_close(down[..., 3:, :], given[..., :-3, :])
    assert (down[..., :3, :] == 0).all()


def test_a_quarter_turn_is_counterclockwise_and_no_strength_changes_nothing() -> None:
    given = images(pictures(12, 12))
    turned = ops.rotate(given, torch.full((12,), 90.0))
    torch.testing.assert_close(turned[..., 1:-1, 1:-1], given.rot90(1, (2, 3))[..., 1:-1, 1:-1], atol=1e-5, rtol=0)
    for ours, _, _ in GEOMETRY.values():
        torch.testing.assert_close(ours(given, torch.zeros(12)), given, atol=1e-5, rtol=0)


def test_a_matrix_of_each_image_leads_from_the_output_to_the_input() -> None:
    given = pictures(20, 33)
    draw = torch.Generator().manual_seed(1)
    matrices = torch.eye(2, 3) + torch.randn(12, 2, 3, generator=draw) * torch.tensor([0.2, 0.2, 3.0])
    found = ops.affine(images(given), matrices).double().permute(0, 2, 3, 1).numpy() * 255
    for ours, picture, matrix in zip(found, given, matrices.flatten(1).tolist(), strict=True):
        off = ours - np.asarray(through(*matrix)(Image.fromarray(picture)))
        # A place on the border within rounding may fall on either side of it.
        assert ((off < -ROUNDING) | (off > 1 + ROUNDING)).mean() < 0.01


# Colours: Pillow rounds the plain picture and cuts the mixture; ours are neither rounded nor cut.

COLOUR: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Picture], ImageEnhance._Enhance], float]] = {
    "colour": (ops.colour, ImageEnhance.Color, 0.5),
    "contrast": (ops.contrast, ImageEnhance.Contrast, 1.0),  # the mean is of rounded greys, and rounded itself
    "brightness": (ops.brightness, ImageEnhance.Brightness, 0.0),
    "sharpness": (ops.sharpness, ImageEnhance.Sharpness, 0.5),
}


@each("name", COLOUR)
@each(("height", "width"), SIZES)
def test_colours_are_pillows_before_it_rounds(height: int, width: int, name: str) -> None:
    ours, change, rounded = COLOUR[name]
    given, strength = pictures(height, width), strengths(0.0, 1.0)
    off = above(ours(images(given), strength), given, lambda p, s: change(p).enhance(s), strength)
    least = (1 - strength.double().numpy())[:, None, None, None] * rounded + ROUNDING
    assert (off > -least).all()
    assert (off < 1 + least).all()


@each("name", COLOUR)
def test_factor_one_changes_nothing_and_zero_gives_the_plain_picture(name: str) -> None:
    ours, _, _ = COLOUR[name]
    given = images(pictures(9, 11))
    torch.testing.assert_close(ours(given, torch.ones(12)), given, atol=1e-6, rtol=0)
    plain = ours(given, torch.zeros(12)).double()
    if name == "brightness":
        assert (plain == 0).all()
    elif name == "sharpness":
        assert torch.equal(plain[..., 0, :], given[..., 0, :].double())
        patch = given[3, 1, 2:5, 4:7].double()
        assert abs(float((patch.sum() + 4 * patch[1, 1]) / 13 - plain[3, 1, 3, 5])) < 1e-6
    else:
        red, green, blue = given.double().unbind(1)
        grey = 0.299 * red + 0.587 * green + 0.114 * blue
        expected = grey if name == "colour" else grey.mean((1, 2))[:, None, None].expand_as(grey)
        for channel in range(3):
            torch.testing.assert_close(plain[:, channel], expected, atol=1e-6, rtol=0)


ALL: dict[str, Callable[[Tensor], Tensor]] = {
    "autocontrast": ops.autocontrast,
    "equalize": ops.equalize,
    "posterize": lambda x: ops.posterize(x, torch.full((len(x),), 3.0)),
    "solarize": lambda x: ops.solarize(x, torch.full((len(x),), 100.0)),
    **{name: partial(lambda x, f, s: f(x, s[: len(x)]), f=f, s=s) for name, (f, _, s) in GEOMETRY.items()},
    **{name: partial(lambda x, f: f(x, torch.full((len(x),), 0.4)), f=f) for name, (f, _, _) in COLOUR.items()},
}


@each("name", ALL)
def test_an_image_does_not_depend_on_the_others_and_the_input_stays(name: str) -> None:
    given = images(pictures(20, 33))
    before, found = given.clone(), ALL[name](given)
    assert torch.equal(given, before)
    assert found.data_ptr() != given.data_ptr()
    # The strengths of the first images are the same, however many follow.
    # Sampling points of 33 pixels are rounded to 2e-6, by other instructions in a batch of another size.
    torch.testing.assert_close(ALL[name](given[:5]), found[:5], atol=5e-6, rtol=0)

"""The strong augmentation: each operator against torchvision's, boxes within range, rows independent."""

from __future__ import annotations

import math
from typing import Any

import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from ood_lab.augmentation.simclr import SimCLR, blend, box_draws, crop_boxes, grey, resized_crop, rotate_hue
from tests.cases import each

IDENTITY: dict[str, Any] = {
    "scale": [1.0, 1.0], "ratio": [1.0, 1.0], "flip": 0.0, "jitter": 0.0,
    "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, "grey": 0.0,
}  # fmt: skip
PAPER: dict[str, Any] = {
    "scale": [0.2, 1.0], "ratio": [0.75, 1.3333], "flip": 0.5, "jitter": 0.8,
    "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "grey": 0.2,
}  # fmt: skip


def images(rows: int, side: int = 32) -> torch.Tensor:
    return torch.rand(rows, 3, side, side, generator=torch.Generator().manual_seed(7))


def pixels(rows: int) -> torch.Tensor:
    return (images(rows) * 255).round().to(torch.uint8)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@each("side", [32, 17])
def test_a_crop_is_torchvisions_resized_crop(side: int) -> None:
    rows = 40
    source, draw = images(rows, side), seeded(1)
    height, width = torch.randint(1, side + 1, (2, rows), generator=draw)
    height[0] = width[0] = side
    top = (torch.rand(rows, generator=draw) * (side - height + 1)).long()
    left = (torch.rand(rows, generator=draw) * (side - width + 1)).long()
    mirrored = torch.arange(rows) % 2 == 1
    result = resized_crop(source, top / side, left / side, height / side, width / side, mirrored)
    for row in range(rows):
        box = [int(v[row]) for v in (top, left, height, width)]
        expected = tv.resized_crop(
            source[row], *box, size=[side, side], interpolation=InterpolationMode.BILINEAR, antialias=False
        )
        expected = tv.horizontal_flip(expected) if mirrored[row] else expected
        torch.testing.assert_close(result[row], expected, atol=1e-5, rtol=0)


def test_a_crop_between_pixels_stays_within_the_values_of_its_box() -> None:
    rows, source = 200, images(200)
    top, left, height, width = crop_boxes(box_draws(rows, [0.05, 1.0], [0.5, 2.0], seeded(3)))
    result = resized_crop(source, top, left, height, width, torch.zeros(rows, dtype=torch.bool))
    for row in range(rows):
        y0, x0 = math.floor(top[row] * 32), math.floor(left[row] * 32)
        y1, x1 = math.ceil((top[row] + height[row]) * 32 - 1e-4), math.ceil((left[row] + width[row]) * 32 - 1e-4)
        box = source[row, :, y0:y1, x0:x1]
        assert (result[row].amax((1, 2)) <= box.amax((1, 2)) + 1e-5).all()
        assert (result[row].amin((1, 2)) >= box.amin((1, 2)) - 1e-5).all()


def test_a_constant_image_stays_constant_under_any_crop() -> None:
    rows = 500
    boxes = crop_boxes(box_draws(rows, [0.01, 1.0], [0.5, 2.0], seeded(4)))
    result = resized_crop(torch.full((rows, 3, 32, 32), 0.7), *boxes, torch.arange(rows) % 2 == 0)
    torch.testing.assert_close(result, torch.full_like(result, 0.7), atol=1e-5, rtol=0)


def test_boxes_lie_inside_the_image_with_area_and_aspect_in_range() -> None:
    scale, ratio, rows = [0.2, 1.0], [0.75, 1.3333], 20_000
    top, left, height, width = crop_boxes(box_draws(rows, scale, ratio, seeded(0)))
    for start, extent in ((top, height), (left, width)):
        assert (start >= 0).all()
        assert (start + extent <= 1 + 1e-6).all()
    area, aspect = height * width, width / height
    assert (area >= scale[0] - 1e-6).all()
    assert (area <= scale[1] + 1e-6).all()
    assert (aspect >= ratio[0] - 1e-5).all()
    assert (aspect <= ratio[1] + 1e-5).all()
    # The whole range is used, and the area evenly.
    assert area.min() < 0.21
    assert area.max() > 0.99
    assert abs(area.mean().item() - 0.6) < 0.01
    assert abs(aspect.log().mean().item()) < 0.01


def test_grey_is_torchvisions_grayscale() -> None:
    source = images(6)
    torch.testing.assert_close(grey(source), tv.rgb_to_grayscale(source), atol=1e-6, rtol=0)


@each("factor", [0.0, 0.6, 1.0, 1.4])
def test_blend_is_torchvisions_brightness_contrast_and_saturation(factor: float) -> None:
    source = images(6)
    factors = torch.full((6,), factor)
    pairs = [
        (blend(source, 0.0, factors), tv.adjust_brightness(source, factor)),
        (blend(source, grey(source).mean((2, 3), keepdim=True), factors), tv.adjust_contrast(source, factor)),
        (blend(source, grey(source), factors), tv.adjust_saturation(source, factor)),
    ]
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_each_row_of_a_blend_has_its_own_factor() -> None:
    source, factors = images(4), torch.tensor([0.5, 0.8, 1.0, 1.3])
    result = blend(source, 0.0, factors)
    for row in range(4):
        torch.testing.assert_close(result[row], (source[row] * factors[row]).clamp(0, 1))


@each("turn", [-0.5, -0.1, 0.0, 0.03, 0.1, 0.5])
def test_rotated_hue_is_torchvisions(turn: float) -> None:
    source = images(6)
    result = rotate_hue(source, torch.full((6,), turn))
    torch.testing.assert_close(result, tv.adjust_hue(source, turn), atol=1e-5, rtol=0)


def test_hue_leaves_grey_black_and_white_alone() -> None:
    source = torch.tensor([0.0, 0.3, 1.0]).view(3, 1, 1, 1).expand(3, 3, 4, 4).contiguous()
    torch.testing.assert_close(rotate_hue(source, torch.full((3,), 0.2)), source, atol=1e-6, rtol=0)


def test_a_third_of_a_turn_exchanges_the_channels() -> None:
    source = images(3)
    result = rotate_hue(source, torch.full((3,), 1 / 3))
    torch.testing.assert_close(result, source[:, [2, 0, 1]], atol=1e-5, rtol=0)


def test_with_everything_off_nothing_changes() -> None:
    source = pixels(5)
    result = SimCLR(**IDENTITY)(source, seeded(0))
    torch.testing.assert_close(result, source.float() / 255, atol=1e-6, rtol=0)


@each(
    ("option", "expected"),
    [("flip", lambda x: x.flip(3)), ("grey", lambda x: tv.rgb_to_grayscale(x, num_output_channels=3))],
)
def test_a_certain_change_happens_to_every_row(option: str, expected: Any) -> None:
    source = pixels(5)
    result = SimCLR(**(IDENTITY | {option: 1.0}))(source, seeded(0))
    torch.testing.assert_close(result, expected(source.float() / 255), atol=1e-5, rtol=0)


def test_jitter_without_ranges_changes_nothing() -> None:
    source = pixels(5)
    result = SimCLR(**(IDENTITY | {"jitter": 1.0}))(source, seeded(0))
    torch.testing.assert_close(result, source.float() / 255, atol=1e-5, rtol=0)


@each("option", ["jitter", "grey"])
def test_the_share_of_changed_rows_is_the_probability(option: str) -> None:
    source = pixels(1).expand(4000, 3, 32, 32)[:, :, :4, :4].contiguous()
    settings = IDENTITY | {"brightness": 0.4, option: 0.3}
    result = SimCLR(**settings)(source, seeded(0))
    changed = ((result - source.float() / 255).abs().flatten(1).amax(1) > 1e-4).float().mean().item()
    assert abs(changed - 0.3) < 0.04


def test_equal_images_in_a_batch_are_changed_differently() -> None:
    source = pixels(1).expand(16, 3, 32, 32).contiguous()
    result = SimCLR(**PAPER)(source, seeded(1))
    distances = torch.cdist(result.flatten(1), result.flatten(1)) + torch.eye(16) * 1e9
    assert distances.min() > 0.1


def test_the_result_is_float_between_0_and_1_and_the_input_is_kept() -> None:
    source = pixels(64)
    before = source.clone()
    result = SimCLR(**PAPER)(source, seeded(2))
    assert result.dtype == torch.float32
    assert result.shape == source.shape
    assert result.min() >= -1e-6
    assert result.max() <= 1 + 1e-6
    assert torch.equal(source, before)


def test_the_same_generator_state_gives_the_same_images() -> None:
    augment, source = SimCLR(**PAPER), pixels(16)
    a, b, c = (augment(source, seeded(s)) for s in (3, 3, 4))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    SimCLR(**PAPER)(pixels(4), seeded(0))
    assert torch.equal(torch.get_rng_state(), before)


@each("aspect", [0.5, 1.0, 2.5])
def test_on_an_oblong_picture_area_and_aspect_are_those_of_pixels(aspect: float) -> None:
    scale, ratio, rows = [0.1, 0.3], [0.75, 1.3333], 5_000
    top, left, height, width = crop_boxes(box_draws(rows, scale, ratio, seeded(0)), aspect)
    assert (height * width >= scale[0] - 1e-6).all()
    assert (height * width <= scale[1] + 1e-6).all()
    fits = (height < 1 - 1e-6) & (width < 1 - 1e-6)
    pixels = (width / height * aspect)[fits]
    assert (pixels >= ratio[0] - 1e-4).all()
    assert (pixels <= ratio[1] + 1e-4).all()
    assert fits.float().mean() > 0.5
    assert ((top + height <= 1 + 1e-6) & (left + width <= 1 + 1e-6)).all()


def test_any_part_of_a_batch_is_changed_as_in_the_whole_batch() -> None:
    augment, source = SimCLR(**PAPER), pixels(16)
    draws = augment.draw(16, seeded(5))
    whole = augment.apply(source, draws)
    for rank in range(4):
        part = augment.apply(source[rank::4], {k: v[rank::4] for k, v in draws.items()})
        torch.testing.assert_close(part, whole[rank::4], atol=1e-6, rtol=0)

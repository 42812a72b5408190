"""Crop and flip: pixel-exact against torchvision's functional operators at the same draws."""

from __future__ import annotations

import torch
from torchvision.transforms import functional as tv

from ood_lab.augmentation.crop_flip import CropFlip, crop_flip
from tests.cases import each


def images(rows: int, height: int = 32, width: int = 32) -> torch.Tensor:
    draw = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (rows, 3, height, width), dtype=torch.uint8, generator=draw)


@each("padding", [0, 1, 4])
@each(("height", "width"), [(32, 32), (12, 20)])
def test_every_row_is_torchvisions_pad_crop_and_flip(padding: int, height: int, width: int) -> None:
    pixels = images(64, height, width)
    draw = torch.Generator().manual_seed(1)
    dy, dx = torch.randint(0, 2 * padding + 1, (2, 64), generator=draw)
    mirrored = torch.rand(64, generator=draw) < 0.5
    result = crop_flip(pixels, padding, dy, dx, mirrored)
    assert result.dtype == torch.uint8
    for row in range(64):
        expected = tv.crop(tv.pad(pixels[row], padding), int(dy[row]), int(dx[row]), height, width)
        expected = tv.hflip(expected) if mirrored[row] else expected
        assert torch.equal(result[row], expected)


def test_without_padding_and_flip_nothing_changes() -> None:
    pixels = images(8)
    assert torch.equal(CropFlip(padding=0, flip=0.0)(pixels, torch.Generator()), pixels.float() / 255)


def test_with_certain_flip_every_row_is_mirrored() -> None:
    pixels = images(8)
    result = CropFlip(padding=0, flip=1.0)(pixels, torch.Generator())
    assert torch.equal(result, pixels.flip(3).float() / 255)


def test_the_result_is_float_between_0_and_1_and_the_input_is_kept() -> None:
    pixels = images(16)
    before = pixels.clone()
    result = CropFlip(padding=4, flip=0.5)(pixels, torch.Generator().manual_seed(0))
    assert result.dtype == torch.float32
    assert result.min() >= 0
    assert result.max() <= 1
    assert torch.equal(pixels, before)


def test_the_same_generator_state_gives_the_same_images() -> None:
    augment, pixels = CropFlip(padding=4, flip=0.5), images(16)
    a, b, c = (augment(pixels, torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    CropFlip(padding=4, flip=0.5)(images(4), torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_rows_are_drawn_independently_and_every_offset_occurs_equally_often() -> None:
    # One bright pixel in the middle shows where the crop was taken.
    side, padding, rows = 9, 2, 20_000
    pixels = torch.zeros(rows, 3, side, side, dtype=torch.uint8)
    pixels[:, :, 4, 4] = 255
    result = CropFlip(padding=padding, flip=0.0)(pixels, torch.Generator().manual_seed(2))
    place = result[:, 0].flatten(1).argmax(1)
    counts = torch.bincount((place // side - 2) * 5 + place % side - 2, minlength=25)
    assert len(counts) == 25
    assert ((counts - rows / 25).abs() < 6 * (rows / 25) ** 0.5).all()


def test_the_share_of_mirrored_rows_is_the_probability() -> None:
    pixels = torch.zeros(10_000, 3, 2, 2, dtype=torch.uint8)
    pixels[:, :, :, 0] = 255
    result = CropFlip(padding=0, flip=0.3)(pixels, torch.Generator().manual_seed(2))
    assert abs(result[:, 0, 0, 1].mean().item() - 0.3) < 0.03

"""Pictures of every mode become 8-bit RGB by one rule, or are refused by name; files and PIL pictures alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ood_lab.errors import RunError
from ood_lab.reader.picture import EIGHT_BIT, decode, to_rgb
from tests.cases import each

GREY = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)


def saved(image: Image.Image, path: Path) -> Path:
    image.save(path)
    return path


@each("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_eight_bits_are_converted_as_pillow_does_in_memory_and_from_a_file(mode: str, tmp_path: Path) -> None:
    assert mode in EIGHT_BIT
    image = Image.fromarray(np.stack([GREY, GREY[::-1], 255 - GREY], 2)).convert("LA" if mode == "LA" else mode)
    wanted = np.asarray(image.convert("RGB"))
    assert np.array_equal(np.asarray(to_rgb(image)), wanted)
    if mode not in ("HSV", "YCbCr"):
        path = saved(image, tmp_path / ("a.tif" if mode == "CMYK" else "a.png"))
        assert np.array_equal(np.asarray(decode(path)), wanted)


def test_transparency_is_dropped_and_the_colour_beneath_it_kept(tmp_path: Path) -> None:
    rgba = np.dstack([GREY, GREY, GREY, np.zeros_like(GREY)])
    assert np.array_equal(np.asarray(decode(saved(Image.fromarray(rgba), tmp_path / "a.png")))[:, :, 0], GREY)
    palette = Image.fromarray(GREY).convert("P")
    palette.info["transparency"] = bytes(range(256))
    assert np.array_equal(np.asarray(to_rgb(palette)), np.asarray(Image.fromarray(GREY).convert("RGB")))


@each("suffix", ["png", "tif"])
def test_sixteen_bits_of_the_same_picture_give_the_same_pixels(suffix: str, tmp_path: Path) -> None:
    deep = Image.fromarray(GREY.astype(np.uint16) * 257)
    wanted = np.repeat(GREY[:, :, None], 3, 2)
    assert np.array_equal(np.asarray(decode(saved(deep, tmp_path / f"a.{suffix}"))), wanted)
    assert np.array_equal(np.asarray(to_rgb(deep)), wanted)


@each("mode", ["I;16", "I;16L", "I;16B"])
def test_every_byte_order_of_sixteen_bits_is_scaled_not_clipped(mode: str) -> None:
    levels = np.linspace(0, 65535, 600).reshape(20, 30).astype("<u2" if mode != "I;16B" else ">u2")
    image = Image.frombytes(mode, (30, 20), levels.tobytes())
    assert np.array_equal(np.asarray(to_rgb(image))[:, :, 2], levels // 256)


def test_a_png_that_an_older_pillow_opens_in_mode_i_has_sixteen_bits() -> None:
    image = Image.fromarray(GREY.astype(np.int32) * 257)
    image.format = "PNG"
    assert image.mode == "I"
    assert np.array_equal(np.asarray(to_rgb(image))[:, :, 0], GREY)


@each(("dtype", "mode"), [(np.int32, "I"), (np.float32, "F")])
def test_pictures_without_a_stated_white_are_refused_with_file_and_mode(dtype: type, mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(GREY.astype(dtype))
    with pytest.raises(RunError, match=rf"a\.tif: mode {mode} .*8 or 16 bits"):
        decode(saved(image, tmp_path / "a.tif"))
    with pytest.raises(RunError, match=rf"picture 3: mode {mode} "):
        to_rgb(image, "picture 3")


def test_the_orientation_of_exif_is_ignored_as_torchvision_does(tmp_path: Path) -> None:
    from torchvision.datasets.folder import default_loader

    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.fromarray(GREY).save(tmp_path / "a.jpg", exif=exif)
    assert decode(tmp_path / "a.jpg").size == (30, 20)
    assert np.array_equal(np.asarray(decode(tmp_path / "a.jpg")), np.asarray(default_loader(tmp_path / "a.jpg")))


def test_of_several_frames_the_first_is_taken(tmp_path: Path) -> None:
    first, second = Image.fromarray(GREY), Image.fromarray(255 - GREY)
    first.save(tmp_path / "a.tif", save_all=True, append_images=[second])
    assert np.array_equal(np.asarray(decode(tmp_path / "a.tif"))[:, :, 0], GREY)

"""Folders of images: classes, exclusions, colour modes, damaged files, and the resize of the OOD benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from ood_lab.config.errors import RunError
from ood_lab.config.image_sets import image_set_config
from ood_lab.dataset.base import stack, stratified, to_square
from ood_lab.dataset.image_folder import read_folder
from ood_lab.task.build import build
from ood_lab.types import Images


def picture(width: int, height: int, seed: int = 0, channels: int = 3) -> Image.Image:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def save(path: Path, image: Image.Image | None = None) -> np.ndarray:
    image = image or picture(32, 32, seed=len(str(path)) + sum(path.name.encode()))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def load(root: Path, **changes: Any) -> Images:
    return build(image_set_config("image_folder", str(root)) | changes).load("test")


def test_class_folders_give_labels_in_sorted_order(tmp_path: Path) -> None:
    written = [save(tmp_path / "images" / name) for name in ("ant/b.png", "ant/c.png", "bee/a.png", "cat/deep/x.png")]
    images = load(tmp_path)
    assert images.labels.tolist() == [0, 0, 1, 2]
    assert images.labels.dtype == torch.int64
    assert images.pixels.dtype == torch.uint8
    assert np.array_equal(images.pixels.numpy(), np.stack(written))


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    written = [save(tmp_path / "images" / name) for name in ("a.png", "b.png")]
    images = load(tmp_path)
    assert images.labels.tolist() == [-1, -1]
    assert np.array_equal(images.pixels.numpy(), np.stack(written))


def test_excluded_folders_are_left_out_and_the_others_ranked_without_them(tmp_path: Path) -> None:
    for name in ("ant", "bee", "cat"):
        save(tmp_path / "images" / name / "a.png", picture(32, 32, seed=len(name) + ord(name[0])))
    images = load(tmp_path, exclude=["bee"])
    assert images.labels.tolist() == [0, 1]
    assert len(images.pixels) == 2


def test_excluding_every_folder_leaves_no_image(tmp_path: Path) -> None:
    save(tmp_path / "images" / "ant" / "a.png")
    with pytest.raises(RunError, match="no image"):
        load(tmp_path, exclude=["ant"])


def test_files_that_are_no_images_are_passed_over(tmp_path: Path) -> None:
    save(tmp_path / "images/a/x.PNG")
    (tmp_path / "images/a/notes.txt").write_text("text")
    assert len(load(tmp_path).pixels) == 1


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(RunError, match=f"{tmp_path}/images"):
        load(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/images"):
        load(tmp_path)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_every_colour_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    image = picture(40, 36).convert(mode)
    suffix = "tiff" if mode == "CMYK" else "png"
    expected = save(tmp_path / f"images/a.{suffix}", image)
    with Image.open(tmp_path / f"images/a.{suffix}") as stored:
        square = to_square(stored)
    pixels = load(tmp_path).pixels
    assert pixels.shape == (1, 3, 32, 32)
    assert np.array_equal(pixels[0].numpy(), np.asarray(square).transpose(2, 0, 1))
    assert expected.shape == (3, 36, 40)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.5, 0.9])
def test_a_truncated_file_is_named(tmp_path: Path, suffix: str, share: float) -> None:
    save(tmp_path / "images/a/good.png")
    broken = tmp_path / f"images/a/broken.{suffix}"
    picture(80, 80).save(broken)
    data = broken.read_bytes()
    broken.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(RunError, match=f"broken.{suffix}"):
        read_folder(tmp_path, "images")


def test_a_file_with_damaged_bytes_is_named(tmp_path: Path) -> None:
    path = tmp_path / "images" / "damaged.png"
    save(path, picture(60, 60))
    data = bytearray(path.read_bytes())
    for place in range(60, len(data) - 20, 7):
        data[place] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(RunError, match=r"damaged\.png"):
        read_folder(tmp_path, "images")


SIZES = [
    (32, 32),
    (64, 64),
    (33, 47),
    (47, 33),
    (45, 32),
    (32, 45),
    (200, 101),
    (101, 200),
    (28, 28),
    (20, 31),
    (500, 37),
]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_to_square_is_torchvisions_resize_and_centre_crop(width: int, height: int) -> None:
    image = picture(width, height, seed=width)
    reference = transforms.Compose([transforms.Resize(32), transforms.CenterCrop(32)])(image)
    assert np.array_equal(np.asarray(to_square(image)), np.asarray(reference))


def test_stack_keeps_order_and_is_contiguous() -> None:
    images = [picture(32, 32, seed=i) for i in range(3)]
    pixels = stack(images)
    assert pixels.is_contiguous()
    assert np.array_equal(pixels.permute(0, 2, 3, 1).numpy(), np.stack([np.asarray(i) for i in images]))


def test_stratified_takes_the_same_number_of_each_class_and_all_of_a_smaller_one() -> None:
    labels = torch.tensor([0] * 10 + [2] * 3 + [1] * 20)[torch.randperm(33, generator=torch.Generator().manual_seed(0))]
    rows = stratified(labels, 5, torch.Generator().manual_seed(1))
    assert labels[rows].bincount().tolist() == [5, 5, 3]
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert torch.equal(rows, stratified(labels, 5, torch.Generator().manual_seed(1)))
    assert not torch.equal(rows, stratified(labels, 5, torch.Generator().manual_seed(2)))

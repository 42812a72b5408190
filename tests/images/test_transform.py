"""Each chain against torchvision's operators on PIL images, pixel for pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision import transforms

from ood_lab.errors import RunError
from ood_lab.images.transform import Transform
from tests.cases import each

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
SQUARES = [(32, 32), (36, 32), (256, 224)]


def picture(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def torchvisions(chain: str, resize: int, side: int) -> Any:
    return {
        "short_side": transforms.Compose([transforms.Resize(resize), transforms.CenterCrop(side)]),
        "center_crop": transforms.CenterCrop(side),
        "squash": transforms.Resize((side, side)),
    }[chain]


@each(("resize", "side"), SQUARES)
@each(("width", "height"), SIZES)
@each("chain", ["short_side", "center_crop", "squash"])
def test_a_chain_is_torchvisions(chain: Any, width: int, height: int, resize: int, side: int) -> None:
    image = picture(width, height)
    ours = Transform(chain, resize, side)(image)
    assert ours.shape == (side, side, 3)
    assert np.array_equal(ours, np.asarray(torchvisions(chain, resize, side)(image)))


@each(("width", "height"), SIZES)
def test_without_antialiasing_it_is_torchs_bilinear_interpolation(width: int, height: int) -> None:
    image = picture(width, height)
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].double()
    expected = F.interpolate(tensor, (32, 32), mode="bilinear", align_corners=False, antialias=False)[0].round()
    ours = Transform("squash_aliased", 32, 32)(image).transpose(2, 0, 1)
    assert np.array_equal(ours, expected.to(torch.uint8).numpy())


def test_aliasing_keeps_the_spread_of_noise_that_antialiasing_averages_away() -> None:
    noise = picture(224, 224)
    spread = {chain: Transform(chain, 32, 32)(noise).std() for chain in ("squash", "squash_aliased")}  # type: ignore[arg-type]
    assert spread["squash"] < 15 < 40 < spread["squash_aliased"]


def test_as_is_takes_the_size_and_no_other() -> None:
    image = picture(32, 32)
    assert np.array_equal(Transform("as_is", 32, 32)(image), np.asarray(image))
    with pytest.raises(RunError, match=r"lsun/5\.png: 36x32 where transform=as_is needs 32x32"):
        Transform("as_is", 32, 32)(picture(36, 32), "lsun/5.png")


@each(("chain", "resize", "keeps"), [("short_side", 32, True), ("short_side", 36, False), ("squash", 36, True)])
def test_a_transform_knows_whether_it_changes_anything(chain: Any, resize: int, keeps: bool) -> None:
    transform, image = Transform(chain, resize, 32), picture(32, 32)
    assert transform.keeps(32, 32) == keeps == np.array_equal(transform(image), np.asarray(image))
    assert not transform.keeps(33, 32)

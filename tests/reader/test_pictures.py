"""Every form of a picture gives the same pixels; what is no picture is refused by its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ood_lab.errors import RunError
from ood_lab.reader.pictures import pictures
from tests.cases import each

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = PIXELS[..., 0]


def forms(folder: Path) -> dict[str, Any]:
    Image.fromarray(PIXELS).save(folder / "picture.png")
    return {
        "path": folder / "picture.png",
        "text": str(folder / "picture.png"),
        "PIL": Image.fromarray(PIXELS),
        "array": PIXELS,
        "array, channels first": np.moveaxis(PIXELS, -1, 0),
        "fractions": PIXELS / 255,
        "with alpha": np.dstack([PIXELS, PIXELS[..., :1]]),
        "tensor": torch.tensor(PIXELS).permute(2, 0, 1),
        "tensor of fractions": torch.tensor(PIXELS).permute(2, 0, 1) / 255,
        "tensor, channels last": torch.tensor(PIXELS),
        "batch": PIXELS[None],
        "tensor batch": torch.tensor(PIXELS).permute(2, 0, 1)[None],
        "list": [Image.fromarray(PIXELS)],
        "int64": PIXELS.astype(np.int64),
        "a little above 1": np.where(PIXELS == 255, 1.0001, PIXELS / 255),
    }


def test_every_form_gives_the_same_pixels(tmp_path: Path) -> None:
    for name, given in forms(tmp_path).items():
        (picture,) = pictures(given)
        np.testing.assert_array_equal(np.asarray(picture), PIXELS, err_msg=name)


def test_lists_may_hold_any_of_them_and_grey_is_repeated(tmp_path: Path) -> None:
    mixed = list(forms(tmp_path).values())
    assert len(list(pictures(mixed))) == len(mixed)
    for grey in (GREY, GREY[..., None], torch.tensor(GREY), torch.tensor(GREY)[None]):
        (picture,) = pictures(grey)
        np.testing.assert_array_equal(np.asarray(picture), np.dstack([GREY] * 3))
    assert len(list(pictures(np.stack([PIXELS, PIXELS])))) == 2
    assert list(pictures([])) == []


@each(
    ("given", "words"),
    [
        ([PIXELS, PIXELS * 2.0], "image 1: fractions outside 0..1"),
        (PIXELS.astype(np.int32) - 300, "expected 0..255"),
        (np.zeros((5, 7, 2)), "expected 1, 3 or 4 channels"),
        (np.zeros(4), "shape [4]"),
        ([3], "image 0: got int; expected a path"),
        ({"a": 1}, "got dict; expected"),
        (np.zeros((0, 5, 3)), "no pixels, shape [0, 5, 3]"),
        (np.array([["a"]]), "expected numbers"),
        (np.zeros((16, 28, 28)), "a stack of grey pictures"),
        ("nowhere.png", "nowhere.png: no such image"),
        (np.full((4, 4, 3), np.nan), "fractions outside 0..1"),
    ],
)
def test_what_is_no_picture_is_refused(given: Any, words: str) -> None:
    with pytest.raises(RunError) as error:
        list(pictures(given))
    assert words in str(error.value)

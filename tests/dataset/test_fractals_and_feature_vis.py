"""Generated and stored pictures as one set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ood_lab.config.image_sets import image_set_config
from ood_lab.images.fractal import fractals
from ood_lab.images.pixels import Decoded, Reading
from ood_lab.reader.layout import find_layout
from ood_lab.task.build import build
from tests.trees import plant


def test_both_parts_are_there_whatever_their_sizes_and_kept_decoded(tmp_path: Path) -> None:
    node = image_set_config("fractals_and_feature_vis", str(tmp_path))
    assert find_layout(node, "auxiliary") is None
    written = plant({**node["parts"]["feature_vis"]}, "folder", ["a", "b"])
    assert find_layout(node, "auxiliary") == "folder"
    node["parts"]["fractals"] |= {"count": 5, "native_side": 16}
    listing = build(node).listing("auxiliary")
    assert len(listing) == 5 + 4
    assert listing.classes is None
    opened = Reading(32, 32, tmp_path / "cache", 1.0, 0).open(listing, "both")
    assert isinstance(opened, Decoded)
    pixels = opened.rows(slice(None))
    assert np.array_equal(pixels[5:].numpy(), np.stack(written["test"][0]).transpose(0, 3, 1, 2))
    assert np.array_equal(np.asarray(listing.image(2)).transpose(2, 0, 1), fractals(5, 16, 0)[2].numpy())
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1
    node["parts"]["fractals"] |= {"seed": 1}
    other = Reading(32, 32, tmp_path / "cache", 1.0, 0).open(build(node).listing("auxiliary"), "both")
    assert isinstance(other, Decoded)
    assert not torch.equal(other.rows(slice(5)), pixels[:5])

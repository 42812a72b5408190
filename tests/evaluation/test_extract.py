"""The one pass over a set: rows in order, files whole, and keys that change with everything but the place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ood_lab.backbone.resnet import ResNet
from ood_lab.evaluation.extract import Extracted, about, extract, feature_key, load_features, save_features
from ood_lab.images.pixels import Decoded
from ood_lab.training.evaluation_set import EvalLoader
from ood_lab.training.normalise import Normalise
from tests.cases import each

IDENTITY = Normalise([0.0] * 3, [1.0] * 3)


class Mean(nn.Module):
    """A network whose feature is the pixel mean, and which counts the images it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.modes = 0, set[bool]()

    def extract(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        self.seen += len(images)
        self.modes.add(self.training)
        value = images.mean((1, 2, 3), keepdim=True).flatten(1)
        return {"features": value, "logits": torch.cat([value, -value], 1).to(torch.bfloat16)}


def loader(rows: int, batch: int) -> EvalLoader:
    pixels = np.broadcast_to(np.arange(rows, dtype=np.uint8)[:, None, None, None], (rows, 3, 4, 4))
    return EvalLoader(Decoded(pixels), np.arange(rows) % 4, IDENTITY, batch, torch.device("cpu"))


def whole(network: Any, source: EvalLoader) -> dict[str, torch.Tensor]:
    parts = list(extract(network, source, "x"))
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


@each("batch", [1, 4, 10, 11])
def test_rows_are_in_order_and_each_image_is_seen_once(batch: int) -> None:
    network = Mean().train()
    result = whole(network, loader(10, batch))
    torch.testing.assert_close(result["features"][:, 0], torch.arange(10) / 255)
    assert torch.equal(result["labels"], torch.arange(10) % 4)
    assert network.seen == 10
    assert network.modes == {False}


def test_everything_but_labels_is_float32_without_gradient() -> None:
    result = whole(Mean(), loader(3, 2))
    assert {k: v.dtype for k, v in result.items()} == {
        "features": torch.float32, "logits": torch.float32, "labels": torch.int64,
    }  # fmt: skip
    assert not any(v.requires_grad for v in result.values())


def test_a_pass_leaves_the_network_as_it_was() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = ResNet(3, block="basic", depths=[1, 1, 1, 1], width=2, stem="cifar", norm="batch")

        def extract(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            features, logits = self.net(x)
            return {"features": features, "logits": logits}

    network = Plain().train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    first = whole(network, loader(6, 4))
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert torch.equal(first["logits"], whole(network, loader(6, 4))["logits"])


IMAGES = [{"name": "sun397"}, "ood", [["sun397/a.jpg", 10]], 1, "labels"]
TRANSFORM = {"transform": ["short_side", 32, 32, [0.1], [0.2]]}


def test_a_key_is_twelve_hexadecimal_digits_and_stays() -> None:
    key = feature_key("w", IMAGES, TRANSFORM)
    assert len(key) == 12
    assert int(key, 16) >= 0
    assert key == feature_key("w", IMAGES, TRANSFORM)


def test_a_key_changes_with_weights_images_and_transform() -> None:
    keys = {
        feature_key("w", IMAGES, TRANSFORM),
        feature_key("v", IMAGES, TRANSFORM),
        feature_key("w", [*IMAGES, 2], TRANSFORM),
        feature_key("w", IMAGES, {"transform": ["squash", 32, 32, [0.1], [0.2]]}),
    }
    assert len(keys) == 4


def tensors(projection: bool, labelled: bool = True) -> dict[str, torch.Tensor]:
    found = {"features": torch.rand(4, 3), "logits": torch.rand(4, 2), "labels": torch.tensor([0, 1, 1, 0])}
    if projection:
        found["projection"] = torch.rand(4, 5)
    if not labelled:
        found["labels"] = torch.full((4,), -1)
    return found


@each(
    ("projection", "space", "key"),
    [
        (False, "penultimate", "features"),
        (False, "method", "features"),
        (True, "penultimate", "features"),
        (True, "method", "projection"),
        (True, "projection", "projection"),
    ],
)
def test_each_space_names_its_tensor(projection: bool, space: str, key: str) -> None:
    found = tensors(projection)
    view = Extracted(found).features(space)
    assert torch.equal(view.features, found[key])
    assert torch.equal(view.logits, found["logits"])
    assert view.labels is not None
    assert torch.equal(view.labels, found["labels"])


def test_a_projection_that_is_not_there_is_said() -> None:
    with pytest.raises(ValueError, match="this network gives no projection; use space=penultimate"):
        Extracted(tensors(False)).features("projection")


def test_a_set_without_labels_has_none() -> None:
    assert Extracted(tensors(False, labelled=False)).features("method").labels is None


@each("sizes", [[4], [1, 1, 1, 1], [3, 1]])
def test_saved_features_are_read_back_bit_for_bit(sizes: list[int], tmp_path: Path) -> None:
    found = tensors(True)
    found["features"] = torch.rand(3, 4).T  # not contiguous
    split = {key: value.split(sizes) for key, value in found.items()}
    batches = [{key: parts[i] for key, parts in split.items()} for i in range(len(sizes))]
    path = tmp_path / "deep" / "x-0123456789ab.safetensors"
    save_features(path, batches, 4)
    back = load_features(path)
    assert back.key == "0123456789ab"
    assert back.tensors.keys() == found.keys()
    assert all(torch.equal(back.tensors[k], found[k]) for k in found)


def test_bfloat16_halves_the_file_and_detectors_see_float32(tmp_path: Path) -> None:
    def saved(precision: Any) -> Path:
        path = tmp_path / precision / "x-0123456789ab.safetensors"
        save_features(path, extract(Mean(), loader(600, 50), "x", precision), 600, {"change": "none"})
        return path

    whole, half = saved("32-true"), saved("bf16-mixed")
    exact, rounded = (load_features(path).features("method") for path in (whole, half))
    assert rounded.features.dtype == rounded.logits.dtype == torch.float32
    assert torch.equal(rounded.features, exact.features.to(torch.bfloat16).float())
    assert not torch.equal(rounded.features, exact.features)
    labels = 600 * 8
    assert half.stat().st_size - labels == pytest.approx((whole.stat().st_size - labels) / 2, rel=0.05)
    assert about(half) == {"change": "none"}


def test_the_network_runs_in_the_precision_asked_for() -> None:
    class Seen(Mean):
        def extract(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            self.product = (images.flatten(1) @ torch.ones(images[0].numel(), 1)).dtype
            return super().extract(images)

    dtypes: dict[Any, torch.dtype] = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}
    for precision, dtype in dtypes.items():
        network = Seen()
        list(extract(network, loader(4, 4), "x", precision))
        assert network.product is dtype


def test_images_are_changed_before_the_network_sees_them() -> None:
    plain = whole(Mean(), loader(6, 4))["features"]
    parts = list(extract(Mean(), loader(6, 4), "x", change=lambda x: x + 1))
    torch.testing.assert_close(torch.cat([part["features"] for part in parts]), plain + 1)


@each("rows", [3, 5])
def test_another_number_of_rows_than_announced_leaves_no_file(rows: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"4 rows were extracted; expected {rows}"):
        save_features(tmp_path / "x.safetensors", [tensors(False)], rows)
    assert list(tmp_path.iterdir()) == []

"""The one pass over a set: rows in order, files whole, and keys that change with everything but the place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ood_lab.backbone.resnet import ResNet
from ood_lab.datamodule import EvalLoader, Normalise
from ood_lab.evaluation.extract import Extracted, extract, feature_key, load_features, save_features
from ood_lab.types import Images

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


def images(rows: int) -> Images:
    pixels = torch.arange(rows, dtype=torch.uint8).view(rows, 1, 1, 1).expand(rows, 3, 4, 4)
    return Images(pixels.contiguous(), torch.arange(rows) % 4)


@pytest.mark.parametrize("batch", [1, 4, 10, 11])
def test_rows_are_in_order_and_each_image_is_seen_once(batch: int) -> None:
    network, source = Mean().train(), images(10)
    result = extract(network, EvalLoader(source, IDENTITY, batch), "x")  # type: ignore[arg-type]
    torch.testing.assert_close(result["features"][:, 0], torch.arange(10) / 255)
    assert torch.equal(result["labels"], source.labels)
    assert network.seen == 10
    assert network.modes == {False}


def test_everything_but_labels_is_float32_without_gradient() -> None:
    result = extract(Mean(), EvalLoader(images(3), IDENTITY, 2), "x")  # type: ignore[arg-type]
    assert {k: v.dtype for k, v in result.items()} == {
        "features": torch.float32, "logits": torch.float32, "labels": torch.int64,
    }  # fmt: skip
    assert not any(v.requires_grad for v in result.values())


def test_a_pass_leaves_the_network_as_it_was() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = ResNet(3, block="basic", depths=[1, 1, 1, 1], width=2)

        def extract(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            features, logits = self.net(x)
            return {"features": features, "logits": logits}

    network = Plain().train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    loader = EvalLoader(images(6), IDENTITY, 4)
    first = extract(network, loader, "x")  # type: ignore[arg-type]
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert torch.equal(first["logits"], extract(network, loader, "x")["logits"])  # type: ignore[arg-type]


SET: dict[str, Any] = {
    "_target_": "ood_lab.dataset.image_folder.ImageFolder", "name": "sun397", "root": "/a", "exclude": ["airport"],
    "layouts": {"folder": ["sun397"]}, "how_to_get": "x", "licence": "y", "mean": [0.5], "std": [0.5], "recipe": None,
}  # fmt: skip
TRANSFORM = {"resize": 32, "mean": [0.1], "std": [0.2]}


def key(weights: str = "w", split: str = "test", transform: dict[str, Any] = TRANSFORM, **changes: Any) -> str:
    return feature_key(weights, SET | changes, split, transform)


def test_a_key_is_twelve_hexadecimal_digits_and_stays() -> None:
    assert len(key()) == 12
    assert int(key(), 16) >= 0
    assert key() == key()


def test_a_key_changes_with_weights_split_images_and_transform() -> None:
    keys = [
        key(),
        key(weights="v"),
        key(split="val"),
        key(transform=TRANSFORM | {"mean": [0.2]}),
        key(transform=TRANSFORM | {"resize": 64}),
        key(exclude=[]),
        key(exclude=["airport", "beach"]),
        key(name="other"),
        key(seed=1),
    ]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("change", [{"root": "/b"}, {"how_to_get": "z"}, {"licence": "z"}, {"recipe": {"a": 1}}])
def test_a_key_does_not_change_with_the_place_or_what_is_said_about_the_set(change: dict[str, Any]) -> None:
    assert key(**change) == key()


def test_the_order_of_a_description_does_not_matter() -> None:
    assert feature_key("w", dict(reversed(SET.items())), "test", TRANSFORM) == key()


def tensors(projection: bool, labelled: bool = True) -> dict[str, torch.Tensor]:
    found = {"features": torch.rand(4, 3), "logits": torch.rand(4, 2), "labels": torch.tensor([0, 1, 1, 0])}
    if projection:
        found["projection"] = torch.rand(4, 5)
    if not labelled:
        found["labels"] = torch.full((4,), -1)
    return found


@pytest.mark.parametrize(
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
    with pytest.raises(ValueError, match=r"space=projection.*no projection"):
        Extracted(tensors(False)).features("projection")


def test_a_set_without_labels_has_none() -> None:
    assert Extracted(tensors(False, labelled=False)).features("method").labels is None


def test_saved_features_are_read_back_bit_for_bit(tmp_path: Path) -> None:
    found = tensors(True)
    found["features"] = torch.rand(3, 4).T  # not contiguous
    save_features(tmp_path / "deep" / "x.safetensors", found)
    back = load_features(tmp_path / "deep" / "x.safetensors").tensors
    assert back.keys() == found.keys()
    assert all(torch.equal(back[k], found[k]) for k in found)

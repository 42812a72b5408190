"""The embedded decoder: each image a function of its outlier and its noise, and of nothing that it is decoded with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from torch.nn import functional as F

from ood_lab.decoder.base import with_norm
from ood_lab.decoder.tiny import Tiny
from ood_lab.diffusion.network import Denoiser, Shape, described
from ood_lab.errors import RunError
from ood_lab.files.shards import ShardedSet
from tests.cases import each

NAMES, WIDTH, SIDE = ("cat", "dog", "bird"), 12, 8
SHAPE = Shape(side=SIDE, widths=(8, 16), blocks=1, attention=(), groups=4, condition=WIDTH)


def stored(folder: Path, about: dict[str, Any] | None = None, **tensors: np.ndarray) -> Path:
    """A set of one shard, as a run writes it."""
    count = len(next(iter(tensors.values())))
    ShardedSet(folder, "key", count, count, lambda a, b: {n: v[a:b] for n, v in tensors.items()}, NAMES, about).make()
    return folder


def needs(folder: Path, outliers: np.ndarray | None = None) -> dict[str, Path]:
    """Anchors, five outliers and an untrained network."""
    draw = np.random.default_rng(0)
    found = draw.normal(size=(5, WIDTH)).astype(np.float32) if outliers is None else outliers
    labels = np.array([0, 1, 2, 0, 1])[: len(found)]
    torch.manual_seed(0)
    save_file(Denoiser(SHAPE).state_dict(), folder / "g.safetensors", about())
    return {
        "anchors": stored(
            folder / "a", {"words": list(NAMES)}, anchors=draw.normal(size=(3, WIDTH)).astype(np.float32)
        ),
        "outliers": stored(folder / "o", outliers=found, labels=labels),
        "generator": folder / "g.safetensors",
    }


def about() -> dict[str, str]:
    return {"classes": json.dumps(NAMES), "network": described(SHAPE)}


def decoder(paths: dict[str, Path], **changes: Any) -> Tiny:
    options = {"count": 12, "shard_items": 6, "seed": 0, "batch": 4, "norm": "anchor", "steps": 3, "guidance": 2.0}
    return Tiny(needs=paths, **{**options, **changes})


def test_images_are_the_outliers_in_turn(tmp_path: Path) -> None:
    made = decoder(needs(tmp_path))
    found = made.produce(0, 12)
    assert found["images"].shape == (12, SIDE, SIDE, 3)
    assert found["images"].dtype == np.uint8
    assert found["outlier"].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    assert found["labels"].tolist() == [0, 1, 2, 0, 1, 0, 1, 2, 0, 1, 0, 1]
    assert made.classes == NAMES


@each("batch", [1, 3, 12])
def test_an_image_does_not_depend_on_what_it_is_decoded_with(batch: int, tmp_path: Path) -> None:
    paths = needs(tmp_path)
    whole = decoder(paths).produce(0, 12)["images"].astype(int)
    pieces = [decoder(paths, batch=batch).produce(a, b)["images"] for a, b in ((0, 5), (5, 6), (6, 12))]
    assert np.abs(np.concatenate(pieces).astype(int) - whole).max() <= 1  # rounded differently in another batch


def test_another_outlier_changes_its_images_alone(tmp_path: Path) -> None:
    outliers = np.random.default_rng(0).normal(size=(5, WIDTH)).astype(np.float32)
    (tmp_path / "x").mkdir(), (tmp_path / "y").mkdir()
    before = decoder(needs(tmp_path / "x", outliers)).produce(0, 5)["images"]
    changed = outliers.copy()
    changed[3] = -changed[3]
    after = decoder(needs(tmp_path / "y", changed)).produce(0, 5)["images"]
    differs = [bool((a != b).any()) for a, b in zip(before, after, strict=True)]
    assert differs == [False, False, False, True, False]


def test_guidance_of_one_takes_the_condition_alone(tmp_path: Path) -> None:
    """e_none + w (e - e_none) with w = 1, against a loop of DDIM's equation in float64."""
    paths = needs(tmp_path)
    made = decoder(paths, guidance=1.0, steps=4)
    network = made.network.double()
    noise = torch.stack([torch.randn(3, SIDE, SIDE, generator=_generator(n)) for n in range(2)])
    kept = torch.cos((torch.arange(1001) / 1000 + 0.008) / 1.008 * torch.pi / 2).double().square()
    betas = torch.minimum(1 - kept[1:] / kept[:-1], torch.tensor(0.999, dtype=torch.float64))
    alpha = (1 - betas).cumprod(0)
    x = noise.double()
    for t in (999, 749, 499, 249):
        e = network(x, torch.full((2,), t), made.outliers[:2].double())
        x0 = ((x - (1 - alpha[t]).sqrt() * e) / alpha[t].sqrt()).clamp(-1, 1)
        before = alpha[t - 250] if t >= 250 else torch.ones(())
        x = before.sqrt() * x0 + (1 - before).sqrt() * e
    expected = ((x.clamp(-1, 1) + 1) * 127.5).round()
    found = decoder(paths, guidance=1.0, steps=4).produce(0, 2)["images"].transpose(0, 3, 1, 2)
    assert np.abs(found.astype(float) - expected.detach().numpy()).max() <= 1


def _generator(number: int) -> torch.Generator:
    from ood_lab.random import generator

    return generator(0, "image", number)


@each("norm", ["anchor", "unit", "as_is"])
def test_the_norm_of_what_is_decoded(norm: str) -> None:
    torch.manual_seed(0)
    outliers, anchors = torch.randn(4, 6, dtype=torch.float64), 3 * torch.randn(4, 6, dtype=torch.float64)
    found = with_norm(outliers, anchors, norm)  # type: ignore[arg-type]
    lengths = {"anchor": anchors.norm(dim=1), "unit": torch.ones(4).double(), "as_is": outliers.norm(dim=1)}[norm]
    assert torch.allclose(found.norm(dim=1), lengths)
    assert torch.allclose(F.cosine_similarity(found, outliers), torch.ones(4).double())


def test_outliers_of_other_anchors_are_refused(tmp_path: Path) -> None:
    paths = needs(tmp_path)
    paths["anchors"] = stored(tmp_path / "b", anchors=np.ones((3, WIDTH + 1), np.float32))
    with pytest.raises(RunError, match=f"holds outliers of {WIDTH} numbers and 3 classes, .* 3 anchors of {WIDTH + 1}"):
        decoder(paths)


def test_a_model_of_other_classes_is_refused(tmp_path: Path) -> None:
    paths = needs(tmp_path)
    other = {**about(), "classes": json.dumps(["a", "b", "c"])}
    save_file(Denoiser(SHAPE).state_dict(), paths["generator"], other)
    with pytest.raises(RunError, match="was trained for classes"):
        decoder(paths)


@each("content", [b"", b"no tensors at all"])
def test_a_file_that_holds_no_diffusion_model_is_refused(content: bytes, tmp_path: Path) -> None:
    paths = needs(tmp_path)
    paths["generator"].write_bytes(content)
    with pytest.raises(RunError, match="holds no diffusion model"):
        decoder(paths)


def test_another_safetensors_file_is_refused(tmp_path: Path) -> None:
    paths = needs(tmp_path)
    save_arrays({"x": np.zeros(3)}, paths["generator"])
    with pytest.raises(RunError, match="holds no diffusion model"):
        decoder(paths)

"""Stable Diffusion as a decoder, on a tiny one: an outlier takes the place of the class's token, nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ood_lab.decoder.stable_diffusion import StableDiffusion, resized
from ood_lab.errors import RunError
from ood_lab.files.shards import ShardedSet
from tests.cases import each
from tests.tiny_diffusion import WIDTH, tiny_stable_diffusion

NAMES = ("cat", "ox", "goldfish")
WORDS = ("a", "of", "image", "cat", "ox")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_stable_diffusion(tmp_path_factory.mktemp("sd"), [*WORDS, "fish"], ["goldfish"])


def stored(folder: Path, about: dict[str, Any] | None = None, **tensors: np.ndarray) -> Path:
    count = len(next(iter(tensors.values())))
    ShardedSet(folder, "key", count, count, lambda a, b: {n: v[a:b] for n, v in tensors.items()}, NAMES, about).make()
    return folder


def needs(folder: Path, outliers: np.ndarray | None = None, words: tuple[str, ...] = ("cat", "ox", "fish")) -> Any:
    draw = np.random.default_rng(0)
    found = draw.normal(size=(4, WIDTH)).astype(np.float32) if outliers is None else outliers
    anchors = draw.normal(size=(3, found.shape[1])).astype(np.float32)
    return {
        "anchors": stored(folder / "a", {"words": list(words)}, anchors=anchors),
        "outliers": stored(folder / "o", outliers=found, labels=np.array([0, 1, 2, 0])),
    }


def decoder(model: Path, paths: Any, **changes: Any) -> StableDiffusion:
    options = {
        "model": str(model), "prompt": "a image of {word}", "suffixes": {}, "scheduler": "pndm", "steps": 4,
        "guidance": 3.0, "size": 16, "side": 8, "resize": "antialiased", "subtokens": "refuse", "precision": "float32",
        "count": 8, "shard_items": 4, "batch": 2, "norm": "as_is", "seed": 0,
    }  # fmt: skip
    return StableDiffusion(needs=paths, **{**options, **changes})


def test_an_outlier_is_embedded_where_its_word_was_and_nowhere_else(model: Path, tmp_path: Path) -> None:
    made = decoder(model, needs(tmp_path))
    encoder, tokenizer = made.pipe.text_encoder, made.pipe.tokenizer
    seen: list[torch.Tensor] = []
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    table = encoder.get_input_embeddings()
    labels = torch.tensor([0, 1, 2, 0])

    def look(_module: Any, inputs: Any) -> None:
        seen.append(inputs[0].clone())

    # What the first layer of the encoder is given, less the positions, is what the tokens are embedded as.
    handle = next(m for n, m in encoder.named_modules() if n.endswith("layers.0")).register_forward_pre_hook(look)
    found = made.encode(made.outliers[:4], labels)
    handle.remove()
    positions = next(m for n, m in encoder.named_modules() if n.endswith("position_embedding")).weight
    embedded = seen[0] - positions[None]
    for row, label in enumerate(labels.tolist()):
        word = ("cat", "ox", "fish")[label]
        ids = tokenizer(f"a image of {word}", padding="max_length", max_length=77, return_tensors="pt").input_ids[0]
        place = ids.tolist().index(tokenizer(word, add_special_tokens=False).input_ids[0])
        expected = table.weight[ids].clone()
        expected[place] = made.outliers[row]
        assert place == 4
        assert torch.allclose(embedded[row], expected, atol=1e-6)
    assert len(table._forward_hooks) == 0
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    # A causal encoder: what stands before the word is encoded as without an outlier, bit for bit.
    plain = encoder(made.ids[labels])[0]
    assert torch.equal(found[:, :4], plain[:, :4])
    assert not torch.equal(found[:, 4:], plain[:, 4:])


def test_with_its_own_embedding_an_outlier_changes_nothing(model: Path, tmp_path: Path) -> None:
    made = decoder(model, needs(tmp_path))
    rows = [made.pipe.tokenizer(word, add_special_tokens=False).input_ids[0] for word in ("cat", "ox", "fish")]
    own = made.pipe.text_encoder.get_input_embeddings().weight[rows]
    labels = torch.arange(3)
    assert torch.equal(made.encode(own, labels), made.pipe.text_encoder(made.ids)[0])


def test_another_outlier_changes_its_image_alone(model: Path, tmp_path: Path) -> None:
    outliers = np.random.default_rng(1).normal(size=(4, WIDTH)).astype(np.float32) * 3
    (tmp_path / "x").mkdir(), (tmp_path / "y").mkdir()
    before = decoder(model, needs(tmp_path / "x", outliers)).produce(0, 4)
    changed = outliers.copy()
    changed[2] = -changed[2]
    after = decoder(model, needs(tmp_path / "y", changed)).produce(0, 4)
    assert before["images"].shape == (4, 8, 8, 3)
    assert [bool((a != b).any()) for a, b in zip(before["images"], after["images"], strict=True)] == [
        False, False, True, False,
    ]  # fmt: skip


@each("batch", [1, 3, 8])
@each("scheduler", ["pndm", "ddim"])
def test_an_image_does_not_depend_on_what_it_is_decoded_with(
    batch: int, scheduler: str, model: Path, tmp_path: Path
) -> None:
    paths = needs(tmp_path)
    whole = decoder(model, paths, scheduler=scheduler).produce(0, 8)["images"].astype(int)
    made = decoder(model, paths, scheduler=scheduler, batch=batch)
    pieces = np.concatenate([made.produce(a, b)["images"] for a, b in ((0, 3), (3, 4), (4, 8))]).astype(int)
    assert np.abs(pieces - whole).max() <= 1
    assert len(np.unique(whole.reshape(8, -1), axis=0)) == 8


def test_a_word_of_several_tokens_is_refused_or_replaced_whole(model: Path, tmp_path: Path) -> None:
    paths = needs(tmp_path, words=("cat", "ox", "goldfish"))
    with pytest.raises(RunError, match="splits 'goldfish'"):
        decoder(model, paths)
    made = decoder(model, paths, subtokens="all")
    assert made.places.sum(1).tolist() == [1, 1, 2]


def test_a_prompt_without_the_word_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="does not contain the token of 'cat'"):
        decoder(model, needs(tmp_path), prompt="a image")


def test_a_suffix_stands_behind_the_word(model: Path, tmp_path: Path) -> None:
    made = decoder(model, needs(tmp_path), suffixes={"ox": " of cat"})
    assert made.prompts == ["a image of cat", "a image of ox of cat", "a image of fish"]
    assert made.places.sum(1).tolist() == [1, 1, 1]


def test_outliers_of_another_width_are_refused(model: Path, tmp_path: Path) -> None:
    outliers = np.ones((4, WIDTH + 2), np.float32)
    with pytest.raises(RunError, match=f"has tokens of {WIDTH} numbers, the outliers have {WIDTH + 2}"):
        decoder(model, needs(tmp_path, outliers))


def test_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"can't be loaded .*decoder=tiny"):
        decoder(tmp_path / "nowhere", needs(tmp_path))


def test_the_safety_checker_is_said_to_be_off(model: Path, tmp_path: Path) -> None:
    made = decoder(model, needs(tmp_path))
    assert "safety checker is off" in made.note
    assert made.pipe.safety_checker is None
    assert "8 images take 40 evaluations" in made.note  # one more than steps with PNDM


def test_released_images_are_those_of_the_script() -> None:
    """Bilinear to 256 without antialiasing, cut to whole levels; then as every image to the side asked for."""
    torch.manual_seed(0)
    images = torch.rand(2, 3, 512, 512)
    shrunk = F.interpolate(images, (256, 256), mode="bilinear", align_corners=False)
    assert torch.equal(resized(images, 256, "released"), (shrunk * 255).to(torch.uint8))
    smooth = resized(images, 32, "antialiased").float()
    assert torch.allclose(smooth.mean(), images.mean() * 255, atol=0.5)
    assert smooth.std() < 10  # of noise in [0, 255], 16 pixels of which are averaged each way

"""Anchors of a tiny CLIP: rows of its token table and outputs of its encoder, by its files; what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ood_lab.anchors.clip import CLIP
from ood_lab.errors import RunError
from ood_lab.text.clip import load_text_encoder, tokens_of_words
from tests.cases import each
from tests.tiny_diffusion import BEGIN_TEXT, END, END_TEXT, WIDTH, tiny_text_model

pytest.importorskip("transformers")

WORDS = ("cat", "fish", "goldfish", "ox")
SPLIT = ("lobster", "kangaroo")
TABLE = "embeddings.token_embedding.weight"


class Tiny(NamedTuple):
    """A model with the tokens and the token table of its files."""

    folder: Path
    numbers: dict[str, int]
    table: Tensor


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tiny_text_model(tmp_path_factory.mktemp("tiny"), WORDS, SPLIT)
    numbers = json.loads((folder / "tokenizer/tokenizer.json").read_text())["model"]["vocab"]
    weights = load_file(folder / "text_encoder/model.safetensors")
    return Tiny(folder, numbers, next(value for name, value in weights.items() if name.endswith(TABLE)))


def embedded(folder: Path, names: tuple[str, ...] = WORDS, **changes: Any) -> Tensor:
    options = {"words": {}, "seed": 0, "model": str(folder), "source": "tokens", "subtokens": "refuse", **changes}
    return CLIP(names, **options).embed()


def copied(tiny: Tiny, folder: Path) -> Path:
    return shutil.copytree(tiny.folder, folder / "copy")


def pieces(tiny: Tiny, word: str) -> list[int]:
    """The two tokens of a word that is split."""
    for cut in range(1, len(word)):
        first, second = word[:cut], word[cut:] + END
        if {first, second} <= set(tiny.numbers):
            return [tiny.numbers[first], tiny.numbers[second]]
    raise AssertionError(word)


def pooled(tiny: Tiny, tokens: list[int]) -> Tensor:
    """What the encoder gives at the end of a text that is read alone."""
    from transformers import CLIPTextModel

    encoder = CLIPTextModel.from_pretrained(tiny.folder / "text_encoder").eval()
    ids = [tiny.numbers[BEGIN_TEXT], *tokens, tiny.numbers[END_TEXT]]
    with torch.no_grad():
        return encoder(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]


def test_tokens_are_rows_of_the_table(tiny: Tiny) -> None:
    found = embedded(tiny.folder)
    assert (found.dtype, found.shape) == (torch.float32, (len(WORDS), WIDTH))
    for word, anchor in zip(WORDS, found, strict=True):
        assert torch.equal(anchor, tiny.table[tiny.numbers[word + END]]), word
    assert len({tuple(row.tolist()) for row in found}) == len(WORDS)
    assert not found.requires_grad


def test_text_is_the_encoders_output_at_the_end_of_each_word(tiny: Tiny) -> None:
    found = embedded(tiny.folder, source="text")
    assert (found.dtype, found.shape) == (torch.float32, (len(WORDS), WIDTH))
    for word, anchor in zip(WORDS, found, strict=True):
        torch.testing.assert_close(anchor, pooled(tiny, [tiny.numbers[word + END]]), atol=1e-5, rtol=0)
    assert torch.pdist(found).min() > 0.1
    assert not found.requires_grad


@each("source", ["tokens", "text"])
def test_a_word_of_several_tokens_is_refused_by_name(source: str, tiny: Tiny) -> None:
    with pytest.raises(RunError) as caught:
        embedded(tiny.folder, ("cat", "lobster", "kangaroo"), source=source)
    message = str(caught.value)
    assert "'lobster' (2 tokens), 'kangaroo' (2 tokens)" in message
    assert "'cat'" not in message
    assert "anchors.subtokens=all" in message
    assert len(message.splitlines()) == 1


def test_all_tokens_of_a_word_are_averaged_where_that_is_asked_for(tiny: Tiny) -> None:
    found = embedded(tiny.folder, ("lobster", "cat", "kangaroo"), subtokens="all")
    for word, anchor in zip(("lobster", "kangaroo"), found[::2], strict=True):
        first, second = (tiny.table[number] for number in pieces(tiny, word))
        torch.testing.assert_close(anchor, (first + second) / 2, atol=1e-7, rtol=0)
    assert torch.equal(found[1], tiny.table[tiny.numbers["cat" + END]])


def test_all_tokens_of_a_word_are_read_by_the_encoder_among_shorter_ones(tiny: Tiny) -> None:
    found = embedded(tiny.folder, ("cat", "lobster", "ox"), subtokens="all", source="text")
    expected = [[tiny.numbers["cat" + END]], pieces(tiny, "lobster"), [tiny.numbers["ox" + END]]]
    for anchor, tokens in zip(found, expected, strict=True):
        torch.testing.assert_close(anchor, pooled(tiny, tokens), atol=1e-5, rtol=0)


@each("source", ["tokens", "text"])
def test_words_stand_for_classes(source: str, tiny: Tiny) -> None:
    expected = embedded(tiny.folder, ("fish", "ox", "cat"), source=source)
    found = embedded(tiny.folder, ("aquarium_fish", "kangaroo", "cat"), words={"kangaroo": "ox"}, source=source)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_a_word_for_a_class_that_there_is_not_is_refused(tiny: Tiny) -> None:
    with pytest.raises(RunError, match=r"anchors\.words: no class 'cow'; the classes are cat, fish"):
        embedded(tiny.folder, words={"cow": "ox"})


@each("subtokens", ["refuse", "all"])
@each("word", ["7", "cat7", "7cat", "!"])
def test_a_word_that_the_tokenizer_does_not_know_is_refused(word: str, subtokens: str, tiny: Tiny) -> None:
    with pytest.raises(RunError, match=rf"the tokenizer does not know '{word}'"):
        embedded(tiny.folder, ("cat", "fish"), words={"fish": word}, subtokens=subtokens)


def test_an_empty_word_is_refused(tiny: Tiny) -> None:
    with pytest.raises(RunError, match="the tokenizer does not know ''"):
        embedded(tiny.folder, ("cat", "fish"), words={"fish": ""}, subtokens="all")


def test_tokens_are_without_those_of_beginning_and_end(tiny: Tiny) -> None:
    tokenizer, _ = load_text_encoder(str(tiny.folder))
    found = tokens_of_words(tokenizer, ["ox", "cat fish", "lobster"], "all")
    ox, cat, fish = (tiny.numbers[word + END] for word in ("ox", "cat", "fish"))
    assert found == [[ox], [cat, fish], pieces(tiny, "lobster")]


def test_items_are_the_classes_in_their_order(tiny: Tiny) -> None:
    swapped = {"ox": "cat", "cat": "ox"}
    made = CLIP(WORDS, words=swapped, seed=0, model=str(tiny.folder), source="tokens", subtokens="refuse")
    assert (made.count, made.shard_items, made.classes) == (4, 4, WORDS)
    assert made.about == {"words": ["ox", "fish", "goldfish", "cat"]}
    whole = made.produce(0, 4)["anchors"]
    assert np.array_equal(np.concatenate([made.produce(0, 3)["anchors"], made.produce(3, 4)["anchors"]]), whole)
    assert np.array_equal(whole, embedded(tiny.folder, words=swapped).numpy())


def test_the_encoder_is_not_trained(tiny: Tiny) -> None:
    _, encoder = load_text_encoder(str(tiny.folder))
    assert not encoder.training
    assert not any(p.requires_grad for p in encoder.parameters())


@each("source", ["tokens", "text"])
def test_a_folder_of_transformers_is_one_of_diffusers_without_parts(source: str, tiny: Tiny, tmp_path: Path) -> None:
    flat = tiny_text_model(tmp_path, WORDS, SPLIT, pipeline=False)
    assert (flat / "config.json").is_file()
    assert torch.equal(embedded(flat, source=source), embedded(tiny.folder, source=source))


@each("source", ["tokens", "text"])
def test_files_may_be_those_of_stable_diffusion_1(source: str, tiny: Tiny, tmp_path: Path) -> None:
    """Its tokenizer has two files, its weights are under "text_model." and its config has an end of text of 2."""
    folder = copied(tiny, tmp_path)
    model = json.loads((folder / "tokenizer/tokenizer.json").read_text())["model"]
    (folder / "tokenizer/tokenizer.json").unlink()
    (folder / "tokenizer/vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "tokenizer/merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    path = folder / "text_encoder/model.safetensors"
    weights = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in load_file(path).items()}
    save_file(weights, path, {"format": "pt"})
    config = folder / "text_encoder/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "bos_token_id": 0, "eos_token_id": 2}))
    torch.testing.assert_close(embedded(folder, source=source), embedded(tiny.folder, source=source), atol=1e-6, rtol=0)


@each("source", ["tokens", "text"])
def test_weights_of_half_precision_give_float32(source: str, tiny: Tiny, tmp_path: Path) -> None:
    folder = copied(tiny, tmp_path)
    path = folder / "text_encoder/model.safetensors"
    save_file({name: value.half() for name, value in load_file(path).items()}, path, {"format": "pt"})
    config = folder / "text_encoder/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "dtype": "float16"}))
    found = embedded(folder, source=source)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, embedded(tiny.folder, source=source), atol=2e-2, rtol=0)


def assert_not_loaded(folder: Path) -> None:
    with pytest.raises(RunError) as caught:
        load_text_encoder(str(folder))
    message = str(caught.value)
    assert message.startswith(f"the model {folder} can't be loaded (")
    assert message.endswith("decoder=tiny anchors=random")
    assert len(message.splitlines()) == 1


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert_not_loaded(tmp_path / "nothing")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    assert_not_loaded(tmp_path)


@each("missing", ["tokenizer", "text_encoder", "text_encoder/model.safetensors", "tokenizer/tokenizer.json"])
def test_a_model_without_one_of_its_parts_is_refused(missing: str, tiny: Tiny, tmp_path: Path) -> None:
    folder = copied(tiny, tmp_path)
    path = folder / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert_not_loaded(folder)


@each("file", ["text_encoder/config.json", "tokenizer/tokenizer.json", "text_encoder/model.safetensors"])
def test_a_file_that_is_cut_is_refused(file: str, tiny: Tiny, tmp_path: Path) -> None:
    path = copied(tiny, tmp_path) / file
    path.write_bytes(path.read_bytes()[:300])
    assert_not_loaded(tmp_path / "copy")

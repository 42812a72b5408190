"""A CLIP text encoder and its tokenizer, from a folder or from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ood_lab.errors import RunError
from ood_lab.text.model import loading

Subtokens = Literal["refuse", "all"]


def load_text_encoder(model: str) -> tuple[Any, Any]:
    """The tokenizer and the text encoder of Stable Diffusion or of a CLIP, in evaluation mode.

    Args:
        model: a folder in the format of diffusers (with tokenizer/ and text_encoder/) or of transformers, or the id of
            such a model on the hub.

    Raises:
        RunError: transformers is not installed, or the model can't be loaded.
    """
    try:
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
    except ImportError:
        raise RunError(
            "CLIP's text encoder needs transformers, which is not installed: pip install 'ood-lab[diffusion]'"
        ) from None
    with loading(model):
        parts = _parts(model, CLIPTextConfig)
        tokenizer = CLIPTokenizer.from_pretrained(model, **parts[0])
        loaded: Any = CLIPTextModel.from_pretrained(model, **parts[1], output_loading_info=True)
    encoder, report = loaded
    if report["missing_keys"]:
        raise RunError(f"the model {model} lacks {sorted(report['missing_keys'])[0]}; download it again")
    return tokenizer, encoder.eval().requires_grad_(False)


def _parts(model: str, config: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Where tokenizer and text encoder lie in a model: below it in Stable Diffusion, themselves in a CLIP.

    transformers gives a tokenizer of two tokens for a folder that is not there.
    """
    below = {"subfolder": "tokenizer"}, {"subfolder": "text_encoder"}
    folder = Path(model)
    if not folder.is_dir():
        try:
            config.from_pretrained(model, **below[1])
        except OSError:
            return {}, {}
        return below
    found = below if any((folder / part["subfolder"]).is_dir() for part in below) else ({}, {})
    for part, files in zip(found, (("tokenizer.json", "vocab.json"), ("config.json",)), strict=True):
        there = folder / part.get("subfolder", "")
        if not any((there / file).is_file() for file in files):
            raise OSError(f"{there / files[0]} is not there")
    return found


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a text, without those of its beginning and end."""
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def tokens_of_words(tokenizer: Any, words: Sequence[str], subtokens: Subtokens) -> list[list[int]]:
    """The tokens of each word.

    Args:
        subtokens: whether a word of several tokens is refused, or taken with all of them.

    Raises:
        RunError: a word of several tokens, or of one that the tokenizer does not know.
    """
    found = [token_ids(tokenizer, word) for word in words]
    unknown = [w for w, ids in zip(words, found, strict=True) if not ids or tokenizer.unk_token_id in ids]
    if unknown:
        raise RunError(f"the tokenizer does not know {', '.join(map(repr, unknown))}; give other words (anchors.words)")
    split = [f"{word!r} ({len(ids)} tokens)" for word, ids in zip(words, found, strict=True) if len(ids) > 1]
    if split and subtokens == "refuse":
        raise RunError(
            f"the tokenizer splits {', '.join(split)}; give each class a word of one token, as in "
            "anchors.words={aquarium_fish:fish}, or take all tokens of a word with anchors.subtokens=all"
        )
    return found

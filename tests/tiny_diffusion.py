"""Tiny, randomly initialised parts of a diffusion model, in folders as transformers and diffusers write them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from string import ascii_lowercase

import torch

WIDTH = 32  # of the text encoder's embeddings
END = "</w>"  # what a token has that ends a word
BEGIN_TEXT, END_TEXT = "<|startoftext|>", "<|endoftext|>"


def tiny_text_model(
    folder: Path, words: Sequence[str], split_words: Sequence[str] = (), *, pipeline: bool = True
) -> Path:
    """A CLIP tokenizer and a text encoder of `WIDTH` numbers.

    Args:
        words: of lower-case letters; each is one token.
        split_words: each is two tokens. Any other word is split, too, most often into its letters.
        pipeline: whether they lie in tokenizer/ and text_encoder/, as diffusers has them, or both in `folder`.
    """
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    merges = merges_of(words, split_words)
    tokens = [*ascii_lowercase, *(letter + END for letter in ascii_lowercase), *("".join(pair) for pair in merges)]
    vocabulary = {token: number for number, token in enumerate([*tokens, BEGIN_TEXT, END_TEXT])}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)
    for chosen, pieces in ((words, 1), (split_words, 2)):
        for word in chosen:
            found = tokenizer(word, add_special_tokens=False).input_ids
            assert len(found) == pieces, f"{word!r} has {len(found)} tokens"
    begin, end = vocabulary[BEGIN_TEXT], vocabulary[END_TEXT]
    config = CLIPTextConfig(
        vocab_size=len(vocabulary), hidden_size=WIDTH, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4,
        bos_token_id=begin, eos_token_id=end, pad_token_id=end,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = CLIPTextModel(config)
    tokenizer.save_pretrained(folder / "tokenizer" if pipeline else folder)
    encoder.save_pretrained(folder / "text_encoder" if pipeline else folder)
    return folder


def merges_of(words: Sequence[str], split_words: Sequence[str]) -> list[tuple[str, str]]:
    """Byte-pair merges that make one token of each of `words`, and two of each of `split_words`."""
    merges: list[tuple[str, str]] = []
    for chosen, pieces in ((words, 1), (split_words, 2)):
        for word in chosen:
            found = encoded([*word[:-1], word[-1] + END], merges)
            while len(found) > pieces:
                merges.append((found[0], found[1]))
                found = encoded(found, merges)
    return merges


def encoded(pieces: Sequence[str], merges: Sequence[tuple[str, str]]) -> list[str]:
    """The pieces of a word after the merges, the earliest merge first."""
    found = list(pieces)
    for left, right in merges:
        place = 0
        while place < len(found) - 1:
            if (found[place], found[place + 1]) == (left, right):
                found[place : place + 2] = [left + right]
            place += 1
    return found


def tiny_stable_diffusion(folder: Path, words: Sequence[str], split_words: Sequence[str] = ()) -> Path:
    """A Stable Diffusion of a few thousand weights, as diffusers stores one; its images have 16 pixels a side."""
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel

    tiny_text_model(folder, words, split_words)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            block_out_channels=(4, 8), layers_per_block=1, sample_size=8, in_channels=4, out_channels=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=WIDTH, norm_num_groups=2,
        )  # fmt: skip
        vae = AutoencoderKL(
            block_out_channels=[4, 8], in_channels=3, out_channels=3, latent_channels=4, norm_num_groups=2,
            down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
        )  # fmt: skip
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    scheduler.save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder

"""Stable Diffusion as a decoder: an outlier in the place of the token of its class's word (DreamOOD; BOOD, Eq. 6).

Shape letters: n images, L tokens of a prompt, D numbers of a token, S side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.config.ranges import NonNegativeFloat, PositiveInt
from ood_lab.decoder.base import Decoder
from ood_lab.diffusion.sampling import starting_noise
from ood_lab.errors import RunError
from ood_lab.text.anchors import load_words
from ood_lab.text.clip import Subtokens, token_ids, tokens_of_words
from ood_lab.text.model import loading

RELEASED_SIDE = 256  # to which DreamOOD's script brings its images, without antialiasing


class StableDiffusion(Decoder):
    """Draws images for a prompt whose class word has an outlier for its embedding; the weights stay as they are.

    Each image has an outlier, a prompt and a noise of its own, so that an image does not depend on what it is decoded
    with. The safety checker is off, which is said: it would replace images by black ones.

    Args:
        model: a folder in the format of diffusers, or an id on the Hugging Face hub.
        prompt: with {word} where the class's word goes.
        suffixes: by word what follows it in the prompt, as DreamOOD has for a few.
        scheduler: "pndm" (PLMS in DreamOOD's command line), or "ddim".
        steps: of the scheduler.
        guidance: w in e_none + w (e_prompt - e_none).
        size: of the images that the model draws.
        side: of those that are kept.
        resize: "antialiased", or "released": as DreamOOD's script, to 256 without antialiasing, and truncated.
        subtokens: whether a word of several tokens is refused, or all its tokens are replaced.
        precision: of the model; float16 needs a GPU.

    Raises:
        RunError: the model can't be loaded, its tokens have another width than the outliers, a prompt lacks its word.
    """

    models: ClassVar[tuple[str, ...]] = ("model",)

    def __init__(
        self,
        *,
        model: str,
        prompt: str,
        suffixes: dict[str, str],
        scheduler: Literal["pndm", "ddim"],
        steps: PositiveInt,
        guidance: NonNegativeFloat,
        size: PositiveInt,
        side: PositiveInt,
        resize: Literal["antialiased", "released"],
        subtokens: Subtokens,
        precision: Literal["float16", "bfloat16", "float32"],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.steps, self.guidance, self.size, self.side, self.resize = steps, guidance, size, side, resize
        self.pipe = _load(model, scheduler, getattr(torch, precision))
        width = self.pipe.text_encoder.get_input_embeddings().weight.shape[1]
        if width != self.outliers.shape[1]:
            raise RunError(
                f"decoder.model={model} has tokens of {width} numbers, the outliers have {self.outliers.shape[1]}; use "
                "a model whose text encoder is that of the anchors (Stable Diffusion 1: 768), or anchors of its width"
            )
        words = load_words(options["needs"]["anchors"])
        self.prompts = [prompt.replace("{word}", word + suffixes.get(word, "")) for word in words]
        tokens = tokens_of_words(self.pipe.tokenizer, words, subtokens)
        self.ids, self.places = _tokenised(self.pipe.tokenizer, self.prompts, tokens, words)

    def to(self, device: torch.device) -> None:
        self.pipe.to(device)
        self.device = device

    @property
    def note(self) -> str:
        calls = self.count * (self.steps + (self.pipe.scheduler.__class__.__name__ == "PNDMScheduler"))
        doubled = ", twice as many with guidance" if self.guidance != 1 else ""
        return (
            f"{self.count:,} images take {calls:,} evaluations of the U-Net{doubled}, {self.batch} images at a time. "
            "The model's safety checker is off"
        )

    @torch.no_grad()
    def encode(self, outliers_nD: Tensor, labels_n: Tensor) -> Tensor:
        """The text encoder's output [n, L, D] for the prompts of the classes, outliers in their words' places."""
        with _replaced(self.pipe.text_encoder.get_input_embeddings(), outliers_nD, self.places[labels_n]):
            found: Tensor = self.pipe.text_encoder(self.ids[labels_n].to(self.device))[0]
        return found

    @torch.no_grad()
    def decode(self, outliers_nD: Tensor, labels_n: Tensor, start: int) -> Tensor:
        pipe = self.pipe
        prompt = self.encode(outliers_nD, labels_n)
        side = self.size // pipe.vae_scale_factor
        shape = (pipe.unet.config.in_channels, side, side)
        noise = starting_noise(self.seed, start, start + len(labels_n), shape).to(self.device, prompt.dtype)
        images: Tensor = pipe(
            prompt_embeds=prompt,
            negative_prompt_embeds=self._nothing.expand(len(prompt), -1, -1),
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            height=self.size,
            width=self.size,
            latents=noise,
            output_type="pt",
        ).images
        return resized(images.float(), self.side, self.resize)

    @property
    def _nothing(self) -> Tensor:
        """The encoder's output for an empty prompt [1, L, D]."""
        tokenizer = self.pipe.tokenizer
        ids = tokenizer("", padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt").input_ids
        found: Tensor = self.pipe.text_encoder(ids.to(self.device))[0]
        return found


def resized(images_nCSS: Tensor, side: int, resize: Literal["antialiased", "released"]) -> Tensor:
    """uint8 [n, 3, side, side] of images in [0, 1]."""
    if resize == "released":
        shrunk = F.interpolate(images_nCSS, (RELEASED_SIDE, RELEASED_SIDE), mode="bilinear").clamp(0, 1)
        images_nCSS = (shrunk * 255).floor() / 255
    if images_nCSS.shape[-1] != side:
        images_nCSS = F.interpolate(images_nCSS, (side, side), mode="bilinear", antialias=True)
    return (images_nCSS.clamp(0, 1) * 255).round().to(torch.uint8)


@contextmanager
def _replaced(embedding: torch.nn.Module, outliers_nD: Tensor, places_nL: Tensor) -> Iterator[None]:
    """While the tokens at these places are embedded as the outlier of their row."""

    def replace(_module: torch.nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        there = places_nL.to(output.device)[..., None]
        return torch.where(there, outliers_nD.to(output)[:, None], output)

    handle = embedding.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def _tokenised(
    tokenizer: Any, prompts: Sequence[str], tokens: Sequence[Sequence[int]], words: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """The tokens of each prompt [C, L], and where those of its word are, bool [C, L].

    Raises:
        RunError: a prompt is too long, or does not contain the tokens of its word.
    """
    length = tokenizer.model_max_length
    ids = tokenizer(list(prompts), padding="max_length", max_length=length, return_tensors="pt").input_ids
    if ids.shape[1] > length:
        raise RunError(f"decoder.prompt has {ids.shape[1]} tokens; the text encoder takes {length}. Shorten it")
    places = torch.zeros_like(ids, dtype=torch.bool)
    for row, (prompt, wanted) in enumerate(zip(prompts, tokens, strict=True)):
        inside = token_ids(tokenizer, prompt)
        starts = [i for i in range(len(inside)) if inside[i : i + len(wanted)] == list(wanted)]
        for start in starts:
            places[row, 1 + start : 1 + start + len(wanted)] = True  # behind the token of the beginning
        if not starts:
            raise RunError(
                f"decoder.prompt: {prompt!r} does not contain the token of {words[row]!r}, so that an outlier would "
                "change nothing; write {word} as a word of its own"
            )
    return ids, places


def _load(model: str, scheduler: str, dtype: torch.dtype) -> Any:
    """The pipeline of a model, with the scheduler asked for and without its safety checker."""
    try:
        from diffusers import DDIMScheduler, PNDMScheduler, StableDiffusionPipeline
    except (ImportError, RuntimeError) as error:  # diffusers loads transformers when it is asked for
        raise RunError(
            f"Stable Diffusion needs transformers ({error}): pip install 'ood-lab[diffusion]'; or use decoder=tiny"
        ) from None
    with loading(model):
        pipe = StableDiffusionPipeline.from_pretrained(
            model, torch_dtype=dtype, safety_checker=None, requires_safety_checker=False
        )
    config = pipe.scheduler.config
    pipe.scheduler = (
        PNDMScheduler.from_config(config, skip_prk_steps=True)
        if scheduler == "pndm"
        else DDIMScheduler.from_config(config, clip_sample=False, set_alpha_to_one=False)
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe

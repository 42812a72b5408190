"""Anchors of CLIP: what its text encoder has for the word of each class."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ood_lab.anchors.base import Anchors
from ood_lab.text.clip import Subtokens, load_text_encoder, tokens_of_words


class CLIP(Anchors):
    """Rows of the token table, or outputs of the text encoder.

    BOOD and DreamOOD write of the encoder's output; the anchors that DreamOOD ships are rows of the table, which is the
    space in which a diffusion model's prompt can be changed.

    Args:
        model: a folder or an id on the hub (see `load_text_encoder`).
        source: "tokens": the row of the word's token, of several their mean; "text": the encoder's pooled output for
            the word.
        subtokens: see `tokens_of_words`.

    Raises:
        RunError: the model can't be loaded, or its tokenizer splits a word.
    """

    models: ClassVar[tuple[str, ...]] = ("model",)

    def __init__(
        self, *args: Any, model: str, source: Literal["tokens", "text"], subtokens: Subtokens, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self.model, self.source, self.subtokens = model, source, subtokens

    @torch.no_grad()
    def embed(self) -> Tensor:
        tokenizer, encoder = load_text_encoder(self.model)
        tokens = tokens_of_words(tokenizer, self.words, self.subtokens)
        if self.source == "tokens":
            table = encoder.get_input_embeddings().weight
            return torch.stack([table[ids].mean(0) for ids in tokens]).float()
        inputs = tokenizer(list(self.words), padding=True, return_tensors="pt")
        pooled: Tensor = encoder(**inputs).pooler_output
        return pooled.float()

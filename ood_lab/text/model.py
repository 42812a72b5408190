"""Loading a pretrained model, and what to say where that fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError

from ood_lab.errors import RunError


@contextmanager
def loading(model: str) -> Iterator[None]:
    """While a model is loaded: what goes wrong becomes one message.

    Raises:
        RunError: the model is not there and can't be had, or its files can't be read.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RunError(
            f"the model {model} can't be loaded ({reason}). Name the folder of a downloaded one, or use what needs no "
            "weights: decoder=tiny anchors=random"
        ) from None

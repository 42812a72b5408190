"""Pictures in whatever form a program has them: paths, PIL images, arrays, tensors, and lists of these."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ood_lab.errors import RunError
from ood_lab.reader.picture import decode, to_rgb

CHANNELS = (1, 3, 4)
ROUNDING = 1e-3  # by which resizing may leave 0..1


def pictures(given: Any) -> Iterator[Image.Image]:
    """Each picture in RGB, 8 bits a channel.

    A path is a file's. An array is [H, W], [H, W, C] or [N, H, W, C], a tensor [H, W], [C, H, W] or [N, C, H, W]; where
    only the other order fits, it is taken. Whole numbers are 0..255, fractions 0..1. An iterable holds any of these.

    Raises:
        RunError: no picture, or values outside 0..255 and 0..1; its place is named.
    """
    yield from _pictures(given, "image 0", 0)


def _pictures(given: Any, name: str, place: int) -> Iterator[Image.Image]:
    if isinstance(given, str | os.PathLike):
        path = Path(given).expanduser()
        if path.is_dir():
            raise RunError(f"{path}: a folder; give the pictures in it")
        yield decode(path)
    elif isinstance(given, Image.Image):
        yield to_rgb(given, name)
    elif isinstance(given, np.ndarray) or hasattr(given, "detach"):
        yield from _of_array(given, name)
    elif isinstance(given, Iterable) and not isinstance(given, bytes | Mapping):
        for number, one in enumerate(given, place):
            yield from _pictures(one, f"image {number}", number)
    else:
        raise RunError(
            f"{name}: got {type(given).__name__}; expected a path, a PIL image, an array, a tensor, or a list"
        )


def _of_array(given: Any, name: str) -> Iterator[Image.Image]:
    first = hasattr(given, "detach")  # a tensor's channels come first
    values = _numbers(given) if first else given
    if values.dtype.kind not in "iubf":
        raise RunError(f"{name}: values of type {values.dtype}; expected numbers")
    if not values.size:
        raise RunError(f"{name}: no pixels, shape {list(values.shape)}")
    if values.ndim == 4:
        for number, one in enumerate(values):
            yield _picture(one, first, f"image {number}")
    elif values.ndim in (2, 3):
        yield _picture(values, first, name)
    else:
        raise RunError(f"{name}: shape {list(values.shape)}; expected [H, W, C] or [N, H, W, C]; of a tensor, C first")


def _numbers(tensor: Any) -> np.ndarray:
    """A tensor as an array; NumPy has no bfloat16."""
    plain = tensor.detach().cpu()
    found: np.ndarray = (plain.float() if plain.is_floating_point() else plain).numpy()
    return found


def _picture(values: np.ndarray, channels_first: bool, name: str) -> Image.Image:
    if values.ndim == 3:
        ends = (values.shape[0], values.shape[-1])
        if not set(ends) & set(CHANNELS):
            raise RunError(
                f"{name}: shape {list(values.shape)}; expected 1, 3 or 4 channels; a stack of grey pictures is "
                "[N, H, W, 1]"
            )
        if ends[0] in CHANNELS and (channels_first or ends[1] not in CHANNELS):
            values = np.moveaxis(values, 0, -1)
        values = values[..., 0] if values.shape[-1] == 1 else values[..., :3]
    if values.dtype.kind == "f":
        if not (np.isfinite(values).all() and values.min() >= -ROUNDING and values.max() <= 1 + ROUNDING):
            raise RunError(
                f"{name}: fractions outside 0..1; give pixels before they are normalised, as 0..1 or whole 0..255"
            )
        values = (values.clip(0, 1) * 255).round()
    elif values.min() < 0 or values.max() > 255:
        raise RunError(f"{name}: values of type {values.dtype} from {values.min()} to {values.max()}; expected 0..255")
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")

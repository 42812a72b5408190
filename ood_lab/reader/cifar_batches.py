"""The python batches of CIFAR-10 and CIFAR-100: `batches: [files]`, `classes: file`."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from ood_lab.errors import RunError
from ood_lab.reader.base import Listing, check_names, one_file

# All that a batch is made of; a pickle may otherwise run any code.
ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which no batch of images needs")
        return super().find_class(module, name)


def read(root: Path, source: dict[str, Any]) -> Listing:
    """The images of all batches, one after the other, with fine labels.

    Raises:
        RunError: a file is missing, truncated or no batch; it is named.
    """
    files = [one_file(root, name) for name in source["batches"]]
    pixels, labels = [], []
    for file in files:
        batch = _load(file)
        try:
            flat = np.asarray(batch["data"], np.uint8)
            labels.extend(batch["labels"] if "labels" in batch else batch["fine_labels"])
            pixels.append(flat.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        except (KeyError, ValueError) as error:
            raise RunError(f"{file}: not a CIFAR batch ({error})") from None
    values = np.array(labels, np.int64)
    names, origin = class_names(root, source), str(files[0].parent)
    return Listing(values, names, origin, pixels=np.concatenate(pixels), files=tuple(files))


def is_there(root: Path, source: dict[str, Any]) -> list[str]:
    """The files that are missing."""
    return [name for name in (*source["batches"], source["classes"]) if not (root / name).is_file()]


def class_names(root: Path, source: dict[str, Any]) -> tuple[str, ...]:
    """The names that are stored beside the batches; the fine ones of CIFAR-100."""
    file = one_file(root, source["classes"])
    meta = _load(file)
    names = meta.get("label_names") or meta.get("fine_label_names")
    if not names:
        raise RunError(f"{file}: holds no class names")
    check_names(names, str(file))
    return tuple(names)


def _load(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            loaded = _Restricted(stream, encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError) as error:
        raise RunError(f"{file}: truncated or no CIFAR batch ({error}). Unpack the archive again.") from None
    if not isinstance(loaded, dict):
        raise RunError(f"{file}: not a CIFAR batch (it holds a {type(loaded).__name__})")
    return loaded

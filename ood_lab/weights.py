"""Published weights: reading a checkpoint of any of the usual shapes, and fitting it into our networks."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ood_lab.errors import RequestError

COUNTERS = "num_batches_tracked"


def read_weights(path: Path, sha256: str | None) -> dict[str, Tensor]:
    """The tensors of a checkpoint (.safetensors, or whatever torch.save wrote), without running any code in it.

    A nested "state_dict" is unwrapped and the "module." of a parallel network taken off its names.

    Args:
        sha256: of the file, or its first digits (torchvision prints eight in a file's name); None where none is known.

    Raises:
        RequestError: another checksum (both are shown), or not a checkpoint of tensors.
    """
    if sha256 is not None:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if not found.startswith(sha256):
            raise RequestError(
                f"{path}: SHA-256 {found[: len(sha256)]} where {sha256} belongs. Delete the file and get it again."
            )
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
            state = state.get("state_dict", state)
        tensors = {name: value.detach() for name, value in state.items()}
    except (pickle.UnpicklingError, SafetensorError, EOFError, RuntimeError, AttributeError) as error:
        raise RequestError(f"{path} is no checkpoint of tensors: {' '.join(str(error).split())[:300]}") from None
    prefix = "module." if all(name.startswith("module.") for name in tensors) else ""
    return {name.removeprefix(prefix): value for name, value in tensors.items()}


def adapt(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of another implementation under our names.

    They are matched in order: every implementation lists its convolutions and norms as they are defined, and ours
    defines them in the order of the public ones. Each shape is checked here; tests compare outputs. Counters of
    batches, which only some checkpoints have, stay as they are.

    Raises:
        RequestError: the first pair that doesn't fit, or how many tensors are too many or too few.
    """
    given = [(name, value) for name, value in theirs.items() if not name.endswith(COUNTERS)]
    wanted = [(name, value) for name, value in ours.items() if not name.endswith(COUNTERS)]
    out = dict(ours)
    for (their_name, value), (our_name, like) in zip(given, wanted, strict=False):
        if value.shape != like.shape:
            raise RequestError(
                f"the weights' {their_name} {list(value.shape)} does not fit {our_name} {list(like.shape)}; "
                "choose the backbone that they were trained with, and a data set with as many classes"
            )
        out[our_name] = value.to(like.dtype)
    if len(given) != len(wanted):
        raise RequestError(
            f"the weights hold {len(given)} tensors where the chosen backbone has {len(wanted)}; "
            "choose the backbone that they were trained with"
        )
    return out

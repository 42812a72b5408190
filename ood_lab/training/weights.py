"""Weights from a file: a checkpoint of any usual shape, fitted into our networks by name, or else by order."""

from __future__ import annotations

import argparse
import hashlib
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ood_lab.errors import RequestError

COUNTERS = "num_batches_tracked"
# Where training scripts put the network, the first that is there.
WRAPPERS = ("state_dict", "model", "net")
# What they put beside it, which is data and no code: numbers of NumPy and the arguments of a command line.
_SCALAR, _ARRAY = np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]
HARMLESS: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"), (_SCALAR, "numpy._core.multiarray.scalar"),
    (_ARRAY, "numpy.core.multiarray._reconstruct"), (_ARRAY, "numpy._core.multiarray._reconstruct"),
    np.ndarray, np.dtype, argparse.Namespace, *{type(np.dtype(code)) for code in "?bBhHiIlLefd"},
]  # fmt: skip
KINDS = {"weight", "bias", "running_mean", "running_var"}
# What other libraries call these. Of a vector the kind can't be told otherwise: all of a norm's have one shape.
SYNONYMS = {
    "gamma": "weight", "scale": "weight", "beta": "bias", "offset": "bias",
    "moving_mean": "running_mean", "mean": "running_mean",
    "moving_variance": "running_var", "moving_var": "running_var", "var": "running_var",
}  # fmt: skip
FIT = "choose the backbone that they were trained with"


def read_weights(
    path: Path, sha256: str | None = None, key: str | None = None, option: str = "init.key"
) -> dict[str, Tensor]:
    """The tensors of a checkpoint (.safetensors, or whatever torch.save wrote), without running any code in it.

    A network that lies below "state_dict", "model" or "net" is taken out, or below any other name if it is the only
    one; what lies beside the tensors is left out, and the "module." of a parallel network taken off their names.

    Args:
        sha256: of the file, or its first digits (torchvision prints eight in a file's name); None where none is known.
        key: where the network lies: a name in the checkpoint, or what the names of its tensors begin with.
        option: by which a user gives the key, for messages.

    Raises:
        RequestError: another checksum (both are shown), not a checkpoint of tensors, or several networks.
    """
    if sha256 is not None:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if not found.startswith(sha256):
            raise RequestError(
                f"{path}: SHA-256 {found[: len(sha256)]} where {sha256} belongs. Delete the file and get it again."
            )
    try:
        if not keeps_order(path):
            state: Any = load_file(path)
        else:
            with torch.serialization.safe_globals(HARMLESS):
                state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, EOFError, RuntimeError, AttributeError, KeyError) as error:
        raise RequestError(f"{path} is no checkpoint of tensors: {_why(error)}") from None
    tensors = _network(state, path, key, option)
    prefix = "module." if all(name.startswith("module.") for name in tensors) else ""
    return {name.removeprefix(prefix): value.detach() for name, value in tensors.items()}


def keeps_order(path: Path) -> bool:
    """Whether a checkpoint has its tensors in the order in which they were defined: safetensors, by its head, does not.

    A safetensors file begins with the length of its header (8 bytes) and a brace; names of files don't tell.
    """
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:9] != b"{"


def _why(error: Exception) -> str:
    if isinstance(error, KeyError):
        return "not a file of torch.save or of safetensors"
    refused = re.search(r"GLOBAL (\S+)", str(error))
    if refused is None:
        return " ".join(str(error).split())[:200]
    return (
        f"it holds a {refused[1]}, which is code. Save the tensors alone, where that code is at hand: "
        "torch.save(network.state_dict(), FILE)"
    )


def _network(state: Any, path: Path, key: str | None, option: str) -> dict[str, Tensor]:
    """The tensors of the network in a checkpoint."""
    if not isinstance(state, Mapping):
        raise RequestError(f"{path} is no checkpoint of tensors: it holds a {type(state).__name__}")
    if key is not None:
        if key in state and _tensors(state[key]):
            return _network(state[key], path, None, option)
        tensors = _network(state, path, None, option)
        plain = {name.removeprefix("module."): value for name, value in tensors.items()}
        chosen = {n.removeprefix(f"{key}."): value for n, value in plain.items() if n.startswith(f"{key}.")}
        if not chosen:
            raise RequestError(f"{option}={key}: {path} has no such part; it has {_some(state, tensors)}")
        return chosen
    for name in WRAPPERS:
        if isinstance(state.get(name), Mapping) and _tensors(state[name]):
            return _network(state[name], path, None, option)
    tensors = _tensors(state)
    if any("." in name for name in tensors):
        return tensors
    others = [str(name) for name, value in state.items() if isinstance(value, Mapping) and _tensors(value)]
    if len(others) > 1:
        raise RequestError(f"{path} holds several networks: {', '.join(others)}; choose one with {option}={others[0]}")
    if others:
        return _network(state[others[0]], path, None, option)
    if not tensors:
        raise RequestError(f"{path} is no checkpoint of tensors: it holds {_some(state, {})}")
    return tensors


def _tensors(value: Any) -> dict[str, Tensor]:
    """The tensors directly in a mapping; empty for anything else."""
    if not isinstance(value, Mapping):
        return {}
    own = {str(name): entry for name, entry in value.items() if isinstance(entry, Tensor)}
    inner = [name for name in WRAPPERS if isinstance(value.get(name), Mapping)]
    return own or (_tensors(value[inner[0]]) if inner else {})


def _some(state: Mapping[Any, Any], tensors: Mapping[str, Tensor]) -> str:
    names = list(dict.fromkeys([*map(str, state), *(name.partition(".")[0] for name in tensors)]))
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"


def fitted(
    theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor], public: Mapping[str, str], in_order: bool
) -> dict[str, Tensor]:
    """The tensors of a checkpoint under our names.

    By name where they have ours or the public ones, below any prefix; else by order and shape (see `by_order`).

    Args:
        public: public names of modules and tensors to ours (see `Backbone.public_names`).
        in_order: whether the checkpoint keeps the order in which the tensors were defined; safetensors does not.

    Raises:
        RequestError: what doesn't fit, in short, with a remedy.
    """
    for names in ({name: name for name in ours}, _public(ours, public)):
        prefixes = [p for p in _prefixes(theirs, names) if _complete(theirs, names, ours, p)]
        if len(prefixes) > 1:
            parts = [prefix.rstrip(".") or "the rest" for prefix in prefixes]
            raise RequestError(f"the weights hold several networks: {', '.join(parts)}; choose one with init.key=NAME")
        if prefixes:
            return _by_name(theirs, names, ours, prefixes[0])
    if not in_order:
        raise RequestError(
            f"the tensors' names ({', '.join(list(theirs)[:3])}, ...) are not this backbone's, and a .safetensors file "
            "keeps no order to go by. Save them with torch.save(network.state_dict(), FILE) from the network itself, "
            f"or {FIT}"
        )
    return by_order(theirs, ours)


def _public(ours: Mapping[str, Tensor], modules: Mapping[str, str]) -> dict[str, str]:
    """Public names of tensors to ours."""
    named: dict[str, str] = {}
    for public, own in modules.items():
        named |= {f"{public}{name[len(own) :]}": name for name in ours if name == own or name.startswith(f"{own}.")}
    return named


def _prefixes(theirs: Mapping[str, Tensor], names: Mapping[str, str]) -> list[str]:
    """What may come before all names, judged by each of them that ends a name of theirs."""
    found = {""}
    for name in names:
        if not name.endswith(COUNTERS):
            found |= {key.removesuffix(name) for key in theirs if key.endswith(f".{name}")}
    return sorted(found)


def _complete(theirs: Mapping[str, Tensor], names: Mapping[str, str], ours: Mapping[str, Tensor], prefix: str) -> bool:
    given = {own for name, own in names.items() if f"{prefix}{name}" in theirs}
    return bool(given) and all(own in given for own in ours if not own.endswith(COUNTERS))


def _by_name(
    theirs: Mapping[str, Tensor], names: Mapping[str, str], ours: Mapping[str, Tensor], prefix: str
) -> dict[str, Tensor]:
    out = dict(ours)
    for name, own in names.items():
        if f"{prefix}{name}" in theirs:
            out[own] = _checked(f"{prefix}{name}", theirs[f"{prefix}{name}"], own, ours[own])
    more = [name for name, value in theirs.items() if name.startswith(prefix) and value.dim() > 0]
    more = [name for name in more if name.removeprefix(prefix) not in names]
    if more:
        raise RequestError(
            f"the weights hold {len(more)} tensors more than the chosen backbone, beginning with {more[0]} "
            f"{list(theirs[more[0]].shape)}; {FIT}"
        )
    return out


def _checked(their_name: str, value: Tensor, own: str, like: Tensor) -> Tensor:
    if value.shape != like.shape:
        raise RequestError(
            f"the weights' {their_name} {list(value.shape)} does not fit {own} {list(like.shape)}; "
            f"{FIT}, and a data set with as many classes"
        )
    if like.is_floating_point() and not value.is_floating_point():
        raise RequestError(f"the weights' {their_name} holds {value.dtype}: quantised weights can't be used; {FIT}")
    return value.to(like.dtype)


def by_order(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of another implementation under our names.

    They are matched in order: every implementation lists its convolutions and norms as they are defined, and ours
    defines them in the order of the public ones. Each shape and kind (weight, bias, running mean, ...) is checked here;
    tests compare outputs. Counters of batches and other scalars, which only some checkpoints have, stay as they are.

    Raises:
        RequestError: the first pair that doesn't fit, or how many tensors are too many or too few.
    """
    given = [(name, value) for name, value in theirs.items() if not name.endswith(COUNTERS) and value.dim() > 0]
    wanted = [(name, value) for name, value in ours.items() if not name.endswith(COUNTERS)]
    out = dict(ours)
    for (their_name, value), (our_name, like) in zip(given, wanted, strict=False):
        out[our_name] = _checked(their_name, value, our_name, like)
        kind, wanted_kind = (name.rpartition(".")[2] for name in (their_name, our_name))
        kind = SYNONYMS.get(kind, kind)
        if kind != wanted_kind and (kind in KINDS or like.dim() < 2):
            raise RequestError(
                f"the weights' {their_name} is where {our_name} belongs, a {kind} for a {wanted_kind}; {FIT}"
            )
    if len(given) != len(wanted):
        raise RequestError(f"the weights hold {len(given)} tensors where the chosen backbone has {len(wanted)}; {FIT}")
    return out

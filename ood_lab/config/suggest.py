"""What was probably meant: near names in any case, the names of other libraries, and options by their last part."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# What OpenOOD and pytorch-ood call our choices, where that is another name; in lower case without "-" and "_".
OTHERS: Mapping[str, Mapping[str, str]] = {
    "scorer": {
        "mds": "mahalanobis", "ebo": "energy", "energybased": "energy", "klm": "kl_matching", "mls": "maxlogit",
        "maxsoftmax": "msp", "baseline": "msp", "rmd": "rmds", "relativemahalanobis": "rmds", "deepknn": "knn",
        "softmax": "msp", "ashb": "ash", "ashs": "ash", "ashp": "ash", "generalizedentropy": "gen",
        "nearestneighborguidance": "nnguide", "simplifiedhopfieldenergy": "she",
    },
    "method": {
        "base": "ce", "crossentropy": "ce", "outlierexposure": "oe", "energyoe": "energy", "ssd": "ssd_plus",
        "knn": "knn_plus", "gregplus": "greg_plus", "knnplus": "knn_plus",
    },
    "dataset": {
        "imagenet": "imagenet1k", "texture": "textures", "dtd": "textures",
        "tin": "tiny_imagenet", "tinyimagenet": "tiny_imagenet",
        "300k": "randomimages300k", "300krandomimages": "randomimages300k", "openimageo": "openimage_o",
    },
    "backbone": {"resnet1832x32": "resnet18", "wrn": "wrn40_2", "densenet": "densenet121", "vit": "timm"},
}  # fmt: skip
# What other frameworks call options of ours.
OPTIONS = {
    "epochs": ("trainer.max_epochs",), "epoch": ("trainer.max_epochs",), "num_epochs": ("trainer.max_epochs",),
    "lr": ("method.optimizer.lr",), "learning_rate": ("method.optimizer.lr",), "bs": ("trainer.batch_size",),
    "gpus": ("trainer.devices",), "num_workers": ("trainer.workers",), "checkpoint": ("init.checkpoint",),
    "data_dir": ("paths.data",), "output_dir": ("paths.output",), "amp": ("trainer.precision",),
}  # fmt: skip


def nearest(name: str, known: Iterable[str], group: str = "") -> str:
    """ " Did you mean 'x'?", or the choices when nothing is near.

    Args:
        group: by whose other names a choice is known, too.
    """
    options = sorted(set(known))
    plain = _plain(name)
    other = OTHERS.get(group, {}).get(plain)
    if other in options:
        return f" Did you mean {other!r}?"
    by_plain = {_plain(option): option for option in reversed(options)}
    if plain in by_plain:
        return f" Did you mean {by_plain[plain]!r}?"
    close = difflib.get_close_matches(name.lower(), [option.lower() for option in options], n=1, cutoff=0.6)
    if close:
        return f" Did you mean {next(o for o in options if o.lower() == close[0])!r}?"
    return f" Choose from: {', '.join(options)}." if options else ""


def options_like(name: str, values: Mapping[str, Any], close: bool = True) -> str:
    """ " Did you mean 'method.optimizer.lr'?" for an option that is given without what it belongs to; or nothing.

    Args:
        values: the whole configuration.
        close: also options whose last part is only like it.
    """
    leaf = name.rpartition(".")[2].lower()
    leaves = [key for key in _leaves(values) if "_target_" not in key]
    found = [key for key in OPTIONS.get(leaf, ()) if key in leaves]
    found = found or [key for key in leaves if key.rpartition(".")[2].lower() == leaf]
    if close:
        found = found or [key for key in leaves if leaf in key.rpartition(".")[2].split("_")]
        like = difflib.get_close_matches(leaf, {key.rpartition(".")[2] for key in leaves}, n=1, cutoff=0.75)
        found = found or [key for key in leaves if like and key.rpartition(".")[2] == like[0]]
    if not found:
        return ""
    return f" Did you mean {_either([repr(key) for key in found[:3]])}?"


def _either(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} or {texts[-1]}"


def _leaves(values: Mapping[str, Any], above: str = "") -> Iterable[str]:
    for key, value in values.items():
        name = f"{above}.{key}" if above else str(key)
        yield name
        if isinstance(value, Mapping):
            yield from _leaves(value, name)


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")

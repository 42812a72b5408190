"""Whether a pretrained model is on this disk or to be had; nothing is imported and nothing downloaded for it."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from ood_lab.errors import RequestError

REMEDY = "Use what needs no weights: decoder=tiny anchors=random; or name the folder of a model that was downloaded"
SECONDS = 1.5  # that the hub has to answer


def check_model(option: str, model: str) -> None:
    """Refuse a model that is neither a folder, nor in the cache of the Hugging Face hub, nor to be downloaded.

    Args:
        option: by which it is named.

    Raises:
        RequestError: where it was looked for, and what needs no weights.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not any((folder / name).is_file() for name in ("model_index.json", "config.json")):
            raise RequestError(
                f"{option}={model}: the folder holds no model in the format of diffusers or transformers "
                f"(model_index.json or config.json). {REMEDY}"
            )
        return
    if model.startswith(("/", ".", "~")) or model.count("/") > 1:
        raise RequestError(f"{option}={model}: no such folder. {REMEDY}")
    cached = _cache() / f"models--{model.replace('/', '--')}" / "snapshots"
    if cached.is_dir() and any(cached.iterdir()):
        return
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on") or not _hub_answers():
        raise RequestError(
            f"{option}={model}: no folder of this name, not in the cache of the Hugging Face hub ({_cache()}), and the "
            f"hub can't be reached. {REMEDY} ({option}=FOLDER)"
        )


def _cache() -> Path:
    """Where the hub's client keeps models."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface"))
    return Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()


def _hub_answers() -> bool:
    address = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        with socket.create_connection((address.hostname or "", address.port or 443), SECONDS):
            return True
    except OSError:
        return False

"""Checkpoints that survive a kill: written whole or not at all, checked when read, the previous one kept."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import CheckpointIO

from ood_lab.files.storage import write_atomically

KEPT = 2
DIGEST = 16  # hexadecimal digits of the SHA-256 in a checkpoint's name


class NamedByDigest(CheckpointIO):
    """Saves `<stem>-<digest>.ckpt`; the name itself says what the bytes must be."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        data = buffer.getvalue()
        target = Path(path)
        digest = hashlib.sha256(data).hexdigest()[:DIGEST]
        write_atomically(target.with_name(f"{target.stem}-{digest}.ckpt"), data)
        for old in list(by_age(target.parent))[KEPT:]:
            old.unlink()

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def by_age(folder: Path) -> Iterator[Path]:
    """Checkpoints, newest (most steps) first."""
    return iter(sorted(folder.glob("step*-*.ckpt"), reverse=True))


def newest(folder: Path) -> Path | None:
    """The newest checkpoint whose bytes are what its name says; a damaged one is passed over."""
    for path in by_age(folder):
        if hashlib.sha256(path.read_bytes()).hexdigest()[:DIGEST] == path.stem.rpartition("-")[2]:
            return path
    return None


def step_of(checkpoint: Path) -> int:
    """The number of steps after which a checkpoint was saved."""
    return int(checkpoint.stem.partition("-")[0].removeprefix("step"))

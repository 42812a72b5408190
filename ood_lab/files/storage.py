"""Writing files whole, under names that a file system takes."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST = 100  # bytes of a name; file systems take 255 in all


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; flushed to the disk and renamed at the end, removed on an error.

    A reader sees the old file or the new one, never half of one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Process numbers repeat between machines that share a disk.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def short_name(name: str) -> str:
    """A name as a part of a file's: cut where it is long, and told apart by a digest then."""
    if len(name.encode()) <= LONGEST:
        return name
    return f"{name.encode()[:LONGEST].decode(errors='ignore')}~{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def write_atomically(path: Path, data: bytes) -> None:
    """Write a whole file at once, as `atomic_file` does."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)

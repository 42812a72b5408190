"""One process at a time: a lock that says who holds it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def held(lock: Path, what: str, holder: Path | None = None) -> Iterator[None]:
    """Hold a lock while something is made; a second process waits for the first, and says so.

    Args:
        lock: its file, which stays.
        what: is made, for the message.
        holder: where the holder's process id is written to; beside the lock by default.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    holder = lock.with_name(f"{lock.name}.holder") if holder is None else holder
    file = FileLock(lock)
    try:
        file.acquire(timeout=0)
    except Timeout:
        pid = holder.read_text().strip() if holder.is_file() else "unknown"
        print(f"{what} is being made by process {pid}; waiting for it", flush=True)
        file.acquire()
    try:
        holder.write_text(str(os.getpid()))
        yield
    finally:
        file.release()

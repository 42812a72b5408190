"""What the disk says, in a user's terms."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ood_lab.errors import RunError


def in_words(error: object) -> str:
    """An error's kind and message."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def bytes_text(number: int) -> str:
    """A number of bytes with its unit."""
    return f"{number:,} bytes"


def free_bytes(path: Path) -> int | None:
    """Free bytes on the disk that `path` is or will be on, where the system tells."""
    for folder in (path, *path.absolute().parents):
        with suppress(OSError):
            return shutil.disk_usage(folder).free
    return None


def full_disk(path: Path, needed: int | None, free: int | None) -> RunError:
    """The error for something that doesn't fit."""
    stated = ((needed, " needed"), (free, " free"))
    amounts = [bytes_text(amount) + word for amount, word in stated if amount is not None]
    return RunError(
        f"{path} does not fit on its disk ({', '.join(amounts)}). Free some space, or choose a folder on another disk; "
        "a download goes on from where it stopped."
    )


@contextmanager
def disk_errors(path: Path, needed: int | None = None, to: str = "written") -> Iterator[None]:
    """Errors of the disk in a user's terms."""
    try:
        yield
    except BrokenPipeError:  # who reads our progress has gone: nothing of the disk's
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise full_disk(path, needed, free_bytes(path)) from error
        raise RunError(
            f"{path} could not be {to}: {error.strerror or error}. Check the path and its permissions, or choose "
            "another folder."
        ) from error

"""Files from the web: a lost connection is gone on with, and what has arrived is checked."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from ood_lab.errors import RequestError, RunError
from ood_lab.files.disk import bytes_text, disk_errors, free_bytes, full_disk, in_words
from ood_lab.files.lock import held
from ood_lab.progress import Meter

CHUNK_BYTES = 1 << 18
MEGABYTE = 1_000_000
Algorithm = Literal["md5", "sha256"]
HEX_DIGITS: dict[Algorithm, int] = {"md5": 32, "sha256": 64}


@dataclass(frozen=True)
class Checksum:
    """What a file is to hash to: hexadecimal digits, or the first of them."""

    algorithm: Algorithm
    digest: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "md5:<32 hex digits>" or "sha256:<64 hex digits>".

        Raises:
            RequestError: anything else.
        """
        name, _, digest = text.strip().partition(":")
        for algorithm, digits in HEX_DIGITS.items():
            if name.lower() == algorithm and re.fullmatch(rf"[0-9a-fA-F]{{{digits}}}", digest):
                return cls(algorithm, digest.lower())
        raise RequestError(
            f"{text!r} is no checksum: expected md5: and 32 hex digits, or sha256: and 64. "
            "Copy it whole from where the file is published."
        )

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.digest}"


def file_digest(path: Path, algorithm: Algorithm) -> str:
    """The hex digest of a file, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def fetch(
    url: str,
    target: Path,
    checksum: Checksum | None,
    *,
    timeout: float = 30.0,
    attempts: int = 5,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """Download a file whole; one that is there is only checked.

    What has arrived is kept as ".<name>.part", and the target's name is given to a complete and checked file only. The
    part is gone on with, also by a later call, where a checksum will tell whether the whole is right.

    Args:
        checksum: of the whole file; without one only the length that the server states is checked.
        timeout: seconds without a byte after which a connection counts as lost.
        attempts: how often to connect in all where connections are lost or the server is out of order (5xx).
        sleep: waits between attempts.

    Raises:
        RunError: no http(s) URL; refused by the server; connections lost to the last attempt; another checksum, of the
            download or of the file that is there; or the disk is full or can't be written.
    """
    if not url.startswith(("http://", "https://")):
        raise RunError(f"{url!r} can't be downloaded: expected http:// or https://. Correct the URL.")
    if target.exists():
        return _checked(target, checksum, target, f"{target} is there. Delete it, and it is downloaded again")
    with disk_errors(target), held(target.with_name(f".{target.name}.lock"), str(target)):
        if target.exists():  # another process has downloaded it meanwhile
            return _checked(target, checksum, target, f"{target} is there. Delete it, and it is downloaded again")
        return _download(url, target, checksum, timeout, attempts, sleep)


def _download(
    url: str, target: Path, checksum: Checksum | None, timeout: float, attempts: int, sleep: Callable[[float], None]
) -> Path:
    """Receive a file in a few connections; the caller holds its lock."""
    part = target.with_name(f".{target.name}.part")
    for attempt in range(1, attempts + 1):
        try:
            _receive(url, part, checksum is not None, timeout)
            break
        except (_LostError, OSError, http.client.HTTPException, ValueError) as error:  # URLError is an OSError
            if isinstance(error, urllib.error.HTTPError) and error.code < 500:
                raise RunError(
                    f"{url} answered {error.code} {error.reason}. Open it in a browser: correct the URL if the file "
                    f"has moved, or save the file by hand as {target}"
                ) from None
            if attempt == attempts:
                kept = f" A new download goes on from the {bytes_text(_size(part))} kept in {part}" if checksum else ""
                why = error if isinstance(error, _LostError) else in_words(error)
                raise RunError(
                    f"{url} could not be downloaded in {attempts} attempts; at last: {why}. Check the network, or try "
                    f"later.{kept}"
                ) from None
            sleep(min(2.0 ** (attempt - 2), 8.0))
    return _checked(part, checksum, target, f"{url} was downloaded and deleted again. Try again, or get it elsewhere")


class _LostError(Exception):
    """The connection was lost: nothing of the disk's."""


def _receive(url: str, part: Path, resume: bool, timeout: float) -> None:
    """One connection; returns with the part complete.

    Raises:
        _LostError, OSError, HTTPException: the connection was lost, or the server refused; what has arrived stays.
    """
    done = _size(part) if resume else 0
    asked = {"User-Agent": "ood-lab"} | ({"Range": f"bytes={done}-"} if done else {})
    try:
        reply = urllib.request.urlopen(urllib.request.Request(url, headers=asked), timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not done:
            raise
        if error.headers.get("Content-Range") != f"bytes */{done}":
            part.unlink()
            return _receive(url, part, resume, timeout)
        return None  # the part is the whole file
    with reply:
        if not (reply.status == 206 and reply.headers.get("Content-Range", "").startswith(f"bytes {done}-")):
            done = 0  # the server sends all of it
        total = None if reply.length is None else done + reply.length
        free = free_bytes(part)
        if reply.length is not None and free is not None and reply.length > free:
            raise full_disk(part, reply.length, free)
        with disk_errors(part), Meter(f"{part.name[1:-5]} (MB)", (total or 0) // MEGABYTE, done // MEGABYTE) as meter:
            part.parent.mkdir(parents=True, exist_ok=True)
            with part.open("ab" if done else "wb") as file:
                while chunk := _next(reply):
                    file.write(chunk)
                    done += len(chunk)
                    meter.advance(done // MEGABYTE - meter.done)
                os.fsync(file.fileno())
        if total is not None and done != total:
            raise _LostError(f"the connection ended after {done:,} of {bytes_text(total)}")
    return None


def _next(reply: http.client.HTTPResponse) -> bytes:
    """What has come so far; nothing behind the announced length, where some servers leave the connection open."""
    try:
        return b"" if reply.length == 0 else reply.read1(CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _LostError(in_words(error)) from error


def _checked(found: Path, checksum: Checksum | None, target: Path, remedy: str) -> Path:
    """Compare a file with its checksum and give it the target's name; a download with another checksum is deleted."""
    if not found.is_file():
        raise RunError(f"{found} is no file, so nothing can be downloaded to that name. Move it out of the way.")
    if checksum is not None:
        with disk_errors(found, to="read"):
            digest = file_digest(found, checksum.algorithm)
        if not digest.startswith(checksum.digest.lower()):
            if found != target:
                found.unlink()
            raise RunError(f"{target}: checksum {checksum.algorithm}:{digest}, expected {checksum}. {remedy}.")
    with disk_errors(target):
        return found.replace(target)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0

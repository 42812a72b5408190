"""Files from the web, with a resume and a checksum."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from ood_lab.disk import bytes_text, disk_errors, free_bytes, full_disk, in_words
from ood_lab.errors import RequestError, RunError
from ood_lab.progress import Meter
from ood_lab.storage import write_atomically

CHUNK_BYTES = 1 << 18
MEGABYTE = 1_000_000
BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 8.0
Algorithm = Literal["md5", "sha256"]
HEX_DIGITS: dict[Algorithm, int] = {"md5": 32, "sha256": 64}


@dataclass(frozen=True)
class Checksum:
    """What a file is to hash to."""

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
        return f"{self.algorithm}:{self.digest.lower()}"


def file_digest(path: Path, algorithm: Algorithm) -> str:
    """The hex digest of a file, read piece by piece.

    Raises:
        OSError: the file can't be read.
    """
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
    """Download a file whole, going on where an earlier try stopped; a file that is there is only checked.

    What has arrived is kept beside the target as ".<name>.part", over interrupts too, and the target's name is given
    only to a complete and checked file. It is for one process at a time: a caller that runs in several holds a lock.

    Args:
        checksum: of the whole file; without one only the length that the server tells is checked.
        timeout: seconds without a byte after which a connection counts as lost.
        attempts: how often to connect in all where connections are lost or the server is out of order (5xx).
        sleep: waits between attempts.

    Raises:
        RunError: no http(s) URL; refused by the server (4xx); connections lost to the last attempt; another checksum,
            of the download or of the file that is there; or the disk is full or can't be written.
    """
    _check_url(url)
    if _is_there(target, checksum):
        return target
    download = _Download(url, target, checksum, timeout)
    for attempt in count(1):
        try:
            download.go_on()
            break
        except _LostError as lost:
            if attempt >= attempts:
                raise RunError(
                    f"{url} could not be downloaded in {attempt} attempts; at last: {lost}. Check the network, or try "
                    f"later: a new download goes on from the {bytes_text(download.arrived())} kept in {download.part}"
                ) from lost
            sleep(min(BACKOFF_SECONDS * 2 ** (attempt - 1), LONGEST_BACKOFF_SECONDS))
    return download.finish()


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        # Reading the port checks it; http.client would refuse blanks and other alphabets much later, as a lost line.
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        fine = fine and url.isascii() and url.isprintable() and " " not in url
    except ValueError:
        fine = False
    if not fine:
        raise RunError(
            f"{url!r} can't be downloaded: expected a URL that begins with http:// or https://, names a host and has "
            "special characters percent-encoded. Correct the URL, or put the file in place by hand."
        )


def _is_there(target: Path, checksum: Checksum | None) -> bool:
    with disk_errors(target, to="read"):
        if not target.exists():
            return False
        if not target.is_file():
            raise RunError(f"{target} is no file, so nothing can be downloaded to that name. Move it out of the way.")
        found = file_digest(target, checksum.algorithm) if checksum else None
    if checksum is not None and found != checksum.digest.lower():
        raise RunError(
            f"{target} is there with the checksum {checksum.algorithm}:{found} where {checksum} is expected. "
            "Delete it, and it is downloaded again."
        )
    return True


class _LostError(Exception):
    """A try that ended early, for a reason that may be gone at the next one."""


@dataclass(frozen=True)
class _Kept:
    """What an earlier try left: how many bytes, of which version, of how many."""

    size: int
    validator: str
    total: int | None

    def headers(self) -> dict[str, str]:
        """Ask for the rest, or for all of it where the server's file is another one by now."""
        headers = {"Range": f"bytes={self.size}-"}
        return headers | {"If-Range": self.validator} if self.validator else headers

    def continues(self, reply: http.client.HTTPResponse) -> bool:
        """Whether the reply is the rest of the same version.

        There are servers that know ranges but not If-Range, so what they say of the version is compared here as well.
        """
        total = _range_total(reply)
        return reply.status == 206 and _range_start(reply) == self.size and self._same(reply, total)

    def is_whole(self, reply: http.client.HTTPResponse) -> bool:
        """Whether the server has nothing behind these bytes: they were the file's last."""
        total = _range_total(reply)
        return reply.status == 416 and total == self.size and self._same(reply, total)

    def _same(self, reply: http.client.HTTPResponse, total: int | None) -> bool:
        same_version = not self.validator or _validator(reply) in ("", self.validator)
        return same_version and (None in (total, self.total) or total == self.total)


@dataclass(frozen=True)
class _Download:
    url: str
    target: Path
    checksum: Checksum | None
    timeout: float

    @property
    def part(self) -> Path:
        return self.target.with_name(f".{self.target.name}.part")

    @property
    def side(self) -> Path:
        """Tells which version of which URL the part file is of."""
        return self.part.with_name(f"{self.part.name}.etag")

    def arrived(self) -> int:
        with suppress(OSError):
            return self.part.stat().st_size
        return 0

    def go_on(self) -> None:
        """One connection (two where the part file turns out useless); returns with the part file complete."""
        kept = self._kept()
        if kept is not None:
            with closing(self._ask(kept.headers())) as reply:
                if kept.continues(reply):
                    self._check_room(reply.length)
                    return self._receive(reply, kept.size, _range_total(reply))
                if kept.is_whole(reply):
                    return None
                if reply.status == 200:
                    return self._begin(reply)
        with closing(self._ask({})) as reply:
            return self._begin(reply)

    def finish(self) -> Path:
        """Check the part file and give it the target's name."""
        with disk_errors(self.part):
            with self.part.open("rb+") as file:
                os.fsync(file.fileno())
            found = file_digest(self.part, self.checksum.algorithm) if self.checksum else None
        if self.checksum is not None and found != self.checksum.digest.lower():
            size = self.arrived()
            self._discard()
            raise RunError(
                f"{self.target.name} from {self.url} has the checksum {self.checksum.algorithm}:{found} where "
                f"{self.checksum} is expected ({bytes_text(size)}); it was deleted. Try again; if it comes out "
                "the same, the file was changed where it is published: get it from another place."
            )
        with disk_errors(self.target):
            self.part.replace(self.target)
            self.side.unlink(missing_ok=True)
        return self.target

    def _kept(self) -> _Kept | None:
        """The part file, where going on from it can't splice two files unnoticed."""
        size = self.arrived()
        validator, total, url = "", None, self.url
        with suppress(OSError, ValueError, KeyError, TypeError):
            side = json.loads(self.side.read_text(encoding="utf-8"))
            validator, total, url = side["validator"], side["total"], side["url"]
        # Only the server's word on the version, or a checksum at the end, tells a splice from the file.
        if size == 0 or url != self.url or not (validator or self.checksum):
            return None
        return _Kept(size, validator, total)

    def _discard(self) -> None:
        with disk_errors(self.part):
            self.part.unlink(missing_ok=True)
            self.side.unlink(missing_ok=True)

    def _ask(self, headers: dict[str, str]) -> http.client.HTTPResponse:
        request = urllib.request.Request(self.url, headers={"User-Agent": "ood-lab", **headers})
        try:
            reply: http.client.HTTPResponse = _opener().open(request, timeout=self.timeout)
        except urllib.error.HTTPError as error:
            raise RunError(f"{self.url} was redirected without end or to nowhere ({error}). Correct the URL.") from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, str):  # no network error: a redirect that isn't to http
                raise RunError(f"{self.url} can't be downloaded: {error.reason}. Correct the URL.") from None
            raise _LostError(in_words(error.reason)) from error
        except (OSError, http.client.HTTPException) as error:
            raise _LostError(in_words(error)) from error
        if reply.status in ((200, 206, 416) if "Range" in headers else (200,)):
            return reply
        reply.close()
        status = f"{reply.status} {reply.reason}".strip()
        if reply.status >= 500:
            raise _LostError(f"the server answered {status}")
        raise RunError(
            f"{self.url} answered {status} where 200 (the file) is expected. Open the URL in a browser: correct it if "
            f"the file has moved, or save the file by hand as {self.target}"
        )

    def _begin(self, reply: http.client.HTTPResponse) -> None:
        """Take the whole file from its first byte."""
        # In this order: at no time does the side file speak for bytes of another version.
        self._discard()
        version = {"url": self.url, "validator": _validator(reply), "total": reply.length}
        self._check_room(reply.length)
        with disk_errors(self.part, reply.length):
            write_atomically(self.side, json.dumps(version).encode())
        self._receive(reply, 0, reply.length)

    def _check_room(self, needed: int | None) -> None:
        free = free_bytes(self.part)
        if needed is not None and free is not None and needed > free:
            raise full_disk(self.part, needed, free)

    def _receive(self, reply: http.client.HTTPResponse, done: int, total: int | None) -> None:
        with (
            disk_errors(self.part, None if total is None else total - done),
            self.part.open("ab" if done else "wb") as file,
            Meter(f"{self.target.name} (MB)", (total or 0) // MEGABYTE, done // MEGABYTE) as meter,
        ):
            for chunk in _chunks(reply):
                file.write(chunk)
                done += len(chunk)
                meter.total = max(meter.total, done // MEGABYTE)  # where the server tells no length
                meter.advance(done // MEGABYTE - meter.done)
        if total is not None and done != total:
            raise _LostError(f"the connection ended after {done:,} of {bytes_text(total)}")


class _EveryStatus(urllib.request.HTTPErrorProcessor):
    """Redirects are followed; any other status comes back as a reply instead of an exception."""

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        return super().http_response(request, response) if 300 <= response.status < 400 else response

    https_response = http_response


def _opener() -> urllib.request.OpenerDirector:
    """Knows http and https alone, so that no redirect leads to a local file or to FTP."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        _EveryStatus(),
    ):
        opener.add_handler(handler)
    return opener


def _chunks(reply: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body as it arrives, up to its announced length: some servers leave the connection open behind it."""
    left = reply.length
    try:
        while left is None or left > 0:
            # read1 hands over what has come so far, where read would lose it with the connection.
            chunk = reply.read1(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left))
            if not chunk:
                return
            left = None if left is None else left - len(chunk)
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise _LostError(in_words(error)) from error


def _validator(reply: http.client.HTTPResponse) -> str:
    """What names the version of the file: a strong ETag (a weak one allows other bytes), or its date, or nothing."""
    etag = reply.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else reply.headers.get("Last-Modified", "")


def _range_start(reply: http.client.HTTPResponse) -> int | None:
    match = re.match(r"bytes (\d+)-", reply.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _range_total(reply: http.client.HTTPResponse) -> int | None:
    match = re.match(r"bytes .*/(\d+)$", reply.headers.get("Content-Range", ""))
    return int(match[1]) if match else None

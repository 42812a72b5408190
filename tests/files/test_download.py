"""Downloads: whole and checked, or gone on with later."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ood_lab.errors import RequestError, RunError
from ood_lab.files.download import Checksum, fetch, file_digest
from tests.cases import each

DATA = random.Random(0).randbytes(700_000)


def sha256(data: bytes) -> Checksum:
    return Checksum("sha256", hashlib.sha256(data).hexdigest())


@dataclass
class Reply:
    """How the server answers one request."""

    status: int | None = None
    cut_after: int | None = None
    stall: bool = False
    gate: threading.Event | None = None  # is waited for before anything is answered
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Site:
    """One file on a loopback server, and what it is to do with the requests to come."""

    url: str = ""
    body: bytes = DATA
    ranges: bool = True
    tells_length: bool = True
    replies: list[Reply] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)


class Handler(BaseHTTPRequestHandler):
    site: Site

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        site, asked = self.site, self.headers["Range"]
        site.asked.append(asked)
        reply = site.replies.pop(0) if site.replies else Reply()
        if reply.gate is not None:
            reply.gate.wait(20)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and site.ranges else 0
        total, rest = len(site.body), site.body[start:]
        headers = {"Content-Length": str(len(rest))} if site.tells_length else {"Connection": "close"}
        if reply.status is not None:
            self.answer(reply.status, b"", {"Content-Length": "0"}, reply)
        elif start and start >= total:
            self.answer(416, b"", {"Content-Range": f"bytes */{total}", "Content-Length": "0"}, reply)
        elif start:
            self.answer(206, rest, headers | {"Content-Range": f"bytes {start}-{total - 1}/{total}"}, reply)
        else:
            self.answer(200, rest, headers, reply)

    def answer(self, status: int, body: bytes, headers: dict[str, str], reply: Reply) -> None:
        self.send_response(status)
        for key, value in (headers | reply.headers).items():
            self.send_header(key, value)
        self.end_headers()
        with suppress(ConnectionError):  # a client may have left, which is no fault of the server
            self.wfile.write(body if reply.cut_after is None else body[: reply.cut_after])
        if reply.stall:
            self.wfile.flush()
            self.site.stop.wait(5)
        self.close_connection = reply.cut_after is not None or not self.site.tells_length


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "*")
    site = Site()
    handler = type("SiteHandler", (Handler,), {"site": site, "protocol_version": "HTTP/1.1"})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        site.url = f"http://127.0.0.1:{server.server_port}/data.bin"
        yield site
        site.stop.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "data.bin"


Get = Callable[..., Path]


@pytest.fixture
def get(site: Site, target: Path) -> Get:
    """Fetch the site's file without waiting between attempts."""

    def run(checksum: Checksum | None = None, **options: Any) -> Path:
        return fetch(site.url, target, checksum, sleep=lambda _: None, **{"timeout": 5.0} | options)

    return run


def names(folder: Path) -> list[str]:
    """Everything below a folder but locks, which stay."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if ".lock" not in path.name)


def leave_part(target: Path, data: bytes) -> None:
    """What an earlier process left."""
    target.parent.mkdir(exist_ok=True)
    target.with_name(".data.bin.part").write_bytes(data)


# --- checksums ---


@each(("text", "algorithm"), [("md5:" + "aB" * 16, "md5"), (" SHA256:" + "0f" * 32 + "\n", "sha256")])
def test_a_checksum_is_read(text: str, algorithm: str) -> None:
    checksum = Checksum.parse(text)
    assert checksum.algorithm == algorithm
    assert str(checksum) == text.strip().lower()


@each("text", ["", "md5", "md5:", "ab" * 16, "md5:" + "a" * 31, "sha1:" + "a" * 40, "md5:" + "g" * 32])
def test_what_is_no_checksum_is_refused_with_what_is_one(text: str) -> None:
    with pytest.raises(
        RequestError, match="is no checksum: expected md5: and 32 hex digits, or sha256: and 64"
    ) as error:
        Checksum.parse(text)
    assert repr(text) in str(error.value)


def test_digests_are_those_of_hashlib(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    assert file_digest(path, "md5") == hashlib.md5(DATA).hexdigest()
    assert file_digest(path, "sha256") == hashlib.sha256(DATA).hexdigest()


def test_the_module_needs_no_torch() -> None:
    code = "import sys, ood_lab.files.download; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- fetching ---


@pytest.mark.parametrize("checked", [False, True])
@pytest.mark.parametrize(("body", "tells_length"), [(DATA, True), (DATA, False), (b"", True)])
def test_a_file_arrives_whole_and_alone(
    site: Site, target: Path, get: Get, body: bytes, tells_length: bool, checked: bool
) -> None:
    site.body, site.tells_length = body, tells_length
    assert get(sha256(body) if checked else None) == target
    assert target.read_bytes() == body
    assert names(target.parent) == ["data.bin"]
    assert site.asked == [None]


def test_the_first_digits_of_a_checksum_are_enough(target: Path, get: Get) -> None:
    assert get(Checksum("sha256", sha256(DATA).digest[:8])) == target


@pytest.mark.parametrize("checked", [False, True])
def test_a_cut_connection_goes_on_where_a_checksum_will_tell(site: Site, target: Path, get: Get, checked: bool) -> None:
    site.replies = [Reply(cut_after=400_000), Reply(cut_after=100_000)]
    get(sha256(DATA) if checked else None)
    assert target.read_bytes() == DATA
    assert site.asked == [None, "bytes=400000-", "bytes=500000-"] if checked else [None, None, None]


def test_a_silent_connection_goes_on_after_the_timeout(site: Site, target: Path, get: Get) -> None:
    site.replies = [Reply(cut_after=300_000, stall=True)]
    get(sha256(DATA), timeout=0.2)
    assert site.asked == [None, "bytes=300000-"]
    assert target.read_bytes() == DATA


def test_the_last_attempt_says_what_is_kept_and_a_new_call_goes_on_from_it(site: Site, target: Path, get: Get) -> None:
    site.replies = [Reply(cut_after=100_000), Reply(cut_after=100_000)]
    with pytest.raises(RunError, match=r"in 2 attempts.*goes on from the 200,000 bytes kept in .*\.data\.bin\.part"):
        get(sha256(DATA), attempts=2)
    assert not target.exists()
    get(sha256(DATA))
    assert site.asked[-1] == "bytes=200000-"
    assert target.read_bytes() == DATA


def test_waits_between_attempts_grow(site: Site, target: Path) -> None:
    site.replies, waited = [Reply(status=503)] * 5, list[float]()
    with pytest.raises(RunError, match="503"):
        fetch(site.url, target, None, sleep=waited.append)
    assert waited == [0.5, 1.0, 2.0, 4.0]


@pytest.mark.parametrize(
    "reply",
    [
        Reply(headers={"Content-Range": "bytes 999-699999/700000"}),
        Reply(headers={"Content-Range": "nonsense"}),
    ],
)
def test_a_part_that_the_server_does_not_go_on_with_is_begun_again(
    site: Site, target: Path, get: Get, reply: Reply
) -> None:
    leave_part(target, DATA[:1000])
    site.ranges = False
    get(sha256(DATA))
    assert target.read_bytes() == DATA
    target.unlink()
    leave_part(target, DATA[:1000])
    site.ranges, site.replies = True, [reply]
    with suppress(RunError):  # what came was not what was asked for, and the checksum tells
        get(sha256(DATA))
    get(sha256(DATA))
    assert target.read_bytes() == DATA


@pytest.mark.parametrize(("size", "requests"), [(700_000, 1), (700_005, 2)])
def test_a_part_as_long_as_the_file_is_taken_and_a_longer_one_begun_again(
    site: Site, target: Path, get: Get, size: int, requests: int
) -> None:
    leave_part(target, (DATA + b"12345")[:size])
    get(sha256(DATA))
    assert target.read_bytes() == DATA
    assert len(site.asked) == requests


def test_another_file_is_deleted_and_its_checksum_shown(site: Site, target: Path, get: Get) -> None:
    leave_part(target, b"of another file" * 10)
    with pytest.raises(RunError, match=rf"checksum sha256:\w+, expected {sha256(DATA)}.*Try again"):
        get(sha256(DATA))
    assert names(target.parent) == []
    get(sha256(DATA))
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_refusal_is_told_at_once_and_keeps_what_has_arrived(site: Site, target: Path, get: Get, status: int) -> None:
    leave_part(target, DATA[:1000])
    site.replies = [Reply(status=status)]
    with pytest.raises(RunError, match=rf"answered {status} .*save the file by hand as .*data\.bin"):
        get(sha256(DATA))
    assert len(site.asked) == 1
    assert target.with_name(".data.bin.part").read_bytes() == DATA[:1000]


def test_a_busy_server_is_asked_again(site: Site, target: Path, get: Get) -> None:
    site.replies = [Reply(status=503), Reply(status=500)]
    get()
    assert target.read_bytes() == DATA


def test_a_host_that_does_not_answer(target: Path) -> None:
    with pytest.raises(RunError, match=r"in 2 attempts; at last: .*refused.*Check the network"):
        fetch("http://127.0.0.1:9/data.bin", target, None, attempts=2, sleep=lambda _: None)


@each("url", ["file:///etc/hostname", "ftp://host/file", "data.zip", "", "http://", "http://[bad/x"])
def test_only_http_urls_are_taken(url: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"http"):
        fetch(url, tmp_path / "x", None, sleep=lambda _: None)
    assert names(tmp_path) == []


def test_a_file_that_is_there_is_checked_and_asked_for_no_more(site: Site, target: Path, get: Get) -> None:
    target.parent.mkdir()
    target.write_bytes(b"mine")
    assert get() == target
    assert get(sha256(b"mine")) == target
    with pytest.raises(RunError, match=r"is there\. Delete it, and it is downloaded again"):
        get(sha256(DATA))
    assert target.read_bytes() == b"mine"
    assert site.asked == []


def test_of_two_that_want_one_file_the_second_waits_for_it_and_checks_it(
    site: Site, target: Path, get: Get, capsys: pytest.CaptureFixture[str]
) -> None:
    gate, shown, got = threading.Event(), "", list[Path]()
    site.replies = [Reply(gate=gate)]

    def second() -> None:
        with pytest.raises(RunError, match=r"is there\. Delete it, and it is downloaded again"):
            get(sha256(b"of another file"))
        got.append(get(sha256(DATA)))

    def until(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def waits() -> bool:
        nonlocal shown
        shown += capsys.readouterr().out
        return "waiting for it" in shown or len(site.asked) > 1

    threads = [threading.Thread(target=lambda: got.append(get(sha256(DATA)))), threading.Thread(target=second)]
    threads[0].start()
    until(lambda: bool(site.asked))
    threads[1].start()
    until(waits)
    gate.set()
    for thread in threads:
        thread.join(20)
    assert got == [target, target]
    assert target.read_bytes() == DATA
    assert site.asked == [None], "it was received once"
    assert f"{target} is being made by process {os.getpid()}; waiting for it" in shown


@pytest.mark.parametrize("blocked", ["target", "parent"])
def test_what_is_in_the_way_is_named_and_left(target: Path, get: Get, blocked: str) -> None:
    if blocked == "target":
        target.mkdir(parents=True)
    else:
        target.parent.write_bytes(b"file")
    with pytest.raises(RunError, match=r"no file, so nothing|could not be written"):
        get(sha256(DATA))
    assert target.is_dir() if blocked == "target" else target.parent.read_bytes() == b"file"


def failing_open(monkeypatch: pytest.MonkeyPatch, number: int, after: int = 0) -> None:
    """Have the disk refuse every part file once it holds `after` bytes."""
    real = Path.open

    class Limited(io.FileIO):
        def write(self, data: Any) -> int:
            if self.tell() + len(data) > after:
                super().write(bytes(data)[: max(0, after - self.tell())])
                raise OSError(number, os.strerror(number))
            return super().write(data)

    def opened(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if not self.name.endswith(".part") or mode not in ("wb", "ab"):
            return real(self, mode, *args, **kwargs)
        if after == 0:
            raise OSError(number, os.strerror(number), str(self))
        return Limited(self, mode)

    monkeypatch.setattr(Path, "open", opened)


def test_a_full_disk_keeps_the_part_and_goes_on_later(
    site: Site, target: Path, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_open(monkeypatch, errno.ENOSPC, after=400_000)
    with pytest.raises(RunError, match="does not fit on its disk"):
        get(sha256(DATA))
    assert len(site.asked) == 1, "nothing of the connection's"
    monkeypatch.undo()
    monkeypatch.setenv("no_proxy", "*")
    get(sha256(DATA))
    assert site.asked == [None, "bytes=400000-"]
    assert target.read_bytes() == DATA


def test_a_read_only_disk_and_one_that_is_too_small(
    site: Site, target: Path, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_open(monkeypatch, errno.EROFS)
    with pytest.raises(RunError, match=r"could not be written: Read-only file system.*choose another folder"):
        get()
    monkeypatch.undo()
    monkeypatch.setenv("no_proxy", "*")
    usage = shutil.disk_usage(target.parent.parent)._replace(free=699_999)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(RunError, match=r"\(700,000 bytes needed, 699,999 bytes free\)\. Free some space"):
        get()
    assert not target.exists()

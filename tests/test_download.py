"""Downloads that go on where they stopped, and archives that can't write where they shouldn't."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ood_lab import download
from ood_lab.download import Checksum, fetch, file_digest
from ood_lab.errors import RequestError, RunError

OLD = random.Random(0).randbytes(700_000)
NEW = random.Random(1).randbytes(700_000)


def sha256(data: bytes) -> Checksum:
    return Checksum("sha256", hashlib.sha256(data).hexdigest())


class Asked(NamedTuple):
    path: str
    range: str | None
    if_range: str | None


@dataclass
class Reply:
    """How the server answers one request."""

    status: int | None = None
    cut_after: int | None = None
    stall: bool = False
    change_to: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Site:
    """One file on a loopback server, and what it is to do with the requests to come."""

    url: str = ""
    body: bytes = OLD
    ranges: bool = True
    etag: bool = True
    modified: bool = False
    heeds_if_range: bool = True
    tells_length: bool = True
    chunked: bool = False
    replies: list[Reply] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def validators(self) -> dict[str, str]:
        version = hashlib.md5(self.body).hexdigest()
        found = {"ETag": f'"{version}"'} if self.etag else {}
        day = 1 + int(version[:2], 16) % 28
        return found | ({"Last-Modified": f"Mon, {day:02d} Jan 2024 00:00:00 GMT"} if self.modified else {})

    @property
    def ranges_asked(self) -> list[str | None]:
        return [asked.range for asked in self.asked]


class Handler(BaseHTTPRequestHandler):
    site: Site

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        site = self.site
        site.asked.append(Asked(self.path, self.headers["Range"], self.headers["If-Range"]))
        reply = site.replies.pop(0) if site.replies else Reply()
        if reply.change_to is not None:
            site.body = reply.change_to
        if reply.status is not None:
            self.answer(reply.status, b"", {"Content-Length": "0"} | reply.headers, reply)
            return
        start, total = self.start(), len(site.body)
        rest = site.body[start:]
        headers = site.validators()
        if site.tells_length:
            headers["Content-Length"] = str(len(rest))
        if self.ranged() and start >= total:
            self.answer(416, b"", {"Content-Range": f"bytes */{total}", "Content-Length": "0"} | reply.headers, reply)
        elif self.ranged():
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
            self.answer(206, rest, headers | reply.headers, reply)
        else:
            self.answer(200, rest, headers | reply.headers, reply)

    def ranged(self) -> bool:
        asked = self.headers["If-Range"]
        fits = asked is None or not self.site.heeds_if_range or asked in self.site.validators().values()
        return self.headers["Range"] is not None and self.site.ranges and fits

    def start(self) -> int:
        return int(self.headers["Range"].removeprefix("bytes=").removesuffix("-")) if self.ranged() else 0

    def answer(self, status: int, body: bytes, headers: dict[str, str], reply: Reply) -> None:
        self.send_response(status)
        if self.site.chunked and body:
            headers = {key: value for key, value in headers.items() if key != "Content-Length"}
            headers["Transfer-Encoding"] = "chunked"
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        sent = body if reply.cut_after is None else body[: reply.cut_after]
        if self.site.chunked and body:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(sent), sent))
            self.wfile.write(b"0\r\n\r\n" if reply.cut_after is None else b"")
        else:
            with suppress(ConnectionError):  # a client may have left, which is no fault of the server
                self.wfile.write(sent)
        if reply.stall:
            self.wfile.flush()
            self.site.stop.wait(5)


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
    """Everything below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def leave_part(target: Path, site: Site, data: bytes, **side: Any) -> None:
    """What an earlier process left, with another word in the side file where `side` says so."""
    target.parent.mkdir(exist_ok=True)
    target.with_name(".data.bin.part").write_bytes(data)
    validators = [*site.validators().values(), ""]
    text = {"url": site.url, "validator": validators[0], "total": len(site.body)} | side
    target.with_name(".data.bin.part.etag").write_text(json.dumps(text))


# --- checksums ---


@pytest.mark.parametrize(
    ("text", "algorithm"), [("md5:" + "aB" * 16, "md5"), (" SHA256:" + "0f" * 32 + "\n", "sha256")]
)
def test_a_checksum_is_read(text: str, algorithm: str) -> None:
    checksum = Checksum.parse(text)
    assert checksum.algorithm == algorithm
    assert str(checksum) == text.strip().lower()


@pytest.mark.parametrize(
    "text", ["", "md5", "md5:", "ab" * 16, "md5:" + "a" * 31, "sha1:" + "a" * 40, "md5:" + "g" * 32]
)
def test_what_is_no_checksum_is_refused_with_what_is_one(text: str) -> None:
    with pytest.raises(
        RequestError, match="is no checksum: expected md5: and 32 hex digits, or sha256: and 64"
    ) as error:
        Checksum.parse(text)
    assert repr(text) in str(error.value)


def test_digests_are_those_of_hashlib(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    assert file_digest(path, "md5") == hashlib.md5(OLD).hexdigest()
    assert file_digest(path, "sha256") == hashlib.sha256(OLD).hexdigest()


def test_the_module_needs_no_torch() -> None:
    code = "import sys, ood_lab.download; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- fetching ---


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("checked", [False, True])
def test_a_file_arrives_whole_and_alone(site: Site, target: Path, get: Get, checked: bool, chunked: bool) -> None:
    site.chunked = chunked
    assert get(sha256(OLD) if checked else None) == target
    assert target.read_bytes() == OLD
    assert names(target.parent) == ["data.bin"]
    assert site.asked == [Asked("/data.bin", None, None)]


def test_an_empty_file_and_one_without_a_length(site: Site, target: Path, get: Get) -> None:
    site.body = b""
    get()
    assert target.read_bytes() == b""
    target.unlink()
    site.body, site.tells_length, site.replies = OLD, False, [Reply(headers={"Connection": "close"})]
    get()
    assert target.read_bytes() == OLD


def test_a_server_that_holds_the_connection_open_behind_the_file_is_not_waited_for(site: Site, get: Get) -> None:
    site.replies = [Reply(stall=True)]
    assert get(timeout=2.0).read_bytes() == OLD
    assert not site.stop.is_set()
    assert len(site.asked) == 1


@pytest.mark.parametrize("chunked", [False, True])
def test_a_cut_connection_goes_on_where_it_stopped(site: Site, target: Path, get: Get, chunked: bool) -> None:
    site.chunked = chunked
    close = {"Connection": "close"}
    site.replies = [Reply(cut_after=300_001, headers=close), Reply(cut_after=100_000, headers=close)]
    etag = site.validators()["ETag"]
    get(sha256(OLD))
    assert [(asked.range, asked.if_range) for asked in site.asked] == [
        (None, None),
        ("bytes=300001-", etag),
        ("bytes=400001-", etag),
    ]
    assert target.read_bytes() == OLD
    assert names(target.parent) == ["data.bin"]


def test_a_silent_connection_goes_on_after_the_timeout(site: Site, target: Path, get: Get) -> None:
    site.replies = [Reply(cut_after=5, stall=True)]
    get(timeout=0.2)
    assert site.ranges_asked == [None, "bytes=5-"]
    assert target.read_bytes() == OLD


def test_the_last_attempt_says_what_is_kept_and_a_new_call_goes_on_from_it(site: Site, target: Path, get: Get) -> None:
    site.replies = [Reply(cut_after=1000, headers={"Connection": "close"}) for _ in range(3)]
    with pytest.raises(RunError, match="in 3 attempts; at last: the connection ended after 3,000 of 700,000") as error:
        get(attempts=3)
    part = target.with_name(".data.bin.part")
    assert f"goes on from the 3,000 bytes kept in {part}" in str(error.value)
    assert part.read_bytes() == OLD[:3000]
    assert not target.exists()
    get(attempts=1)
    assert site.ranges_asked[3:] == ["bytes=3000-"]
    assert target.read_bytes() == OLD
    assert names(target.parent) == ["data.bin"]


def test_waits_between_attempts_grow(site: Site, target: Path) -> None:
    site.replies = [Reply(503) for _ in range(6)]
    waits: list[float] = []
    with pytest.raises(RunError, match="in 6 attempts; at last: the server answered 503"):
        fetch(site.url, target, None, attempts=6, sleep=waits.append)
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert not target.parent.exists()


def test_a_part_of_a_stopped_process_is_gone_on_with(site: Site, target: Path, get: Get) -> None:
    leave_part(target, site, OLD[:123_456])
    get()
    assert site.asked == [Asked("/data.bin", "bytes=123456-", site.validators()["ETag"])]
    assert target.read_bytes() == OLD
    assert names(target.parent) == ["data.bin"]


@pytest.mark.parametrize("side", [None, "", "[]", '{"url": 1}', "\xff"])
@pytest.mark.parametrize("checked", [True, False])
def test_a_part_of_unknown_version_is_used_only_where_a_checksum_guards_it(
    site: Site, target: Path, get: Get, side: str | None, checked: bool
) -> None:
    leave_part(target, site, OLD[:1000])
    path = target.with_name(".data.bin.part.etag")
    path.unlink() if side is None else path.write_text(side, encoding="latin-1")
    get(sha256(OLD) if checked else None)
    assert site.asked == [Asked("/data.bin", "bytes=1000-" if checked else None, None)]
    assert target.read_bytes() == OLD
    assert names(target.parent) == ["data.bin"]


def test_a_part_of_another_url_is_not_used(site: Site, target: Path, get: Get) -> None:
    leave_part(target, site, NEW[:1000], url="http://127.0.0.1/other")
    get()
    assert site.ranges_asked == [None]
    assert target.read_bytes() == OLD


def test_a_server_without_ranges_sends_all_again(site: Site, target: Path, get: Get) -> None:
    site.ranges = False
    site.replies = [Reply(cut_after=300_000, headers={"Connection": "close"})]
    get()
    assert site.ranges_asked == [None, "bytes=300000-"]
    assert target.read_bytes() == OLD


@pytest.mark.parametrize("heeds_if_range", [True, False])
@pytest.mark.parametrize("date", [True, False])
def test_a_file_changed_between_two_tries_is_not_spliced(
    site: Site, target: Path, get: Get, heeds_if_range: bool, date: bool
) -> None:
    site.heeds_if_range, site.modified, site.etag = heeds_if_range, date, not date
    before = next(iter(site.validators().values()))
    site.replies = [Reply(cut_after=300_000, headers={"Connection": "close"}), Reply(change_to=NEW)]
    get()
    assert site.asked[1] == Asked("/data.bin", "bytes=300000-", before)
    # A server that sends the rest of the new file all the same is asked again, for the whole.
    assert site.ranges_asked[2:] == ([] if heeds_if_range else [None])
    assert target.read_bytes() == NEW
    assert names(target.parent) == ["data.bin"]


def test_a_weak_etag_is_no_version(site: Site, target: Path, get: Get) -> None:
    site.modified = True
    date = site.validators()["Last-Modified"]
    weak = {"ETag": 'W/"1"', "Connection": "close"}
    site.replies = [Reply(cut_after=10, headers=weak), Reply(headers=weak)]
    get()
    assert site.asked == [Asked("/data.bin", None, None), Asked("/data.bin", "bytes=10-", date)]
    assert target.read_bytes() == OLD


def test_without_any_version_or_checksum_a_cut_file_is_begun_again(site: Site, target: Path, get: Get) -> None:
    site.etag = False
    site.replies = [Reply(cut_after=300_000, headers={"Connection": "close"}), Reply(change_to=NEW)]
    get()
    assert site.ranges_asked == [None, None]
    assert target.read_bytes() == NEW


@pytest.mark.parametrize(
    "content_range", ["bytes 999-699999/700000", "bytes 1000-699999/700001", "nonsense", "bytes */700000"]
)
def test_another_range_than_asked_for_is_not_appended(site: Site, target: Path, get: Get, content_range: str) -> None:
    leave_part(target, site, OLD[:1000])
    site.replies = [Reply(headers={"Content-Range": content_range, "Connection": "close"})]
    get()
    assert site.ranges_asked == ["bytes=1000-", None]
    assert target.read_bytes() == OLD


def test_a_complete_part_is_taken_without_another_byte(site: Site, target: Path, get: Get) -> None:
    leave_part(target, site, OLD)
    get(sha256(OLD))
    assert site.ranges_asked == ["bytes=700000-"]
    assert target.read_bytes() == OLD
    assert names(target.parent) == ["data.bin"]


@pytest.mark.parametrize("headers", [{}, {"Content-Range": "bytes */5"}])
def test_a_part_longer_than_the_file_is_begun_again(
    site: Site, target: Path, get: Get, headers: dict[str, str]
) -> None:
    leave_part(target, site, OLD + b"more")
    site.replies = [Reply(416, headers=headers)]
    get()
    assert site.ranges_asked == ["bytes=700004-", None]
    assert target.read_bytes() == OLD


def test_a_wrong_checksum_deletes_the_download(site: Site, target: Path, get: Get) -> None:
    expected, found = sha256(NEW), sha256(OLD)
    with pytest.raises(RunError) as error:
        get(expected)
    message = f"data.bin from {site.url} has the checksum {found} where {expected} is expected (700,000 bytes)"
    assert str(error.value).startswith(message)
    assert "it was deleted. Try again" in str(error.value)
    assert names(target.parent) == []
    assert len(site.asked) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 416, 204])
def test_a_refusal_is_told_at_once(site: Site, target: Path, get: Get, status: int) -> None:
    site.replies = [Reply(status)]
    with pytest.raises(RunError, match=rf"{site.url} answered {status} .*correct it if the file has moved"):
        get()
    assert len(site.asked) == 1
    assert not target.parent.exists()


def test_a_refusal_keeps_what_has_arrived(site: Site, target: Path, get: Get) -> None:
    leave_part(target, site, OLD[:10])
    site.replies = [Reply(403)]
    with pytest.raises(RunError, match="answered 403 Forbidden"):
        get()
    assert names(target.parent) == [".data.bin.part", ".data.bin.part.etag"]


def test_a_busy_server_is_asked_again(site: Site, target: Path, get: Get) -> None:
    site.replies = [Reply(503), Reply(500)]
    get(sha256(OLD))
    assert site.ranges_asked == [None, None, None]
    assert target.read_bytes() == OLD


def test_a_host_that_does_not_answer(tmp_path: Path, get: Get, site: Site) -> None:
    site.url = "http://127.0.0.1:1/nothing"
    with pytest.raises(RunError, match="could not be downloaded in 2 attempts; at last: ConnectionRefusedError"):
        get(attempts=2)
    assert names(tmp_path) == []


def test_a_redirect_is_followed_with_the_range(site: Site, target: Path, get: Get) -> None:
    leave_part(target, site, OLD[:7])
    site.replies = [Reply(302, headers={"Location": "/elsewhere"})]
    get()
    assert [(asked.path, asked.range) for asked in site.asked] == [
        ("/data.bin", "bytes=7-"),
        ("/elsewhere", "bytes=7-"),
    ]
    assert target.read_bytes() == OLD


@pytest.mark.parametrize("location", ["file:///etc/hostname", "ftp://127.0.0.1/file"])
def test_a_redirect_out_of_http_is_refused(site: Site, tmp_path: Path, get: Get, location: str) -> None:
    site.replies = [Reply(302, headers={"Location": location})]
    with pytest.raises(RunError, match=r"Correct the URL\.$") as error:
        get()
    assert location.partition(":")[0] in str(error.value)
    assert len(site.asked) == 1
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/hostname",
        "ftp://host/file",
        "data.zip",
        "",
        "http://",
        "http://[bad/x",
        "http://host:port/x",
        "https://host/a b",
        "https://host/ä",
        "https://host/a\nb",
    ],
)
def test_only_whole_http_urls_are_taken(url: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="expected a URL that begins with http:// or https://") as error:
        fetch(url, tmp_path / "file", None)
    assert repr(url) in str(error.value)
    assert names(tmp_path) == []


def test_a_file_that_is_there_makes_no_request(site: Site, target: Path, get: Get) -> None:
    target.parent.mkdir()
    target.write_bytes(OLD)
    assert get(sha256(OLD)) == target
    assert get(Checksum("md5", hashlib.md5(OLD).hexdigest().upper())) == target
    assert get() == target
    assert site.asked == []


def test_a_file_that_is_there_with_another_checksum_is_left_to_the_user(site: Site, target: Path, get: Get) -> None:
    target.parent.mkdir()
    target.write_bytes(NEW)
    with pytest.raises(RunError) as error:
        get(sha256(OLD))
    message = f"{target} is there with the checksum {sha256(NEW)} where {sha256(OLD)} is expected. Delete it"
    assert str(error.value).startswith(message)
    assert target.read_bytes() == NEW
    assert site.asked == []


def test_a_folder_in_the_targets_place(target: Path, get: Get) -> None:
    target.mkdir(parents=True)
    with pytest.raises(RunError, match="is no file, so nothing can be downloaded to that name"):
        get()


def test_a_target_below_a_file(target: Path, get: Get) -> None:
    target.parent.write_bytes(b"file")
    with pytest.raises(RunError, match=r"\.data\.bin\.part could not be written: .*choose another folder"):
        get()
    assert target.parent.read_bytes() == b"file"


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
    with pytest.raises(RunError, match=r"does not fit on its disk \(700,000 bytes needed, [\d,]+ bytes free\)"):
        get()
    assert len(site.asked) == 1
    part = target.with_name(".data.bin.part")
    assert part.read_bytes() == OLD[:400_000]
    monkeypatch.undo()
    monkeypatch.setenv("no_proxy", "*")
    get()
    assert site.ranges_asked == [None, "bytes=400000-"]
    assert target.read_bytes() == OLD
    assert names(target.parent) == ["data.bin"]


def test_a_read_only_disk(site: Site, target: Path, get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_open(monkeypatch, errno.EROFS)
    with pytest.raises(RunError, match=r"\.data\.bin\.part could not be written: Read-only file system") as error:
        get()
    assert "choose another folder" in str(error.value)
    assert len(site.asked) == 1
    assert not target.exists()


def test_too_small_a_disk_is_told_before_the_download(
    site: Site, target: Path, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(target.parent.parent)._replace(free=699_999)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(RunError, match=r"\(700,000 bytes needed, 699,999 bytes free\)\. Free some space"):
        get()
    assert not target.parent.exists()
    leave_part(target, site, OLD[:1])
    get()
    assert target.read_bytes() == OLD


def test_progress_counts_megabytes_from_where_it_goes_on(
    site: Site, target: Path, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.body = OLD * 5
    leave_part(target, site, site.body[:1_200_000])
    meters: list[download.Meter] = []

    class Kept(download.Meter):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            meters.append(self)

    monkeypatch.setattr(download, "Meter", Kept)
    get()
    assert [(meter.description, meter.first, meter.done, meter.total) for meter in meters] == [
        ("data.bin (MB)", 1, 3, 3)
    ]

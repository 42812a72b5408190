"""Archives: unpacked whole or not at all, and never outside their folder."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import random
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ood_lab import archive as module
from ood_lab.archive import extract
from ood_lab.errors import RunError

DATA = random.Random(0).randbytes(700_000)
FILES = {"top.txt": b"top\n", "a/b/deep.bin": DATA[:70_000], "a/empty": b"", "a/ünï.txt": b"name"}
Entry = tuple[str, bytes]


def make_zip(path: Path, files: dict[str, bytes] = FILES, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a/", b"")
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def make_tar(path: Path, mode: str, files: dict[str, bytes] = FILES, extra: tuple[tarfile.TarInfo, ...] = ()) -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        folder = tarfile.TarInfo("./a")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(folder)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in extra:
            archive.addfile(info)
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def names(folder: Path) -> list[str]:
    """Everything below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(archive: Path, folder: Path, match: str, **options: Any) -> str:
    """The message of an archive that is to leave no trace."""
    before = names(folder.parent)
    with pytest.raises(RunError, match=match) as error:
        extract(archive, folder, **options)
    assert names(folder.parent) == before
    assert "/" in str(error.value)
    return str(error.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out" / "folder"


KINDS: dict[str, Callable[[Path], Path]] = {
    "x.zip": make_zip,
    "stored.zip": lambda path: make_zip(path, compression=zipfile.ZIP_STORED),
    "x.tar": lambda path: make_tar(path, "w"),
    "x.tar.gz": lambda path: make_tar(path, "w:gz"),
    "x.tgz": lambda path: make_tar(path, "w:gz"),
    "x.tar.bz2": lambda path: make_tar(path, "w:bz2"),
    "x.tar.xz": lambda path: make_tar(path, "w:xz"),
    "zip by content": make_zip,
    "tar by content.zip": lambda path: make_tar(path, "w"),
    "tgz by content": lambda path: make_tar(path, "w:gz"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_archives_are_unpacked_bit_for_bit(kind: str, tmp_path: Path, folder: Path) -> None:
    extract(KINDS[kind](tmp_path / kind), folder, expected="a/b/deep.bin")
    assert contents(folder) == FILES
    assert names(folder) == sorted({*FILES, "a", "a/b"})


@pytest.mark.parametrize(("suffix", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
def test_a_single_compressed_file(suffix: str, compress: Any, tmp_path: Path, folder: Path) -> None:
    packed = tmp_path / f"images-idx3-ubyte.{suffix}"
    packed.write_bytes(compress(DATA))
    extract(packed, folder, expected="images-idx3-ubyte")
    assert contents(folder) == {"images-idx3-ubyte": DATA}
    nameless = packed.rename(tmp_path / "data")
    extract(nameless, tmp_path)
    assert (tmp_path / "data.unpacked").read_bytes() == DATA
    assert nameless.exists()


@pytest.mark.parametrize("kind", ["x.zip", "stored.zip", "x.tar", "x.tar.gz", "x.tar.bz2", "x.tar.xz"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_truncated_archive_leaves_nothing(kind: str, share: float, tmp_path: Path, folder: Path) -> None:
    archive = KINDS[kind](tmp_path / kind)
    data = archive.read_bytes()
    # A tar is padded with empty blocks behind its end mark, so the share is of what is before them.
    size = len(data.rstrip(b"\0")) if kind == "x.tar" else len(data)
    archive.write_bytes(data[: int(size * share)])
    message = refused(archive, folder, "is damaged or incomplete")
    assert message.startswith(str(archive))
    assert message.endswith("Delete it and download it again.")


@pytest.mark.parametrize("cut", [512, 700, 1024])
def test_a_tar_that_ends_between_two_members(cut: int, tmp_path: Path, folder: Path) -> None:
    archive = make_tar(tmp_path / "x.tar", "w")
    archive.write_bytes(archive.read_bytes()[:cut])
    refused(archive, folder, "damaged or incomplete")


def test_a_tar_whose_later_header_is_damaged(tmp_path: Path, folder: Path) -> None:
    archive = make_tar(tmp_path / "x.tar", "w")
    data = bytearray(archive.read_bytes())
    data[512 + 100] ^= 0xFF
    archive.write_bytes(data)
    refused(archive, folder, "damaged or incomplete .*bad checksum")


@pytest.mark.parametrize("kind", ["x.zip", "stored.zip", "x.tar.gz", "x.tar.bz2", "x.tar.xz"])
def test_a_flipped_byte_leaves_nothing(kind: str, tmp_path: Path, folder: Path) -> None:
    archive = KINDS[kind](tmp_path / kind)
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 0xFF
    archive.write_bytes(data)
    refused(archive, folder, "damaged or incomplete")


@pytest.mark.parametrize("name", ["x.tar.gz", "x.gz"])
def test_a_wrong_crc_behind_the_last_byte(name: str, tmp_path: Path, folder: Path) -> None:
    archive = tmp_path / name
    if name == "x.gz":
        archive.write_bytes(gzip.compress(DATA))
    else:
        make_tar(archive, "w:gz")
    data = bytearray(archive.read_bytes())
    data[-8] ^= 0xFF
    archive.write_bytes(data)
    refused(archive, folder, "damaged or incomplete .*CRC")


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html>log in</html>", b"Rar!\x1a\x07\x00" + bytes(600)])
def test_what_is_no_archive(content: bytes, tmp_path: Path, folder: Path) -> None:
    archive = tmp_path / "x.zip"
    archive.write_bytes(content)
    assert repr(content[:16]) in refused(archive, folder, "is no zip, tar, gz, bz2 or xz: it begins with")


def test_an_archive_that_is_not_there(tmp_path: Path, folder: Path) -> None:
    refused(tmp_path / "x.zip", folder, r"x\.zip could not be unpacked into .*No such file")


OUTSIDE = ["../evil", "a/../../evil", "/abs/evil", "..", "a/..", "C:/evil", "c:evil", "..\\evil", "C:\\evil", "a\\evil"]


@pytest.mark.parametrize("name", [*OUTSIDE, "__MACOSX/../../evil"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_member_outside_the_folder_is_refused(kind: str, name: str, tmp_path: Path, folder: Path) -> None:
    files = {"good": b"good", name: b"evil", "later": b"good"}
    archive = tmp_path / f"x.{kind}"
    make_zip(archive, files) if kind == "zip" else make_tar(archive, "w", files)
    message = refused(archive, folder, r"holds the member .*, which has .*Nothing was unpacked")
    assert repr(name) in message
    assert not Path("/abs").exists()


LINKS_OUT = [
    ("link", "/etc"),
    ("link", ".."),
    ("link", "../sibling"),
    ("a/link", "../../sibling"),
    ("a/link", "./../.././x"),
    ("link", "a/../.."),
    ("link", "C:/x"),
    ("link", "a\\..\\.."),
    ("link", ""),
]


@pytest.mark.parametrize(("name", "target"), LINKS_OUT)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_symlink_outside_the_folder_is_refused(
    kind: str, name: str, target: str, tmp_path: Path, folder: Path
) -> None:
    archive = tmp_path / f"x.{kind}"
    if kind == "zip":
        make_zip_link(archive, name, target)
    else:
        make_tar(archive, "w", extra=(special(name, tarfile.SYMTYPE, target),))
    message = refused(archive, folder, "is a link to .*outside the archive")
    assert f"the member {name!r}, which is a link to {target!r}" in message


def make_zip_link(path: Path, name: str, target: str, mode: int = stat.S_IFLNK) -> Path:
    make_zip(path)
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo(name)
        info.create_system, info.external_attr = 3, (mode | 0o777) << 16
        archive.writestr(info, target)
    return path


def test_a_member_below_a_link_is_refused(tmp_path: Path, folder: Path) -> None:
    """A link inside, through which a second one would count its levels wrongly."""
    extra = (special("a/up", tarfile.SYMTYPE, ".."), special("a/up/out", tarfile.SYMTYPE, "../secret"))
    refused(make_tar(tmp_path / "x.tar", "w", extra=extra), folder, "'a/up/out', which lies below 'a/up', a link")
    archive = make_zip_link(tmp_path / "x.zip", "top.txt/below", "x", stat.S_IFREG)
    refused(archive, folder, "'top.txt/below', which lies below 'top.txt', a file")


@pytest.mark.parametrize("target", ["/etc/hostname", "../evil", "a/../../evil", "missing", "a", "hard", ""])
def test_a_hard_link_to_no_file_of_the_archive_is_refused(target: str, tmp_path: Path, folder: Path) -> None:
    archive = make_tar(tmp_path / "x.tar.gz", "w:gz", extra=(special("hard", tarfile.LNKTYPE, target),))
    assert f"'hard', which is a hard link to {target!r}" in refused(archive, folder, "outside|no file of the archive")


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_a_device_is_refused(kind: bytes, tmp_path: Path, folder: Path) -> None:
    archive = make_tar(tmp_path / "x.tar", "w", extra=(special("a/dev", kind),))
    refused(archive, folder, "'a/dev', which is a device")
    if kind != tarfile.BLKTYPE:
        mode = stat.S_IFCHR if kind == tarfile.CHRTYPE else stat.S_IFIFO
        refused(make_zip_link(tmp_path / "x.zip", "dev", "", mode), folder, "'dev', which is a device")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_links_inside_are_kept(kind: str, tmp_path: Path, folder: Path) -> None:
    archive = tmp_path / f"x.{kind}"
    if kind == "zip":
        make_zip_link(archive, "a/link", "../top.txt")
    else:
        extra = (special("a/link", tarfile.SYMTYPE, "../top.txt"), special("hard", tarfile.LNKTYPE, "top.txt"))
        make_tar(archive, "w", extra=extra)
    for _ in range(2):  # the second over what the first left
        extract(archive, folder, expected="a/link")
        assert (folder / "a" / "link").readlink() == Path("../top.txt")
        assert (folder / "a" / "link").read_bytes() == b"top\n"
    assert kind == "zip" or (folder / "hard").read_bytes() == b"top\n"


def test_the_later_of_two_members_with_one_name_counts(tmp_path: Path, folder: Path) -> None:
    archive = make_tar(tmp_path / "x.tar", "w", {"one": b"first", "two": b"2", "./one": b"second"})
    extract(archive, folder)
    assert contents(folder) == {"one": b"second", "two": b"2"}


def test_a_link_to_a_folder_is_replaced_by_the_archives(tmp_path: Path, folder: Path) -> None:
    archive = make_tar(tmp_path / "x.tar", "w", extra=(special("latest", tarfile.SYMTYPE, "a/b"),))
    folder.mkdir(parents=True)
    (folder / "latest").symlink_to(".")
    extract(archive, folder, expected="latest/deep.bin")
    assert (folder / "latest").readlink() == Path("a/b")
    assert sorted(path.name for path in folder.iterdir()) == ["a", "latest", "top.txt"]


def test_litter_of_macos_is_left_out(tmp_path: Path, folder: Path) -> None:
    litter = {"__MACOSX/a/._x": b"1", "a/.DS_Store": b"2", ".DS_Store": b"3", "a/__MACOSX": b"4"}
    extract(make_zip(tmp_path / "x.zip", FILES | litter), folder)
    assert contents(folder) == FILES


def test_a_folder_that_is_there_is_merged_into(tmp_path: Path, folder: Path) -> None:
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "mine").write_bytes(b"mine")
    (folder / "a" / "b" / "mine too").write_bytes(b"mine too")
    (folder / "a" / "b" / "deep.bin").write_bytes(b"older")
    extract(make_tar(tmp_path / "x.tgz", "w:gz"), folder)
    assert contents(folder) == FILES | {"mine": b"mine", "a/b/mine too": b"mine too"}


@pytest.mark.parametrize("blocked", ["a/b", "a/empty"])
def test_a_file_in_a_folders_place_stops_before_anything_is_moved(blocked: str, tmp_path: Path, folder: Path) -> None:
    place = folder / blocked
    place.parent.mkdir(parents=True)
    (place / "mine").mkdir(parents=True) if blocked == "a/empty" else place.write_bytes(b"mine")
    assert str(place) in refused(make_zip(tmp_path / "x.zip"), folder, "Nothing was unpacked. Move")
    refused(make_zip(tmp_path / "y.zip"), folder / "a/b" if blocked == "a/b" else folder, "Move|could not be unpacked")


def test_an_expected_path_that_the_archive_lacks(tmp_path: Path, folder: Path) -> None:
    message = refused(
        make_zip(tmp_path / "x.zip"), folder, r"did not hold data/train; it holds a, top\.txt", expected="data/train"
    )
    assert message.endswith("download the right file.")


def test_temporary_folders_of_dead_processes_are_removed(tmp_path: Path, folder: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for process in (dead.pid, os.getppid(), os.getpid()):
        (folder / f".x.zip.unpacking-{process}" / "a").mkdir(parents=True)
    extract(make_zip(tmp_path / "x.zip"), folder)
    assert contents(folder) == FILES
    assert [name for name in names(folder) if "unpacking" in name and "/" not in name] == [
        f".x.zip.unpacking-{os.getppid()}"
    ]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_an_error_while_writing_leaves_nothing(
    error: BaseException, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(shutil, "copyfileobj", fail)
    with pytest.raises((RunError, KeyboardInterrupt), match=r"does not fit on its disk|^$"):
        extract(make_zip(tmp_path / "x.zip"), folder)
    assert names(tmp_path) == ["x.zip"]


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "gz"])
def test_more_than_the_disk_holds_is_refused(
    kind: str, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, files = tmp_path / f"x.{kind}", {"zeros": bytes(2_000_000), "more": bytes(2_000_000)}
    if kind == "gz":
        archive.write_bytes(gzip.compress(bytes(4_000_000)))
    else:
        make_zip(archive, files) if kind == "zip" else make_tar(archive, "w:gz", files)
    assert archive.stat().st_size < 50_000
    usage = shutil.disk_usage(tmp_path)._replace(free=3_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    # A single file is read no further than to the first piece that doesn't fit.
    told = f"{-(-3_000_000 // module.CHUNK_BYTES) * module.CHUNK_BYTES:,}" if kind == "gz" else "4,000,000"
    refused(archive, folder, rf"too large to unpack: {told} bytes or more where .* has 3,000,000 bytes free")


def test_an_encrypted_zip_and_an_unknown_compression(tmp_path: Path, folder: Path) -> None:
    archive = make_zip(tmp_path / "x.zip", {"secret": b"data"})
    plain = archive.read_bytes()
    entry = plain.index(b"PK\x01\x02", plain.index(b"PK\x01\x02") + 4)  # behind the folder's
    for offset, value, match in ((8, 1, "'secret' encrypted"), (10, 9, "can't be unpacked here: ")):
        data = bytearray(plain)
        struct.pack_into("<H", data, entry + offset, value)
        archive.write_bytes(data)
        refused(archive, folder, match)

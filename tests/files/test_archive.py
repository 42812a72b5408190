"""Archives: unpacked whole or not at all, and never outside their folder."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ood_lab.errors import RunError
from ood_lab.files.archive import extract

DATA = random.Random(0).randbytes(700_000)
FILES = {"top.txt": b"top\n", "a/b/deep.bin": DATA[:70_000], "a/empty": b"", "a/ünï.txt": b"name"}


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
    before = contents(folder)
    with pytest.raises(RunError, match=match) as error:
        extract(archive, folder, **options)
    assert contents(folder) == before
    assert not [name for name in names(folder) if "unpacking" in name]
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
    data = bytearray(packed.read_bytes())
    data[len(data) // 2] ^= 0xFF
    packed.write_bytes(data)
    refused(packed, folder, "damaged or incomplete")


@pytest.mark.parametrize("kind", ["x.zip", "stored.zip", "x.tar", "x.tar.gz", "x.tar.bz2", "x.tar.xz"])
def test_a_truncated_archive_leaves_nothing(kind: str, tmp_path: Path, folder: Path) -> None:
    archive = KINDS[kind](tmp_path / kind)
    data = archive.read_bytes()
    size = len(data.rstrip(b"\0")) if kind == "x.tar" else len(data)
    for share in (0.02, 0.5, 0.99):
        archive.write_bytes(data[: int(size * share)])
        message = refused(archive, folder, "damaged or incomplete|or a damaged one")
        assert message.startswith(str(archive))


@pytest.mark.parametrize("kind", ["x.zip", "stored.zip", "x.tar.gz", "x.tar.bz2", "x.tar.xz"])
def test_a_flipped_byte_leaves_nothing(kind: str, tmp_path: Path, folder: Path) -> None:
    archive = KINDS[kind](tmp_path / kind)
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 0xFF
    archive.write_bytes(data)
    refused(archive, folder, "damaged or incomplete")


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path: Path, folder: Path) -> None:
    inner = make_zip(tmp_path / "inner.zip", {"inside": b"of the zip"}).read_bytes()
    for number, mode in enumerate(("w", "w:gz")):
        place = folder / str(number)
        extract(make_tar(tmp_path / f"{number}.tar", mode, FILES | {"inner.zip": inner}), place)
        assert contents(place) == FILES | {"inner.zip": inner}


def test_a_tar_that_is_broken_or_ends_where_a_member_begins_leaves_nothing(tmp_path: Path, folder: Path) -> None:
    archive = make_tar(tmp_path / "x.tar", "w")
    data = archive.read_bytes()
    with tarfile.open(archive) as opened:
        starts = [member.offset for member in opened.getmembers()][1:]
        end = opened.offset
    assert len(starts) == len(FILES)
    broken = [data[:start] + bytes([data[start] ^ 0xFF]) + data[start + 1 :] for start in starts]
    for changed in [*broken, *(data[:start] for start in [*starts, end])]:
        for compress in (bytes, gzip.compress):
            archive.write_bytes(compress(changed))
            refused(archive, folder, "damaged or incomplete")


def test_what_is_no_archive(tmp_path: Path, folder: Path) -> None:
    archive = tmp_path / "x.zip"
    for content in (b"", b"<!DOCTYPE html><html>log in</html>", b"Rar!\x1a\x07\x00" + bytes(600)):
        archive.write_bytes(content)
        refused(archive, folder, "is no zip, tar, gz, bz2 or xz, or a damaged one")
    refused(tmp_path / "y.zip", folder, "no such file")


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/abs/evil"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_no_member_leaves_the_folder(kind: str, name: str, tmp_path: Path, folder: Path) -> None:
    files = {"good": b"good", name: b"evil"}
    archive = tmp_path / f"x.{kind}"
    if kind == "tar" and name != "/abs/evil":  # of an absolute name the slash is left out
        refused(make_tar(archive, "w", files), folder, "an unsafe member: .*outside the destination")
        return
    make_zip(archive, files) if kind == "zip" else make_tar(archive, "w", files)
    extract(archive, folder)
    assert {path for path in names(tmp_path) if "evil" in path} <= {f"out/folder/{path}" for path in names(folder)}
    assert not Path("/abs").exists()


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_a_device_is_refused(kind: bytes, tmp_path: Path, folder: Path) -> None:
    refused(
        make_tar(tmp_path / "x.tar", "w", extra=(special("dev", kind),)), folder, "an unsafe member: .*special file"
    )


@pytest.mark.parametrize("target", ["/etc", "../sibling", "a/../.."])
def test_a_link_out_of_the_folder_is_refused(target: str, tmp_path: Path, folder: Path) -> None:
    archive = make_tar(tmp_path / "x.tar", "w", extra=(special("link", tarfile.SYMTYPE, target),))
    refused(archive, folder, "an unsafe member")


def test_links_inside_are_kept_and_replace_links(tmp_path: Path, folder: Path) -> None:
    extra = (special("a/link", tarfile.SYMTYPE, "../top.txt"), special("hard", tarfile.LNKTYPE, "top.txt"))
    archive = make_tar(tmp_path / "x.tar", "w", extra=extra)
    for _ in range(2):  # the second over what the first left
        extract(archive, folder, expected="a/link")
        assert (folder / "a" / "link").readlink() == Path("../top.txt")
        assert (folder / "hard").read_bytes() == b"top\n"


def test_litter_of_macos_is_left_out(tmp_path: Path, folder: Path) -> None:
    litter = {"__MACOSX/a/._x": b"1", "a/.DS_Store": b"2", ".DS_Store": b"3", "a/__MACOSX": b"4"}
    extract(make_zip(tmp_path / "x.zip", FILES | litter), folder)
    extract(make_tar(tmp_path / "x.tar", "w", FILES | litter), folder)
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


def test_an_expected_path_that_the_archive_lacks(tmp_path: Path, folder: Path) -> None:
    message = refused(
        make_zip(tmp_path / "x.zip"), folder, r"did not hold data/train; it holds a, top\.txt", expected="data/train"
    )
    assert message.endswith("download the right file.")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_an_error_while_writing_leaves_nothing(
    error: BaseException, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    archive = make_zip(tmp_path / "x.zip")
    monkeypatch.setattr(zipfile.ZipFile, "extractall", fail)
    with pytest.raises((RunError, KeyboardInterrupt), match=r"does not fit on its disk|^$"):
        extract(archive, folder)
    assert names(folder) == []


def test_more_than_the_disk_holds_is_refused(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make_zip(tmp_path / "x.zip", {"zeros": bytes(2_000_000)})
    monkeypatch.setattr("ood_lab.files.archive.free_bytes", lambda _: 1_000_000)
    refused(archive, folder, r"\(2,000,000 bytes needed, 1,000,000 bytes free\)")


def test_an_encrypted_zip_and_an_unknown_compression(tmp_path: Path, folder: Path) -> None:
    archive = make_zip(tmp_path / "x.zip", {"secret": b"data"})
    plain = archive.read_bytes()
    entry = plain.index(b"PK\x01\x02", plain.index(b"PK\x01\x02") + 4)  # behind the folder's
    for offset, value in ((8, 1), (10, 9)):
        data = bytearray(plain)
        struct.pack_into("<H", data, entry + offset, value)
        archive.write_bytes(data)
        refused(archive, folder, "can't be unpacked here: |damaged")

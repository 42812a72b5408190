"""Archives, unpacked without trusting what they hold."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, Protocol, Self

from ood_lab.disk import bytes_text, free_bytes, full_disk, in_words
from ood_lab.errors import RunError
from ood_lab.progress import track

CHUNK_BYTES = 1 << 18


def extract(archive: Path, folder: Path, *, expected: str | None = None) -> None:
    """Unpack a zip, a tar (plain, gz, bz2, xz) or one compressed file (gz, bz2, xz), told apart by their content.

    Every member is checked before anything is written. All is unpacked into a temporary folder inside `folder` first
    and then moved, so that an archive that turns out damaged leaves nothing. What `folder` holds already stays,
    but for files of the same names, which are replaced. What macOS adds (__MACOSX, .DS_Store) is left out.

    Args:
        expected: a path inside `folder` that must be there at the end.

    Raises:
        RunError: a member that would be written outside `folder` or that is no file, folder or link; a damaged or
            unknown archive; more than fits on the disk; a file in the place of a folder or a folder in that of a file;
            or `expected` isn't in the archive.
    """
    with _unpack_errors(archive, folder), _opened(archive) as source:
        members = _checked(archive, source, folder)
        with _unpacking(archive, folder) as temporary:
            for member in track(members, f"Unpacking {archive.name}"):
                source.write(member, temporary)
            if expected is not None and not any((top / expected).exists() for top in (temporary, folder)):
                found = ", ".join(sorted({member.path.parts[0] for member in members})[:10]) or "nothing"
                raise RunError(
                    f"{archive} did not hold {expected}; it holds {found}. Nothing was unpacked. "
                    "Delete it and download the right file."
                )
            for entry, place in list(_moves(archive, temporary, folder)):
                entry.replace(place)


@dataclass(frozen=True)
class _Member:
    name: str
    kind: Literal["file", "folder", "link", "hard link", "device"]
    size: int = 0
    target: str = ""
    entry: Any = None

    @property
    def path(self) -> PurePosixPath:
        return PurePosixPath(self.name)


class _Source(Protocol):
    """An open archive."""

    def members(self, room: int | None) -> Iterator[_Member]:
        """Every member in order; to the end only where no more than `room` bytes come out."""

    def write(self, member: _Member, folder: Path) -> None:
        """Unpack one member under `folder`."""


class _Zip:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive

    def members(self, room: int | None) -> Iterator[_Member]:
        for info in self.archive.infolist():
            if info.flag_bits & 1:
                raise RunError(
                    f"{self.archive.filename} holds {info.filename!r} encrypted, where plain files are expected. "
                    "Unpack it by hand with its password."
                )
            mode = stat.S_IFMT(info.external_attr >> 16)  # 0 where the writer has no modes
            if info.is_dir():
                yield _Member(info.filename, "folder")
            elif stat.S_ISLNK(mode):
                # Longer than any path: no link, and nothing to read into memory.
                target = os.fsdecode(self.archive.read(info)) if info.file_size <= 4096 else ""
                yield _Member(info.filename, "link", 0, target)
            else:
                yield _Member(
                    info.filename, "file" if stat.S_ISREG(mode) or not mode else "device", info.file_size, "", info
                )

    def write(self, member: _Member, folder: Path) -> None:
        path = folder / member.path
        (path if member.kind == "folder" else path.parent).mkdir(parents=True, exist_ok=True)
        if member.kind == "link":
            path.symlink_to(member.target)
        elif member.kind == "file":
            with self.archive.open(member.entry) as content, path.open("wb") as file:
                shutil.copyfileobj(content, file, CHUNK_BYTES)


class _StrictHeader(tarfile.TarInfo):
    """tarfile takes a damaged or missing header for the end of the archive, once it has read one; here it is damage."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if _is_end_mark(buf):
                raise
            raise tarfile.ReadError(f"{error}, where a member or the end mark belongs") from error


class _Tar:
    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.archive = tarfile.open(fileobj=stream, mode="r:", tarinfo=_StrictHeader)  # noqa: SIM115  # the stream's
        # A second net below our checks. Set in this way since the first releases of 3.11 lack it.
        self.archive.extraction_filter = getattr(tarfile, "data_filter", None)

    def members(self, room: int | None) -> Iterator[_Member]:
        for entry in self.archive:
            if entry.isreg():
                yield _Member(entry.name, "file", entry.size, "", entry)
            elif entry.isdir():
                yield _Member(entry.name, "folder", 0, "", entry)
            elif entry.issym():
                yield _Member(entry.name, "link", 0, entry.linkname, entry)
            else:
                yield _Member(entry.name, "hard link" if entry.islnk() else "device", 0, entry.linkname, entry)
        # The compression's own checksum lies behind the tar's end mark, where tarfile doesn't read.
        while self.stream.read(CHUNK_BYTES):
            pass

    def write(self, member: _Member, folder: Path) -> None:
        self.archive.extract(member.entry, folder)


class _OneFile:
    """A file that was compressed by itself."""

    def __init__(self, name: str, stream: IO[bytes]) -> None:
        self.name, self.stream = name, stream

    def members(self, room: int | None) -> Iterator[_Member]:
        size = 0
        while (room is None or size <= room) and (chunk := self.stream.read(CHUNK_BYTES)):
            size += len(chunk)
        yield _Member(self.name, "file", size)

    def write(self, member: _Member, folder: Path) -> None:
        self.stream.seek(0)
        with (folder / member.path).open("wb") as file:
            shutil.copyfileobj(self.stream, file, CHUNK_BYTES)


COMPRESSIONS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}


@contextmanager
def _opened(archive: Path) -> Iterator[_Source]:
    with archive.open("rb") as file:
        head = file.read(tarfile.BLOCKSIZE)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        with zipfile.ZipFile(archive) as packed:
            yield _Zip(packed)
        return
    decompress = next((opener for magic, opener in COMPRESSIONS.items() if head.startswith(magic)), None)
    if decompress is None and not _is_tar(head):
        raise RunError(
            f"{archive} is no zip, tar, gz, bz2 or xz: it begins with {head[:16]!r}. A web page may have been saved in "
            "the file's place: delete it and download it again."
        )
    with decompress(archive) if decompress is not None else archive.open("rb") as stream:
        tar = decompress is None or _is_tar(stream.read(tarfile.BLOCKSIZE))
        stream.seek(0)
        # By its name too: a tar whose first header is damaged is no file to hand on.
        if tar or re.search(r"\.(tar\.\w+|t[gbx]z2?)$", archive.name, re.IGNORECASE):
            yield _Tar(stream)
        else:
            plain = archive.suffix.lower() in (".gz", ".bz2", ".xz")
            yield _OneFile(archive.stem if plain else f"{archive.name}.unpacked", stream)


def _is_tar(block: bytes) -> bool:
    """Whether this is a tar's first block; the header's checksum tells, in the oldest format as well."""
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _is_end_mark(block: bytes | bytearray) -> bool:
    return len(block) == tarfile.BLOCKSIZE and not any(block)


def _checked(archive: Path, source: _Source, folder: Path) -> list[_Member]:
    """The members to unpack, once each, when all of them are known to be harmless and to fit."""
    room, total = free_bytes(folder), 0
    kept: dict[PurePosixPath, _Member] = {}
    for member in source.members(room):
        _refuse(archive, member, _outside(member))
        total += member.size
        if room is not None and total > room:
            raise RunError(
                f"{archive} is too large to unpack: {bytes_text(total)} or more where {folder} has "
                f"{bytes_text(room)} free. Free some space, or choose a folder on another disk."
            )
        litter = "__MACOSX" in member.path.parts or member.path.name == ".DS_Store"
        if member.path.parts and not litter:
            kept.pop(member.path, None)  # of two with one name the later, in order: packed tars are read forwards
            kept[member.path] = member
    for member in kept.values():
        _refuse(archive, member, _misplaced(member, kept))
    return list(kept.values())


def _refuse(archive: Path, member: _Member, reason: str | None) -> None:
    if reason is not None:
        raise RunError(
            f"{archive} holds the member {member.name!r}, which {reason}; expected files below the folder that it is "
            "unpacked to. Nothing was unpacked. Delete the archive and get it from where it is published."
        )


def _outside(member: _Member) -> str | None:
    """What makes a member unfit on its own, if anything."""
    if member.kind == "device":
        return "is a device or another special file"
    reason = _bad_path(member.name)
    if reason is not None or member.kind not in ("link", "hard link"):
        return reason
    # The root itself, or below it as many levels as ".." may go up. A ".." behind a name isn't counted but refused:
    # the name may be a link, and what is above a link's end is not what is above the link.
    parts = [part for part in member.target.split("/") if part not in ("", ".")]
    ups = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
    levels = len(member.path.parts) - 1 if member.kind == "link" else 0
    bad = not member.target or ups > levels or _bad_path("/".join(parts[ups:])) or member.target.startswith("/")
    return f"is a {member.kind} to {member.target!r}, outside the archive" if bad else None


def _bad_path(name: str) -> str | None:
    if "\\" in name or "\0" in name:
        return "has a backslash or a NUL in its name"
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "has an absolute path"
    return "has '..' in its path" if ".." in name.split("/") else None


def _misplaced(member: _Member, kept: dict[PurePosixPath, _Member]) -> str | None:
    """What makes a member unfit among the others, if anything."""
    for parent in member.path.parents:
        above = kept.get(parent)
        if above is not None and above.kind != "folder":
            return f"lies below {above.name!r}, a {above.kind}"
    if member.kind == "hard link":
        other = kept.get(PurePosixPath(member.target))
        if other is None or other.kind != "file":
            return f"is a hard link to {member.target!r}, no file of the archive"
    return None


@contextmanager
def _unpacking(archive: Path, folder: Path) -> Iterator[Path]:
    """A temporary folder inside `folder`; it goes at the end, and with it on an error the folders made for it."""
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    temporary = folder / f".{archive.name}.unpacking-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for entry in list(folder.iterdir()):
            match = re.fullmatch(r"\..*\.unpacking-(\d+)", entry.name)
            if match and (entry == temporary or not _is_running(int(match[1]))):
                shutil.rmtree(entry, ignore_errors=True)
        temporary.mkdir()
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        for place in made:
            with suppress(OSError):  # something is in it: it's no longer ours alone
                place.rmdir()
        raise
    shutil.rmtree(temporary, ignore_errors=True)


def _is_running(process: int) -> bool:
    if os.name != "posix":  # elsewhere the signal 0 would not only ask
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _moves(archive: Path, source: Path, folder: Path) -> Iterator[tuple[Path, Path]]:
    """What to rename, and to which name: a folder whole where there is none yet, else what is in it."""
    for entry in sorted(source.iterdir()):
        place = folder / entry.name
        is_folder = entry.is_dir() and not entry.is_symlink()
        if is_folder and place.is_dir():
            yield from _moves(archive, entry, place)
            continue
        both_links = entry.is_symlink() and place.is_symlink()
        if os.path.lexists(place) and (is_folder or place.is_dir()) and not both_links:
            ours, theirs = ("folder", "file") if is_folder else ("file", "folder")
            raise RunError(
                f"{archive} holds a {ours} where {place} is a {theirs}. Nothing was unpacked. Move {place} out of "
                "the way, or choose another folder."
            )
        yield entry, place


@contextmanager
def _unpack_errors(archive: Path, folder: Path) -> Iterator[None]:
    try:
        yield
    except NotImplementedError as error:
        raise RunError(
            f"{archive} can't be unpacked here: {error}. Unpack it by hand into {folder}, or delete it and download it "
            "again if it should be a plain one."
        ) from error
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        EOFError,
        zlib.error,
        lzma.LZMAError,
        struct.error,
        ValueError,
    ) as error:
        raise _damaged(archive, error) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        # Decompressors raise it without a number, and EINVAL is a seek to before the file's beginning: both are damage.
        if error.errno in (None, errno.EINVAL):
            raise _damaged(archive, error) from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise full_disk(folder, None, free_bytes(folder)) from error
        raise RunError(
            f"{archive} could not be unpacked into {folder}: {error}. Check the paths and their permissions, or choose "
            "another folder."
        ) from error


def _damaged(archive: Path, error: Exception) -> RunError:
    return RunError(
        f"{archive} is damaged or incomplete ({in_words(error)}). Nothing was unpacked. "
        "Delete it and download it again."
    )

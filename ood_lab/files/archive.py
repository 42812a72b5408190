"""Unpacking archives: whole or not at all, never outside their folder."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from ood_lab.errors import RunError
from ood_lab.files.disk import bytes_text, disk_errors, free_bytes, full_disk, in_words

COMPRESSED: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
CHUNK_BYTES = 1 << 20
LITTER = ("__MACOSX", ".DS_Store")  # what macOS adds
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)


def extract(archive: Path, folder: Path, *, expected: str | None = None) -> None:
    """Unpack a zip, a tar (plain, gz, bz2, xz) or one compressed file (gz, bz2, xz) into a folder.

    All is unpacked into a temporary folder inside `folder` first and then moved, so that an archive that turns out
    damaged leaves nothing. What `folder` holds already stays, but for files of the same names, which are replaced.
    Members outside the folder, links out of it and devices are refused by `tarfile`'s data filter; `zipfile` keeps
    names inside by itself, and writes links as files.

    Args:
        expected: a path inside `folder` that must be there at the end.

    Raises:
        RunError: a member that is refused; a damaged or unknown archive; a full disk; a file in the place of a folder;
            or `expected` isn't in the archive.
    """
    with disk_errors(folder), _errors(archive):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{archive.name}.unpacking-", dir=folder) as name:
            temporary = Path(name)
            _unpack(archive, temporary)
            if expected is not None and not any((top / expected).exists() for top in (temporary, folder)):
                found = ", ".join(sorted(path.name for path in temporary.iterdir())[:10]) or "nothing"
                raise RunError(
                    f"{archive} did not hold {expected}; it holds {found}. Nothing was unpacked. "
                    "Delete it and download the right file."
                )
            for entry, place in list(_moves(archive, temporary, folder)):
                entry.replace(place)


def _unpack(archive: Path, folder: Path) -> None:
    if tarfile.is_tarfile(archive):  # asked first: a tar may end with a zip, and would pass as one
        with tarfile.open(archive, tarinfo=_StrictMember) as packed_tar:
            packed_tar.extractall(folder, filter=_data)
            # The compression's own checksum lies behind the tar's end mark, where tarfile doesn't read.
            while packed_tar.fileobj is not None and packed_tar.fileobj.read(CHUNK_BYTES):
                pass
    elif zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            _check_room(folder, sum(member.file_size for member in packed.infolist()))
            packed.extractall(folder, [m for m in packed.namelist() if not _is_litter(m)])
    elif archive.suffix.lower() in COMPRESSED:
        with COMPRESSED[archive.suffix.lower()](archive) as packed_file, (folder / archive.stem).open("wb") as file:
            shutil.copyfileobj(packed_file, file)
    else:
        raise RunError(
            f"{archive} is no zip, tar, gz, bz2 or xz, or a damaged one. A web page may have been saved in the file's "
            "place: delete it and download it again."
        )


class _StrictMember(tarfile.TarInfo):
    """A member whose header must be whole: behind the first member, tarfile takes a broken one for the end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the end mark, which belongs there
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


def _data(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
    """The standard library's filter for data, which refuses whatever could harm; litter is left out."""
    return None if _is_litter(member.name) else tarfile.data_filter(member, folder)


def _is_litter(name: str) -> bool:
    return any(part in LITTER for part in name.split("/"))


def _check_room(folder: Path, needed: int) -> None:
    free = free_bytes(folder)
    if free is not None and needed > free:
        raise full_disk(folder, needed, free)


def _moves(archive: Path, source: Path, folder: Path) -> Iterator[tuple[Path, Path]]:
    """What to rename, and to which name: a folder whole where there is none yet, else what is in it."""
    for entry in sorted(source.iterdir()):
        place = folder / entry.name
        is_folder = entry.is_dir() and not entry.is_symlink()
        if is_folder and place.is_dir():
            yield from _moves(archive, entry, place)
        elif os.path.lexists(place) and (is_folder or place.is_dir()) and not entry.is_symlink():
            kind, other = ("folder", "file") if is_folder else ("file", "folder")
            raise RunError(
                f"{archive} holds a {kind} where {place} is a {other}. Nothing was unpacked. Move {place} out of the "
                "way, or choose another folder."
            )
        else:
            yield entry, place


@contextmanager
def _errors(archive: Path) -> Iterator[None]:
    if not archive.is_file():
        raise RunError(f"{archive}: no such file")
    try:
        yield
    except tarfile.FilterError as error:
        raise RunError(
            f"{archive} holds an unsafe member: {error}. Nothing was unpacked. Delete the archive and get "
            "it from where it is published."
        ) from None
    except (*DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's; decompressors give no number
            raise
        raise RunError(
            f"{archive} is damaged or incomplete ({in_words(error)}). Nothing was unpacked. Delete it and download it "
            f"again ({bytes_text(archive.stat().st_size)} are there)."
        ) from None
    except (RuntimeError, NotImplementedError) as error:  # encrypted; a compression that zipfile does not know
        raise RunError(f"{archive} can't be unpacked here: {error}. Unpack it by hand.") from None

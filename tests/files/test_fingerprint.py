"""Fingerprints of files: what changes them, and what doesn't."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from ood_lab.errors import RunError
from ood_lab.files.fingerprint import contents, fingerprint

NAMES = ("a/1.png", "a/2.png", "b/1.png")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "here" / name for name in NAMES]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"picture " + path.name.encode())
    return paths


def test_it_is_the_same_as_long_as_nothing_is_touched(files: list[Path]) -> None:
    assert fingerprint(files) == fingerprint(list(files))
    assert fingerprint(files).files == 3


def test_another_folder_has_the_same_names_and_other_times(files: list[Path], tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    copies = [tmp_path / "there" / name for name in NAMES]
    assert fingerprint(copies).names == fingerprint(files).names
    assert fingerprint(copies).times != fingerprint(files).times, "copytree sets the old times of modification"
    assert contents(copies, "x", tmp_path / "c") == contents(files, "x", tmp_path / "d")


@pytest.mark.parametrize("change", ["added", "removed", "renamed", "larger"])
def test_names_and_sizes_show_most_changes(change: str, files: list[Path]) -> None:
    before = fingerprint(files)
    if change == "added":
        files.append(files[0].with_name("3.png"))
        files[-1].write_bytes(b"x")
    elif change == "removed":
        files.pop()
    elif change == "renamed":
        files[2] = files[2].rename(files[2].with_name("2.png"))
    else:
        files[1].write_bytes(b"a larger picture")
    assert fingerprint(files).names != before.names


def test_other_bytes_of_the_same_size_show_even_under_the_old_time(files: list[Path], tmp_path: Path) -> None:
    before, digest = fingerprint(files), contents(files, "x", tmp_path / "c")
    stat = files[1].stat()
    files[1].write_bytes(b"picture 3.png")
    os.utime(files[1], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert fingerprint(files).names == before.names
    assert fingerprint(files).times != before.times
    assert contents(files, "x", tmp_path / "c") != digest


def test_contents_are_read_once_for_all_runs(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = contents(files, "x", tmp_path / "cache")
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read again"))
    assert contents(files, "x", tmp_path / "cache") == digest


def test_a_cache_that_cannot_be_written_is_done_without(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert contents(files, "x", tmp_path / "file") == contents(files, "x", tmp_path / "cache")


def test_a_file_that_has_gone_is_named(files: list[Path]) -> None:
    files[1].unlink()
    with pytest.raises(RunError, match=r"a/2\.png: No such file or directory\. Put"):
        fingerprint(files)


def test_no_files_have_a_fingerprint_too() -> None:
    assert fingerprint([]).files == 0

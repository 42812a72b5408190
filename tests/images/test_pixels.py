"""Pixels are decoded once, kept under a name that says what they are of, and read in parts."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ood_lab.errors import RunError
from ood_lab.images import pixels as module
from ood_lab.images.pixels import Decoded, Reading, Streamed, cache_key
from ood_lab.images.transform import Transform
from ood_lab.reader import folder
from ood_lab.reader.base import Listing
from tests.cases import each


def listing(root: Path, count: int = 7, width: int = 40) -> Listing:
    for i in range(count):
        rng = np.random.default_rng(i)
        path = root / "images" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (36, width, 3), dtype=np.uint8)).save(path)
    return folder.read(root, {"folder": "images"})


def reading(root: Path, limit_gb: float = 1.0, workers: int = 0) -> Reading:
    return Reading(32, 32, root / "cache", limit_gb, workers)


def reference(source: Listing) -> torch.Tensor:
    transform = Transform("short_side", 32, 32)
    rows = [transform(source.image(i)).transpose(2, 0, 1) for i in range(len(source))]
    return torch.from_numpy(np.stack(rows))


def whole(opened: Decoded | Streamed, size: int = 3) -> torch.Tensor:
    return torch.cat(list(opened.chunks(size)))


@each("size", [1, 3, 7, 100])
def test_a_folder_is_decoded_in_order_through_the_transform(size: int, tmp_path: Path) -> None:
    source = listing(tmp_path)
    opened = reading(tmp_path).open(source, "set")
    assert len(opened) == 7
    assert torch.equal(whole(opened, size), reference(source))
    assert [len(part) for part in opened.chunks(size)] == [min(size, 7 - i) for i in range(0, 7, size)]


def test_the_second_time_nothing_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = listing(tmp_path)
    first = whole(reading(tmp_path).open(source, "set"))
    monkeypatch.setattr(Listing, "image", lambda *_: pytest.fail("decoded again"))
    again = reading(tmp_path).open(source, "set")
    assert isinstance(again, Decoded)
    assert isinstance(again.array, np.memmap)
    assert torch.equal(whole(again), first)


def test_a_key_changes_with_files_rows_and_transform_and_with_nothing_else(tmp_path: Path) -> None:
    source, transform = listing(tmp_path), Transform("short_side", 32, 32)
    plain = cache_key(source, transform)
    assert plain == cache_key(folder.read(tmp_path, {"folder": "images"}), transform)
    keys = {
        plain,
        cache_key(source, Transform("squash", 32, 32)),
        cache_key(source, Transform("short_side", 36, 32)),
        cache_key(source.take(np.arange(6)), transform),
        cache_key(source.take(np.arange(7)[::-1].copy()), transform),
    }
    assert source.paths is not None
    os.utime(source.paths[0], ns=(1, 1))
    keys.add(cache_key(source, transform))
    assert len(keys) == 6


def test_an_altered_file_is_decoded_again(tmp_path: Path) -> None:
    source = listing(tmp_path)
    before = whole(reading(tmp_path).open(source, "set"))
    assert source.paths is not None
    Image.new("RGB", (36, 36), (1, 2, 3)).save(source.paths[0])
    after = whole(reading(tmp_path).open(folder.read(tmp_path, {"folder": "images"}), "set"))
    assert not torch.equal(after[0], before[0])
    assert torch.equal(after[1:], before[1:])


@each("code", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_cache_that_cannot_be_written_is_said_and_done_without(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = listing(tmp_path)

    def refuse(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(module.DecodedSet, "make", refuse)
    assert torch.equal(whole(reading(tmp_path).open(source, "set")), reference(source))
    told = capsys.readouterr().err
    assert os.strerror(code) in told
    assert "paths.cache" in told


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = listing(tmp_path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert torch.equal(whole(reading(tmp_path).open(source, "set")), reference(source))
    assert list((tmp_path / "cache").glob("*.npy")) == []


def test_a_damaged_image_is_named_and_leaves_no_cache(tmp_path: Path) -> None:
    source = listing(tmp_path)
    assert source.paths is not None
    source.paths[3].write_bytes(b"no image")
    with pytest.raises(RunError, match=source.paths[3].name):
        reading(tmp_path).open(source, "set")
    assert list((tmp_path / "cache").glob("*.npy")) == []


@each("workers", [0, 2])
def test_a_set_beyond_the_limit_is_streamed_and_is_the_same(workers: int, tmp_path: Path) -> None:
    source = listing(tmp_path)
    opened = reading(tmp_path, limit_gb=1e-9, workers=workers).open(source, "set")
    assert isinstance(opened, Streamed)
    assert torch.equal(whole(opened), reference(source))
    assert not (tmp_path / "cache").exists()


def test_arrays_of_the_right_size_are_taken_as_they_are(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    opened = reading(tmp_path).open(Listing(np.zeros(5, np.int64), None, "a", pixels=array), "set")
    assert isinstance(opened, Decoded)
    assert opened.array is array
    assert np.array_equal(whole(opened).numpy(), array.transpose(0, 3, 1, 2))


def test_generated_images_are_resized_and_not_kept(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 48, 48, 3), dtype=np.uint8)
    source = Listing(np.zeros(5, np.int64), None, "a", pixels=array)
    assert torch.equal(whole(reading(tmp_path).open(source, "set")), reference(source))
    assert not (tmp_path / "cache").exists()


def test_what_is_read_is_a_copy(tmp_path: Path) -> None:
    array = np.zeros((2, 32, 32, 3), np.uint8)
    opened = reading(tmp_path).open(Listing(np.zeros(2, np.int64), None, "a", pixels=array), "set")
    assert isinstance(opened, Decoded)
    opened.rows(slice(None)).fill_(9)
    assert array.max() == 0


@each("workers", [0, 2])
def test_a_damaged_image_is_named_alike_by_workers_and_without_them(workers: int, tmp_path: Path) -> None:
    source = listing(tmp_path)
    assert source.paths is not None
    source.paths[4].write_bytes(b"no image")
    with pytest.raises(RunError) as caught:
        whole(reading(tmp_path, limit_gb=0, workers=workers).open(source, "set"))
    assert str(caught.value).startswith(f"{source.paths[4]}: not a readable image (")
    assert "Traceback" not in str(caught.value)


def test_a_damaged_cache_is_set_aside_and_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = listing(tmp_path)
    expected = whole(reading(tmp_path).open(source, "set"))
    (cache,) = (tmp_path / "cache").glob("*.npy")
    cache.write_bytes(cache.read_bytes()[:200])
    assert torch.equal(whole(reading(tmp_path).open(source, "set")), expected)
    assert f"kept as {cache.name}.damaged and made again" in capsys.readouterr().err

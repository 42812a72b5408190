"""Sets as shards: whole or not there, made once however many processes make them, and again where they are damaged."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from ood_lab.errors import RunError
from ood_lab.files import shards as module
from ood_lab.files.shards import ShardedSet
from ood_lab.reader.shards import MANIFEST, ShardedRows, load_manifest, mapped, read
from tests.cases import each

ITEMS, SIZE = 23, 5


def items(start: int, stop: int) -> Mapping[str, NDArray[Any]]:
    """Item i is a picture whose pixels are drawn from i alone, and the label i mod 3."""
    pictures = [np.random.default_rng(i).integers(0, 256, (4, 4, 3), np.uint8) for i in range(start, stop)]
    return {"images": np.stack(pictures), "labels": np.arange(start, stop) % 3}


def sharded(folder: Path, **changes: Any) -> ShardedSet:
    options = {"items": ITEMS, "shard_items": SIZE, "produce": items, "classes": ("a", "b", "c"), "set_key": "k"}
    return ShardedSet(folder, **(options | changes))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A complete set."""
    sharded(tmp_path / "set").ensure()
    return tmp_path / "set"


def test_every_item_is_there_once_and_in_order(folder: Path) -> None:
    listing = read(folder, {"shards": "."})
    whole = items(0, ITEMS)
    assert len(listing) == ITEMS == load_manifest(folder).items
    assert [shard.items for shard in load_manifest(folder).shards] == [5, 5, 5, 5, 3]
    assert listing.classes == ("a", "b", "c")
    assert np.array_equal(listing.labels, whole["labels"])
    for row in range(ITEMS):
        assert np.array_equal(np.asarray(listing.image(row)), whole["images"][row])
    assert not [path for path in folder.iterdir() if path.name.endswith(".tmp")]


def test_rows_are_read_from_the_disk_as_from_an_array(folder: Path) -> None:
    paths = [folder / shard.file for shard in load_manifest(folder).shards]
    found, whole = ShardedRows(paths, "images"), items(0, ITEMS)["images"]
    assert (len(found), found.shape, found.dtype) == (ITEMS, whole.shape, whole.dtype)
    draw = np.random.default_rng(0)
    asked: list[Any] = [slice(None), slice(3, 17, 4), slice(-4, None), slice(20, 1, -6), np.arange(ITEMS)[::-1]]
    asked += [[4, -1, 4], np.array([], np.int64), np.zeros(ITEMS, bool), *range(-ITEMS, ITEMS), np.int64(7)]
    asked += [draw.integers(-ITEMS, ITEMS, draw.integers(1, 40)) for _ in range(20)]
    asked += [draw.random(ITEMS) < share for share in (0.1, 0.5, 0.9)]
    for rows in asked:
        assert np.array_equal(found[rows], whole[rows]), rows
    for rows in (ITEMS, -ITEMS - 1, [0, ITEMS], np.array([-ITEMS - 1, 3])):
        with pytest.raises(IndexError):
            whole[rows]
        with pytest.raises(IndexError):
            found[rows]


def test_without_labels_images_have_none(tmp_path: Path) -> None:
    sharded(tmp_path, classes=None).ensure()
    listing = read(tmp_path, {"shards": "."})
    assert listing.classes is None
    assert (listing.labels == -1).all()


def test_a_shard_that_failed_leaves_the_others_and_the_rest_is_made_later(tmp_path: Path, folder: Path) -> None:
    asked: list[int] = []

    def fails(start: int, stop: int) -> Mapping[str, NDArray[Any]]:
        asked.append(start)
        if len(asked) == 3:
            raise RunError("the generator broke")
        return items(start, stop)

    with pytest.raises(RunError, match="the generator broke"):
        sharded(tmp_path / "other", produce=fails).ensure()
    assert not (tmp_path / "other" / MANIFEST).exists()
    sharded(tmp_path / "other", produce=fails).ensure()
    assert asked == [0, 5, 10, 10, 15, 20], "no shard is made twice"
    assert files(tmp_path / "other") == files(folder)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edit(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")


@pytest.mark.parametrize("damage", [cut, edit, Path.unlink])
def test_a_damaged_shard_is_set_aside_and_made_again(folder: Path, damage: Any, capsys: Any) -> None:
    before = files(folder)
    name = load_manifest(folder).shards[2].file
    damage(folder / name)
    damaged = (folder / name).read_bytes() if (folder / name).exists() else None
    assert sharded(folder).is_complete() == (damage is edit), "the size alone tells that it was cut or is missing"
    sharded(folder).verify()
    after = files(folder)
    assert {key: after[key] for key in before} == before
    if damaged is not None:
        assert after[f"{name}.damaged"] == damaged
        assert "kept as" in capsys.readouterr().err


def test_what_is_set_aside_or_written_is_so_under_its_lock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched: list[str] = []

    def locked(path: Path, lock: str, call: Any, *args: Any) -> None:
        with pytest.raises(Timeout):
            FileLock(folder / ".locks" / f"{lock}.lock").acquire(timeout=0)
        watched.append(path.name)
        call(path, *args)

    def lock(path: Path) -> str:
        return "manifest" if path.name == MANIFEST else path.name[:5]

    for name in ("set_aside", "write_atomically"):
        call = getattr(module, name)
        monkeypatch.setattr(module, name, lambda path, what, call=call: locked(path, lock(path), call, what))
    name = load_manifest(folder).shards[2].file
    edit(folder / name)
    (folder / MANIFEST).unlink()
    sharded(folder).verify()
    assert watched == [name, name, MANIFEST]


def test_a_manifest_is_written_where_it_says_something_new(folder: Path) -> None:
    manifest = folder / MANIFEST
    os.utime(manifest, (0, 0))
    edit(folder / load_manifest(folder).shards[2].file)
    sharded(folder).verify()
    sharded(folder).make()
    assert manifest.stat().st_mtime == 0, "by which the set is known not to have changed"
    sharded(folder, about={"made": "otherwise"}).make()
    assert manifest.stat().st_mtime > 0
    assert load_manifest(folder).about == {"made": "otherwise"}


def test_what_reads_a_cut_shard_is_told(folder: Path) -> None:
    name = load_manifest(folder).shards[0].file
    cut(folder / name)
    with pytest.raises(RunError, match=f"{name}: missing, or not the shard that {MANIFEST} names"):
        read(folder, {"shards": "."})
    with pytest.raises(RunError, match=r"no whole shard with 'images' .* bytes of numbers stated"):
        mapped(folder / name, "images")
    with pytest.raises(RunError, match=r"no whole shard with 'features' "):
        mapped(folder / load_manifest(folder).shards[1].file, "features")


def test_a_manifest_of_another_set_is_refused_and_nothing_is_touched(folder: Path) -> None:
    before = files(folder)
    for changes in ({"set_key": "other"}, {"items": 20}):
        with pytest.raises(RunError, match=r"is of another set .* Move .* away"):
            sharded(folder, **changes).ensure()
    assert files(folder) == before


def test_a_manifest_that_cannot_be_read_is_written_again(folder: Path, capsys: Any) -> None:
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text[:50])
    with pytest.raises(RunError, match="can't be read"):
        load_manifest(folder)
    sharded(folder).ensure()
    assert (folder / MANIFEST).read_text() == text
    assert f"kept as {MANIFEST}.damaged" in capsys.readouterr().err


@each("number", ["5", 5.0, -1, None, [5]])
def test_a_manifest_whose_numbers_are_none_is_refused(number: Any, tmp_path: Path) -> None:
    sharded(tmp_path).ensure()
    text = (tmp_path / MANIFEST).read_text()
    for key in ("items", "bytes"):
        node = json.loads(text)
        node["shards"][1][key] = number
        (tmp_path / MANIFEST).write_text(json.dumps(node))
        with pytest.raises(RunError, match=rf"{MANIFEST} can't be read .*Move it away"):
            load_manifest(tmp_path)


def test_a_manifest_that_names_a_shard_of_other_bytes_is_not_believed(folder: Path) -> None:
    node = json.loads((folder / MANIFEST).read_text())
    node["shards"][1]["bytes"] += 1
    (folder / MANIFEST).write_text(json.dumps(node))
    assert not sharded(folder).is_complete()
    sharded(folder).ensure()
    assert sharded(folder).is_complete()


def test_a_full_disk_is_said_and_what_is_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []
    write = module.write_atomically

    def full(path: Path, data: bytes) -> None:
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        write(path, data)

    monkeypatch.setattr(module, "write_atomically", full)
    with pytest.raises(RunError, match="does not fit on its disk"):
        sharded(tmp_path).ensure()
    assert all(path.is_file() for path in written)
    monkeypatch.setattr(module, "write_atomically", write)
    sharded(tmp_path).ensure()
    assert len(read(tmp_path, {"shards": "."})) == ITEMS


def test_a_set_that_cannot_fit_is_refused_before_its_first_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "free_bytes", lambda _: 1000)
    with pytest.raises(
        RunError, match=r"5 of 5 shards are still to be made and take about .*, and 1,000 bytes are free"
    ):
        sharded(tmp_path).ensure()
    assert not list(tmp_path.glob("*.safetensors"))


def test_only_shards_that_are_missing_have_to_fit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [folder / shard.file for shard in load_manifest(folder).shards]
    size, before = max(path.stat().st_size for path in paths), files(folder)
    monkeypatch.setattr(module, "free_bytes", lambda _: int(1.5 * size))
    paths[0].unlink()
    sharded(folder).ensure()
    assert files(folder) == before
    for path in paths[2:4]:
        path.unlink()
    with pytest.raises(RunError, match="2 of 5 shards are still to be made"):
        sharded(folder).ensure()
    assert not any(path.exists() for path in paths[2:4])


def test_a_producer_that_gives_another_number_of_items_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="gave 4 images where 5 were asked for"):
        sharded(tmp_path, produce=lambda start, stop: {"images": items(start, stop - 1)["images"]}).ensure()


def slowly(folder: Path, log: Path) -> None:
    def produce(start: int, stop: int) -> Mapping[str, NDArray[Any]]:
        with log.open("a") as file:
            file.write(f"{start}\n")
        time.sleep(0.1)
        return items(start, stop)

    sharded(folder, produce=produce).ensure()


def test_processes_share_the_shards_of_one_set(tmp_path: Path, folder: Path) -> None:
    context = multiprocessing.get_context("fork")
    log = tmp_path / "log"
    processes = [context.Process(target=slowly, args=(tmp_path / "shared", log)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert sorted(map(int, log.read_text().split())) == [0, 5, 10, 15, 20], "each was made once"
    assert files(tmp_path / "shared") == files(folder)


class Hand:
    """The hand of a clock that a test moves; it stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_what_a_shard_took_is_told_once_for_each_that_is_made_here(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand, told = Hand(), list[tuple[int, float]]()
    monkeypatch.setattr(module, "time", hand)

    def produce(start: int, stop: int) -> Mapping[str, NDArray[Any]]:
        hand.now += 1 + start
        return items(start, stop)

    def timed(place: Path, **changes: Any) -> ShardedSet:
        return sharded(place, produce=produce, spent=lambda *given: told.append(given), **changes)

    timed(tmp_path / "other").ensure()
    assert told == [(0, 1), (1, 6), (2, 11), (3, 16), (4, 21)], "each alone, without those before it"
    assert files(tmp_path / "other") == files(folder), "what is told changes nothing of the set"
    told.clear()
    timed(folder).ensure()
    timed(folder).make()
    timed(folder).verify()
    assert told == [], "they were found there"
    names = [shard.file for shard in load_manifest(folder).shards]
    (folder / names[3]).unlink()
    edit(folder / names[1])
    timed(folder).verify()
    assert told == [(1, 6), (3, 16)]


def test_a_shard_that_another_process_has_made_meanwhile_is_not_told(tmp_path: Path) -> None:
    here, there = list[int](), list[int]()
    beside = sharded(tmp_path, spent=lambda number, _: there.append(number))

    def produce(start: int, stop: int) -> Mapping[str, NDArray[Any]]:
        if start == 0:  # while this process makes the first, another makes the others
            for number in range(1, beside.shards):
                beside._make_shard(number)
        return items(start, stop)

    sharded(tmp_path, produce=produce, spent=lambda number, _: here.append(number)).ensure()
    assert (here, there) == ([0], [1, 2, 3, 4])


def test_a_shard_that_failed_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []

    def fails(start: int, stop: int) -> Mapping[str, NDArray[Any]]:
        if start == 2 * SIZE:
            raise RunError("the generator broke")
        return items(start, stop)

    with pytest.raises(RunError, match="the generator broke"):
        sharded(tmp_path, produce=fails, spent=lambda number, _: told.append(number)).ensure()
    assert told == [0, 1]
    monkeypatch.setattr(module, "free_bytes", lambda _: 10)
    with pytest.raises(RunError, match="are still to be made"):
        sharded(tmp_path, spent=lambda number, _: told.append(number)).ensure()
    assert told == [0, 1], "what was not written was not made"

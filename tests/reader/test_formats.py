"""Lists, batches, idx, Matlab and NumPy files: what is wrong with one is said, and nothing in them is executed."""

from __future__ import annotations

import gzip
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ood_lab.errors import RequestError, RunError
from ood_lab.reader import cifar_batches, idx, image_list, mat, npy, npz
from ood_lab.reader.base import Listing
from ood_lab.reader.joined import joined
from ood_lab.reader.layout import count, find_layout, missing_files, reader_of, source_of
from ood_lab.reader.selection import drawn_classes
from tests.cases import each
from tests.trees import pixels, plant

LIST = {"list": "lists/a.txt", "images": "pictures"}
BATCHES = {"batches": ["c/one", "c/two"], "classes": "c/meta"}
IDX = {"idx": [["m/i", "m/l"]]}
MAT, NPY, NPZ = {"mat": "s.mat"}, {"npy": "r.npy"}, {"npz": "b.npz", "key": "x"}
READERS: dict[str, Any] = {"list": image_list, "batches": cifar_batches, "idx": idx, "mat": mat, "npy": npy, "npz": npz}


def node(root: Path, source: dict[str, Any]) -> dict[str, Any]:
    return {"name": "x", "root": str(root), "layouts": {"only": {"test": source}}}


def planted(root: Path, source: dict[str, Any]) -> Any:
    plant(node(root, source), "only", ["a", "b", "c"])
    return READERS[next(iter(source))]


@each("source", [LIST, BATCHES, IDX, MAT, NPY, NPZ])
def test_what_is_missing_is_told_and_the_layout_found_when_it_is_whole(source: dict, tmp_path: Path) -> None:
    described = node(tmp_path, source)
    assert find_layout(described, "ood") is None
    assert missing_files(described, "only", "ood")
    plant(described, "only", ["a", "b", "c"])
    assert find_layout(described, "ood") == "only"
    assert missing_files(described, "only", "ood") == []


@each("source", [LIST, BATCHES, IDX, NPY, NPZ])
def test_the_count_is_known_without_reading_pixels(source: dict, tmp_path: Path) -> None:
    planted(tmp_path, source)
    described = {**node(tmp_path, source), "include": None, "exclude": {}, "draw": None, "benchmark": ""}
    assert count(described, "only", "ood") == 6


@each("source", [BATCHES, IDX, MAT, NPY, NPZ])
@each("share", [0.0, 0.05, 0.5, 0.95])
def test_a_truncated_file_is_named(source: dict, share: float, tmp_path: Path) -> None:
    reader = planted(tmp_path, source)
    first = next(iter(source.values()))
    file = tmp_path / (first if isinstance(first, str) else first[0] if isinstance(first[0], str) else first[0][0])
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(RunError, match=file.name):
        reader.read(tmp_path, source)


def test_a_line_without_a_label_is_named(tmp_path: Path) -> None:
    planted(tmp_path, LIST)
    file = tmp_path / "lists/a.txt"
    file.write_text(file.read_text() + "nolabel.png\n")
    with pytest.raises(RunError, match=r"a\.txt, line 7: expected 'path label'"):
        image_list.read(tmp_path, LIST)


def test_a_listed_file_that_is_not_there_is_named_with_its_line(tmp_path: Path) -> None:
    planted(tmp_path, LIST)
    listing = image_list.read(tmp_path, LIST)
    assert listing.paths is not None
    listing.paths[2].unlink()
    listing.paths[4].unlink()
    with pytest.raises(RunError, match=rf"line 3: .*{listing.paths[2].name} is not there and 1 more of 6"):
        image_list.read(tmp_path, LIST)


def test_an_empty_list_is_refused(tmp_path: Path) -> None:
    planted(tmp_path, LIST)
    (tmp_path / "lists/a.txt").write_text("\n")
    with pytest.raises(RunError, match="an empty list"):
        image_list.read(tmp_path, LIST)


def test_a_batch_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path}/ran",)

    planted(tmp_path, BATCHES)
    (tmp_path / "c/one").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(RunError, match=r"c/one.*system"):
        cifar_batches.read(tmp_path, BATCHES)
    assert not (tmp_path / "ran").exists()


def test_something_else_than_a_batch_is_named(tmp_path: Path) -> None:
    planted(tmp_path, BATCHES)
    (tmp_path / "c/one").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(RunError, match="holds a list"):
        cifar_batches.read(tmp_path, BATCHES)
    (tmp_path / "c/one").write_bytes(pickle.dumps({"images": 1}))
    with pytest.raises(RunError, match="not a CIFAR batch"):
        cifar_batches.read(tmp_path, BATCHES)


def test_gzipped_idx_files_are_read_as_they_are(tmp_path: Path) -> None:
    planted(tmp_path, IDX)
    plain = idx.read(tmp_path, IDX)
    for name in ("m/i", "m/l"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
        (tmp_path / name).unlink()
    again = idx.read(tmp_path, IDX)
    assert np.array_equal(again.pixels, plain.pixels)
    assert np.array_equal(again.labels, plain.labels)
    assert idx.count(tmp_path, IDX) == 6


def test_labels_that_do_not_fit_their_images_are_named(tmp_path: Path) -> None:
    planted(tmp_path, IDX)
    labels = (tmp_path / "m/l").read_bytes()
    (tmp_path / "m/l").write_bytes(labels[:4] + (5).to_bytes(4, "big") + labels[8:-1])
    with pytest.raises(RunError, match="5 labels for the 6 images"):
        idx.read(tmp_path, IDX)


@each("array", [np.zeros((4, 32, 32), np.uint8), np.zeros((4, 32, 32, 3), np.float32)])
def test_an_array_of_another_kind_is_refused(array: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "r.npy", array)
    with pytest.raises(RunError, match=r"r\.npy: expected uint8 images"):
        npy.read(tmp_path, NPY)


def test_an_array_of_objects_is_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "r.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(RunError, match=r"r\.npy"):
        npy.read(tmp_path, NPY)


def test_an_array_is_mapped_not_read(tmp_path: Path) -> None:
    planted(tmp_path, NPY)
    assert isinstance(npy.read(tmp_path, NPY).pixels, np.memmap)


def test_an_archives_images_have_their_channels_last_and_no_labels(tmp_path: Path) -> None:
    written, _ = plant(node(tmp_path, NPZ), "only", ["a", "b", "c"])["test"]
    with np.load(tmp_path / "b.npz") as archive:
        assert {name: archive[name].shape for name in archive.files} == {"x": (6, 3, 32, 32), "y": (6,)}
    found = npz.read(tmp_path, NPZ)
    assert found.pixels is not None
    assert (found.pixels.dtype, found.pixels.flags.c_contiguous) == (np.uint8, True)
    assert np.array_equal(found.pixels, np.stack(written))
    assert np.array_equal(np.asarray(found.image(4)), written[4])
    assert (found.labels.tolist(), found.classes, found.files) == ([-1] * 6, None, (tmp_path / "b.npz",))


@each("save", [np.savez, np.savez_compressed])
@each("shape", [(5, 32, 32, 3), (5, 20, 30, 3), (5, 3, 30, 3), (1, 8, 8, 3)])
def test_an_archive_reads_the_same_with_channels_first_and_last(
    save: Any, shape: tuple[int, ...], tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    save(tmp_path / "last.npz", x=images)
    save(tmp_path / "first.npz", x=images.transpose(0, 3, 1, 2))
    for name in ("last", "first") if shape[2] != 3 else ("last",):
        source = {"npz": f"{name}.npz", "key": "x"}
        assert np.array_equal(npz.read(tmp_path, source).pixels, images)
        assert npz.count(tmp_path, source) == len(images)


def test_damage_among_the_pixels_does_not_hide_their_number(tmp_path: Path) -> None:
    planted(tmp_path, NPZ)
    file = tmp_path / "b.npz"
    data = bytearray(file.read_bytes())
    data[15000] ^= 1
    file.write_bytes(data)
    assert npz.count(tmp_path, NPZ) == 6
    with pytest.raises(RunError, match=r"b\.npz: truncated"):
        npz.read(tmp_path, NPZ)


def test_an_archive_without_the_array_names_those_it_has(tmp_path: Path) -> None:
    planted(tmp_path, NPZ)
    with pytest.raises(RunError, match=r"b\.npz: has no array 'images', only x, y"):
        npz.read(tmp_path, {"npz": "b.npz", "key": "images"})
    with pytest.raises(RunError, match=r"b\.npz: .*images"):
        npz.count(tmp_path, {"npz": "b.npz", "key": "images"})


KINDS = {(4, 32, 32, 3): np.float32, (4, 3, 32, 32): np.int64, (4, 32, 32): np.uint8, (4, 1, 8, 8): np.uint8}


@each("array", [np.zeros(shape, kind) for shape, kind in KINDS.items()])
def test_an_array_of_another_kind_in_an_archive_is_refused(array: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "b.npz", x=array)
    with pytest.raises(RunError, match=r"b\.npz: expected uint8 images"):
        npz.read(tmp_path, NPZ)


def test_objects_in_an_archive_are_not_unpickled(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path}/ran",)

    np.savez(tmp_path / "b.npz", x=np.array([Evil()], dtype=object))
    with pytest.raises(RunError, match=r"b\.npz"):
        npz.read(tmp_path, NPZ)
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(RunError, match=r"b\.npz"):
        npz.read(tmp_path, NPZ)
    assert not (tmp_path / "ran").exists()


def test_svhns_ten_is_the_digit_zero(tmp_path: Path) -> None:
    planted(tmp_path, MAT)
    assert mat.read(tmp_path, MAT).labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_an_unknown_kind_of_source_and_split_are_named() -> None:
    with pytest.raises(RequestError, match="begins with one of folder, list"):
        reader_of({"tfrecord": "x"}, "mine")
    with pytest.raises(RequestError, match="no 'train' split"):
        source_of({"test": {}}, "train")


def test_a_draw_of_classes_is_fixed_by_its_seed_and_not_by_the_order_of_names() -> None:
    names = [f"n{i:08d}" for i in range(1000)]
    ten = drawn_classes(names, 10, 0)
    assert ten == drawn_classes(names[::-1], 10, 0) == sorted(ten)
    assert len(set(ten)) == 10
    assert ten != drawn_classes(names, 10, 1)
    assert sorted([*ten, *drawn_classes(names, 10, 0, rest=True)]) == names


def test_joined_listings_are_one_after_the_other() -> None:
    first = Listing(np.arange(3), None, "a", pixels=pixels(3, 8, seed=1))
    second = Listing(np.arange(2), None, "b", pixels=pixels(2, 9, seed=2))
    both = joined([first, second])
    assert both.labels.tolist() == [-1] * 5
    assert [both.image(i).size for i in range(5)] == [(8, 8)] * 3 + [(9, 9)] * 2
    taken = both.take(np.array([4, 0]))
    assert taken.image(0).tobytes() == second.image(1).tobytes()
    assert taken.image(1).tobytes() == first.image(0).tobytes()

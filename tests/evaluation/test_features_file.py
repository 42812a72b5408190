"""Files of features: the names say what is what, and a wrong file is refused with one message."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ood_lab.errors import RequestError
from ood_lab.evaluation.features_file import check_features_file, read_features_file
from tests.cases import each

ARRAYS = {
    "train/features": np.ones((4, 2), np.float32),
    "train/labels": np.array([0, 1, 0, 1]),
    "test/features": np.ones((3, 2), np.float32),
    "near/cifar100/features": np.ones((2, 2), np.float32),
    "far/svhn/features": np.ones((2, 2), np.float32),
    "my/folder/features": np.ones((2, 2), np.float32),
    "head/weight": np.ones((2, 2), np.float32),
}


def written(folder: Path, arrays: dict[str, Any], end: str = "npz") -> Path:
    path = folder / f"features.{end}"
    if end == "npz":
        np.savez(path, **arrays)
    else:
        save_file({name: torch.tensor(value) for name, value in arrays.items()}, path)
    return path


@each("end", ["npz", "safetensors"])
def test_names_say_what_is_what(tmp_path: Path, end: str) -> None:
    found = read_features_file(written(tmp_path, ARRAYS, end))
    assert list(found.ood) == ["cifar100", "svhn", "my/folder"] or set(found.ood) == {"cifar100", "svhn", "my/folder"}
    assert found.near == ["cifar100"]
    assert set(found.sets["train"]) == {"features", "labels"}
    assert set(found.head) == {"weight"}


def without(*names: str, **more: Any) -> dict[str, Any]:
    return {**{name: value for name, value in ARRAYS.items() if name not in names}, **more}


@each(
    ("arrays", "words"),
    [
        (without("train/features", "train/labels"), "no train/features; expected"),
        (without("test/features"), "no test/features"),
        (without("near/cifar100/features", "far/svhn/features", "my/folder/features"), "no OOD set"),
        ({**ARRAYS, "train/feature": np.ones(2)}, "holds 'train/feature'; expected"),
        ({**ARRAYS, "features": np.ones(2)}, "holds 'features'"),
        ({**ARRAYS, "far/cifar100/features": np.ones((2, 2))}, "cifar100/features is there twice"),
        ({**ARRAYS, "far/x/features": np.array([object()])}, "can't be read as npz"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    path = written(tmp_path, arrays)
    for read in (read_features_file, check_features_file):
        with pytest.raises(RequestError) as error:
            read(path)
        assert words in str(error.value)


@each("end", ["npz", "safetensors"])
def test_a_damaged_file_is_refused(tmp_path: Path, end: str) -> None:
    path = written(tmp_path, ARRAYS, end)
    path.write_bytes(path.read_bytes()[:100])
    for read in (read_features_file, check_features_file):
        with pytest.raises(RequestError, match=f"can't be read as {end}"):
            read(path)


@each("end", ["npz", "safetensors"])
def test_shapes_are_checked_from_the_headers(tmp_path: Path, end: str) -> None:
    check_features_file(written(tmp_path, ARRAYS, end))
    wide = {**ARRAYS, "far/svhn/features": np.ones((2, 5), np.float32)}
    with pytest.raises(RequestError, match="svhn: features of width 5, and those of train have 2"):
        check_features_file(written(tmp_path, wide, end))
    with pytest.raises(RequestError, match="head: expected weight and bias, found bias"):
        check_features_file(written(tmp_path, without("head/weight", **{"head/bias": np.ones(2)}), end))


def test_a_file_that_no_library_can_read_has_one_message(tmp_path: Path) -> None:
    path = tmp_path / "features.npz"
    np.savez_compressed(path, **ARRAYS)
    content = bytearray(path.read_bytes())
    content[60:70] = b"\xff" * 10
    path.write_bytes(content)
    with pytest.raises(RequestError, match="can't be read as npz"):
        check_features_file(path)


def test_names_are_checked_before_what_they_hold(tmp_path: Path) -> None:
    path = written(tmp_path, ARRAYS)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(RequestError, match=r"holds 'readme\.txt'; expected"):
        check_features_file(path)

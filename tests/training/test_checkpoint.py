"""Checkpoints: named by what they hold, the damaged passed over, two kept."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
import torch

from ood_lab.training.checkpoint import NamedByDigest, by_age, newest
from tests.cases import each


def save(folder: Path, step: int) -> Path:
    NamedByDigest().save_checkpoint({"step": step, "weights": torch.full((3,), step)}, folder / f"step{step:09d}.ckpt")
    return next(folder.glob(f"step{step:09d}-*.ckpt"))


def test_the_name_holds_the_digest_of_the_bytes(tmp_path: Path) -> None:
    path = save(tmp_path / "checkpoints", 7)
    assert re.fullmatch(r"step000000007-[0-9a-f]{16}\.ckpt", path.name)
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(path.stem.rpartition("-")[2])
    assert list(path.parent.iterdir()) == [path]


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    loaded = NamedByDigest().load_checkpoint(save(tmp_path, 7))
    assert loaded["step"] == 7
    assert torch.equal(loaded["weights"], torch.full((3,), 7))


def test_the_two_newest_are_kept(tmp_path: Path) -> None:
    paths = [save(tmp_path, step) for step in (5, 9, 10, 100)]
    assert list(by_age(tmp_path)) == [paths[3], paths[2]]
    assert sorted(tmp_path.iterdir()) == sorted(paths[2:])


def test_the_newest_has_the_most_steps(tmp_path: Path) -> None:
    save(tmp_path, 999)
    path = save(tmp_path, 1000)
    assert newest(tmp_path) == path


@each("damage", ["cut", "flip", "empty"])
def test_a_damaged_newest_is_passed_over(tmp_path: Path, damage: str) -> None:
    good, bad = save(tmp_path, 1), save(tmp_path, 2)
    data = bytearray(bad.read_bytes())
    data[len(data) // 2] ^= 1
    bad.write_bytes({"cut": data[:-1], "flip": data, "empty": b""}[damage])
    assert newest(tmp_path) == good


def test_a_renamed_checkpoint_is_passed_over(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    path.rename(path.with_name("step000000001-0123456789abcdef.ckpt"))
    assert newest(tmp_path) is None


def test_where_there_is_none_there_is_no_newest(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    assert newest(tmp_path / "nowhere") is None


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    final = tmp_path / "final.safetensors"
    final.write_bytes(b"weights")
    for step in (1, 2, 3):
        save(tmp_path, step)
    assert final.read_bytes() == b"weights"
    assert newest(tmp_path) == next(by_age(tmp_path))


def test_removing_what_is_gone_is_no_error(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    for _ in range(2):
        NamedByDigest().remove_checkpoint(path)
    assert not path.exists()


def test_a_write_that_fails_keeps_the_older_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = save(tmp_path, 1), save(tmp_path, 2)

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space"):
        save(tmp_path, 3)
    assert sorted(tmp_path.iterdir()) == [first, second]
    assert newest(tmp_path) == second

"""Artifacts: made once, whole or not there, and again where they are damaged."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from filelock import FileLock, Timeout

from ood_lab.files import artifact
from ood_lab.files.artifact import Artifact
from ood_lab.files.storage import atomic_file


@dataclass
class Numbers(Artifact):
    """A JSON file of so many numbers; `fails` after writing half of it."""

    folder: Path
    count: int
    fails: bool = False
    made: int = 0
    shared: ClassVar[bool] = True

    @property
    def key(self) -> str:
        return str(self.count)

    @property
    def path(self) -> Path:
        return self.folder / f"numbers-{self.key}.json"

    def make(self) -> None:
        self.made += 1
        with atomic_file(self.path) as temporary:
            temporary.write_text("[0, ")
            if self.fails:
                raise OSError("no space left")
            temporary.write_text(json.dumps(list(range(self.count))))


def load(path: Path) -> list[int]:
    return list(json.loads(path.read_text()))


def test_it_is_made_once_and_found_again_by_its_key(tmp_path: Path) -> None:
    numbers = Numbers(tmp_path, 3)
    assert numbers.read(load, (ValueError,)) == [0, 1, 2]
    assert Numbers(tmp_path, 3).read(load, (ValueError,)) == [0, 1, 2]
    assert (numbers.made, Numbers(tmp_path, 2).is_complete()) == (1, False)


def test_what_fails_while_it_is_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no space left"):
        Numbers(tmp_path, 3, fails=True).ensure()
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".numbers-3.json.lock")]


def test_a_damaged_one_is_set_aside_and_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = Numbers(tmp_path, 3)
    numbers.ensure().write_text("[0, 1")
    assert numbers.read(load, (ValueError,)) == [0, 1, 2]
    assert (tmp_path / "numbers-3.json.damaged").read_text() == "[0, 1"
    assert "kept as numbers-3.json.damaged and made again" in capsys.readouterr().err


def test_each_damaged_one_is_kept_under_a_name_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = Numbers(tmp_path, 3)
    for number in range(3):
        numbers.ensure().write_text(f"[{number}")
        assert numbers.read(load, (ValueError,)) == [0, 1, 2]
    kept = [tmp_path / f"numbers-3.json.damaged{end}" for end in ("", "-2", "-3")]
    assert [path.read_text() for path in kept] == ["[0", "[1", "[2"]
    assert "kept as numbers-3.json.damaged-3 and made again" in capsys.readouterr().err


def test_what_another_process_has_made_again_meanwhile_is_not_set_aside(tmp_path: Path) -> None:
    numbers = Numbers(tmp_path, 3)
    numbers.ensure().write_text("[0, 1")

    def slowly(path: Path) -> list[int]:
        try:
            return load(path)
        finally:
            path.write_text("[0, 1, 2]")  # the other's, right after it was read

    assert numbers.read(slowly, (ValueError,)) == [0, 1, 2]
    assert (numbers.made, list(tmp_path.glob("*.damaged*"))) == (1, [])


def test_it_is_set_aside_and_made_again_under_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[str] = []

    class Watched(Numbers):
        def make(self) -> None:
            watch("make")
            super().make()

    def watch(what: str) -> None:
        with pytest.raises(Timeout):
            FileLock(tmp_path / ".numbers-3.json.lock").acquire(timeout=0)
        held.append(what)

    set_aside = artifact.set_aside
    monkeypatch.setattr(artifact, "set_aside", lambda path, why: (watch("set aside"), set_aside(path, why)))
    numbers = Watched(tmp_path, 3)
    numbers.ensure().write_text("[0, 1")
    assert numbers.read(load, (ValueError,)) == [0, 1, 2]
    assert held == ["make", "set aside", "make"]


def test_an_error_while_it_is_made_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no space left"):
        Numbers(tmp_path, 3, fails=True).read(load, (OSError,))
    assert not list(tmp_path.glob("*.damaged*"))
    Numbers(tmp_path, 3).ensure().write_text("[0, 1")
    with pytest.raises(OSError, match="no space left"):
        Numbers(tmp_path, 3, fails=True).read(load, (ValueError, OSError))
    assert len(list(tmp_path.glob("*.damaged*"))) == 1


SECOND = """
import sys, time
from pathlib import Path
from tests.files.test_artifact import Numbers

class Slow(Numbers):
    def make(self):
        time.sleep(1)
        super().make()

numbers = Slow(Path(sys.argv[1]), 4)
print("started", flush=True)
numbers.ensure()
print(numbers.made)
"""


def test_two_processes_make_it_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SECOND, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    texts = [process.communicate(timeout=60)[0] for process in both]
    assert sorted(text.split()[-1] for text in texts) == ["0", "1"]
    assert sum("waiting for it" in text for text in texts) == 1

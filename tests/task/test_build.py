"""From parts to objects: what a part needs of other runs is given to it as paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from ood_lab.config import RequestError, prepare
from ood_lab.runs.run_folder import RunFolder
from ood_lab.task.build import build_part

MINE = """
from ood_lab.id_loss.ce import CE

class Mine(CE):
    def __init__(self, dims, *, needs: dict, width: int):
        self.given = (dims, needs, width)
"""
FILE = """# @package id_loss.mine
_target_: needing_term.Mine
width: 3
needs:
  teacher: [method=ce, trainer.max_epochs=1]
  pictures: [task=synthesize, producer=fractals]
"""


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration folder with the term."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("OOD_LAB_OUTPUT", str(tmp_path / "out"))
    (tmp_path / "needing_term.py").write_text(MINE)
    (tmp_path / "conf/id_loss").mkdir(parents=True)
    (tmp_path / "conf/id_loss/mine.yaml").write_text(FILE)
    return tmp_path / "conf"


def test_a_part_is_given_the_files_that_the_runs_it_needs_have_made(conf: Path) -> None:
    experiment = prepare(["method=ce", "id_loss=[mine]"], conf)
    below = experiment.prerequisites
    assert list(below) == ["id_loss.mine.teacher", "id_loss.mine.pictures"]
    part = experiment.id_loss["mine"]
    dims, needs, width = build_part(experiment, part, "dims").given
    assert (dims, width) == ("dims", 3)
    assert needs == {
        "teacher": RunFolder(below["id_loss.mine.teacher"].run_dir).weights,
        "pictures": below["id_loss.mine.pictures"].product,
    }
    assert all(isinstance(path, Path) for path in needs.values())
    assert part.options["needs"]["pictures"] == ["task=synthesize", "producer=fractals"], "the part stays"
    assert build_part(experiment, None) is None


def test_a_run_that_makes_nothing_can_not_be_needed(conf: Path) -> None:
    words = ["method=ce", "id_loss=[mine]", "id_loss.mine.needs.teacher=['method=ce','task=report']"]
    with pytest.raises(RequestError, match=r"id_loss.mine.teacher: task=report makes nothing to depend on; use one of"):
        prepare(words, conf)

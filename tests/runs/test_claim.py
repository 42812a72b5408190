"""A folder is taken by the run that it is for."""

from __future__ import annotations

import json
from pathlib import Path

from ood_lab.config import prepare
from ood_lab.runs.claim import claim
from ood_lab.runs.run_folder import RunFolder


def test_what_identifies_a_set_is_written_once(tmp_path: Path) -> None:
    """Several commands may make it together, each with options of its own machine."""
    words = ["task=synthesize", "producer=fractals", f"paths.output={tmp_path}"]
    first, second = prepare(words), prepare([*words, "trainer.threads=1"])
    folder = RunFolder(first.run_dir)
    assert claim(first) is first
    written = folder.identity.read_bytes(), folder.config.read_bytes()
    assert json.loads(written[0])["overrides"] == words
    assert claim(second).trainer.threads == 1
    assert (folder.identity.read_bytes(), folder.config.read_bytes()) == written


def test_what_identifies_a_run_that_has_not_begun_is_that_of_the_last_command(tmp_path: Path) -> None:
    words = ["method=ce", f"paths.output={tmp_path}"]
    for more in ([], ["trainer.threads=1"]):
        experiment = prepare([*words, *more])
        claim(experiment)
        assert json.loads(RunFolder(experiment.run_dir).identity.read_text())["overrides"] == [*words, *more]

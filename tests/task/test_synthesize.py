"""Making a set and training on it: killed at any moment, by several processes, in sweeps."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import ood_lab
from ood_lab.config import RunError, prepare
from ood_lab.config.quoting import as_typed
from ood_lab.reader.shards import load_manifest
from ood_lab.task import synthesize

FRACTALS = "[task=synthesize,producer=fractals,producer.count=100,producer.shard_items=50]"
DEPENDS = [
    "method=oe", "init=random", "backbone.width=4", "auxiliary=synthesized", f"auxiliary.needs.images={FRACTALS}",
    "trainer.max_epochs=1", "trainer.threads=1", "scorer=[msp]", "figure=[]", "protocol.far=[gaussian_noise]",
    "protocol.near=[]",
]  # fmt: skip


def start(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ood_lab", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def files(output: Path) -> dict[str, bytes]:
    """The shards and their manifest, but for the command that is written there."""
    (shards,) = output.glob("fractals-*/shards")
    found = {path.name: path.read_bytes() for path in shards.glob("*.safetensors")}
    return found | {"manifest": repr(load_manifest(shards).shards).encode()}


def test_killed_it_ends_with_the_same_set_and_makes_nothing_twice(tmp_path: Path) -> None:
    words = ["task=synthesize", "producer=fractals", "producer.count=600", "producer.shard_items=100"]
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    process = start(*words, f"paths.output={killed}")
    while len(list(killed.glob("fractals-*/shards/*.safetensors"))) < 2:
        assert process.poll() is None, "the set was made before it could be killed"
        time.sleep(0.02)
    time.sleep(0.3)  # within the third
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (shards,) = killed.glob("fractals-*/shards")
    assert not (shards / "manifest.json").exists(), "the set was made before it could be killed"
    kept = {path: path.stat().st_mtime_ns for path in shards.glob("*.safetensors")}
    for output in (killed, undisturbed):
        ood_lab.run([*words, f"paths.output={output}"])
    assert files(killed) == files(undisturbed)
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items()), "none is made twice"
    assert not list(shards.glob(".*.tmp"))


def test_a_shard_that_was_changed_is_made_again_before_anything_is_trained_on_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    below = prepare([*map(as_typed, DEPENDS), f"paths.output={tmp_path}"]).prerequisites["auxiliary.images"]
    ood_lab.run([*below.overrides])
    before = files(tmp_path)
    first, second = (below.product / shard.file for shard in load_manifest(below.product).shards[:2])
    first.write_bytes(first.read_bytes()[:5000])
    second.write_bytes(second.read_bytes()[:-2] + b"xy")
    ood_lab.run([*DEPENDS, f"paths.output={tmp_path}"])
    assert capfd.readouterr().err.count("its bytes are not those that its name says") == 2
    assert files(tmp_path) == before
    assert len(list(below.product.glob("*.damaged"))) == 2, "nothing is lost"


def test_two_runs_of_a_sweep_share_what_they_need(tmp_path: Path) -> None:
    results = ood_lab.run([*DEPENDS, "seed=0,1", f"paths.output={tmp_path}", "workers=1"], multirun=True)
    (log,) = tmp_path.glob("fractals-*/run.log")
    assert log.read_text().count("python -m ood_lab") == 1, "it is made once, before both"
    assert len({row["run_id"] for needed in results.needed for row in needed.rows}) == 2
    below = {tuple(json.loads((n.run_dir / "identity.json").read_text())["needs"]) for n in results.needed}
    assert below == {(log.parent.name,)}


def test_a_finished_run_is_shown_without_the_set_that_it_was_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*DEPENDS, f"paths.output={tmp_path}"]
    ood_lab.run([*prepare(list(map(as_typed, words))).prerequisites["auxiliary.images"].overrides])
    made = ood_lab.run(words)
    before = capsys.readouterr().out.rpartition("report:")[2]
    (below,) = tmp_path.glob("fractals-*")
    shutil.rmtree(below)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("the set is made again"))
    shown = ood_lab.run(words)
    assert shown.rows == made.rows
    assert capsys.readouterr().out.rpartition("report:")[2] == before != ""
    assert not below.exists()


def test_helpers_end_with_the_command_and_one_that_fails_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = prepare(["task=synthesize", "producer=fractals", "trainer.devices=3", f"paths.output={tmp_path}"])
    asked, popen = list[list[str]](), subprocess.Popen

    def started(*codes: str) -> list[subprocess.Popen[bytes]]:
        """What stands in for helpers, one a code."""
        helpers = [popen([sys.executable, "-c", code]) for code in codes]
        left = iter(helpers)
        monkeypatch.setattr(subprocess, "Popen", lambda command, **_: (asked.append(command), next(left))[1])
        return helpers

    helpers = started("raise SystemExit(3)", "")
    with synthesize._helped(experiment):
        pass
    assert [helper.returncode for helper in helpers] == [3, 0]
    assert capsys.readouterr().err == "note: a worker process ended with code 3; its work was done here\n"
    helpers = started("import time; time.sleep(60)", "import time; time.sleep(60)")
    with pytest.raises(RunError, match="the disk is full"), synthesize._helped(experiment):
        raise RunError("the disk is full")
    assert [helper.returncode for helper in helpers] == [-signal.SIGTERM] * 2
    assert len(asked) == 4, "one for each other device"
    assert {command[-1] for command in asked} == {"trainer.devices=1"}
    with synthesize._helped(None):
        pass


def test_a_set_that_cannot_be_made_is_named_with_its_own_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1))
    with pytest.raises(RunError, match=r"the prerequisite fractals-\S+ failed .* Repeat it alone: .*task=synthesize"):
        ood_lab.run([*DEPENDS, f"paths.output={tmp_path}"])

"""A sweep that is killed again and again ends with the tables of an undisturbed one."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.sweep.small_table import start, table_of


def trained(output: Path) -> int:
    """Files that come into being as runs go on."""
    return len(list(output.glob("*/checkpoints/*"))) + 3 * len(list(output.glob("*/DONE")))


@pytest.mark.engines
def test_a_sweep_killed_three_times_ends_with_the_same_tables(tmp_path: Path) -> None:
    beside = start(tmp_path, tmp_path / "undisturbed", "workers=2")
    killed = tmp_path / "killed"
    for _ in range(3):
        process, before = start(tmp_path, killed, "workers=2"), trained(killed)
        while process.poll() is None and trained(killed) <= before:
            time.sleep(0.05)
        assert process.poll() is None, "the sweep ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (killed / "tables").is_dir()
    assert start(tmp_path, killed, "workers=2").wait() == 0
    assert beside.wait() == 0
    assert table_of(killed) == table_of(tmp_path / "undisturbed")
    assert "-s0-" in table_of(killed)

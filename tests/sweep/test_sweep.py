"""A sweep on an engine that does what the test says: deaths, failures, order, and what is reported."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ood_lab.config import Experiment, RequestError, RunError, prepare
from ood_lab.files.storage import write_atomically
from ood_lab.sweep.sweep import sweep
from ood_lab.sweep.ticket import Ticket, carry_out
from ood_lab.sweep.workers import Workers
from tests.cases import each


class Scripted:
    """Gives each ticket the next of its run's outcomes: errors, or None for a process that died."""

    number = 1

    def __init__(self, outcomes: dict[str, list[list[str] | None]]) -> None:
        self.outcomes, self.launched = outcomes, []

    def launch(self, tickets: Sequence[Ticket]) -> None:
        self.launched.append([Path(ticket.run_dir).name for ticket in tickets])
        for ticket in tickets:
            name = Path(ticket.run_dir).name
            outcome = next((self.outcomes[key].pop(0) for key in self.outcomes if name.startswith(key)), [])
            if outcome is not None:
                write_atomically(Path(ticket.path).with_suffix(".outcome"), json.dumps(outcome).encode())


@pytest.fixture
def requests(tmp_path: Path) -> list[Experiment]:
    """CIDER and HamOS on one classifier."""
    overrides = [f"paths.output={tmp_path}", "scorer=[msp]"]
    return [prepare([*overrides, f"method={name}"]) for name in ("cider", "hamos")]


def test_waves_are_launched_one_after_the_other(requests: list[Experiment], tmp_path: Path) -> None:
    engine = Scripted({})
    assert sweep(requests, engine, tmp_path).runs == []
    below = requests[0].prerequisites["init"].run_id
    assert engine.launched == [[below], [requests[0].run_id, requests[1].run_id]]
    assert not list((tmp_path / ".sweep").iterdir())  # nothing is left of a sweep that went well


def test_what_died_is_repeated_once_and_alone(requests: list[Experiment], tmp_path: Path) -> None:
    engine = Scripted({"cider": [None, []]})
    assert sweep(requests, engine, tmp_path).runs == []
    assert engine.launched[1:] == [[r.run_id for r in requests], [requests[0].run_id]]


def test_what_died_twice_is_reported_and_the_rest_is_made(requests: list[Experiment], tmp_path: Path) -> None:
    engine = Scripted({"cider": [None, None, []]})
    (failure,) = sweep(requests, engine, tmp_path).runs
    assert (failure.run_id, failure.reason) == (requests[0].run_id, "its process died, twice")
    assert failure.log == requests[0].run_dir / "run.log"


def test_a_failure_is_not_repeated(requests: list[Experiment], tmp_path: Path) -> None:
    engine = Scripted({"hamos": [["loss is nan"], []]})
    (failure,) = sweep(requests, engine, tmp_path).runs
    assert (failure.run_id, failure.reason) == (requests[1].run_id, "loss is nan")
    assert len(engine.launched) == 2


def test_what_needed_a_failure_is_not_started(requests: list[Experiment], tmp_path: Path) -> None:
    engine = Scripted({"ce": [["no space left"]]})
    failures = {failure.run_id: failure.reason for failure in sweep(requests, engine, tmp_path).runs}
    below = requests[0].prerequisites["init"].run_id
    assert len(engine.launched) == 1
    assert failures[below] == "no space left"
    reason = f"it depends on {below}, which could not be made"
    assert failures[requests[0].run_id] == failures[requests[1].run_id] == reason


def test_an_engine_that_can_start_nothing_fails_what_it_was_given(requests: list[Experiment], tmp_path: Path) -> None:
    class Broken(Scripted):
        def launch(self, tickets: Sequence[Ticket]) -> None:
            if self.launched:
                raise RequestError("the queue is closed")
            super().launch(tickets)

    failures = sweep(requests, Broken({}), tmp_path)
    assert failures.to_do == 3
    assert {one.run_id: one.reason for one in failures.runs} == {r.run_id: "the queue is closed" for r in requests}
    with pytest.raises(RunError, match=r"2 of 3 runs failed; the same command reruns only those\n  cider-"):
        failures.complain()


def test_a_log_that_cannot_be_written_is_an_outcome(tmp_path: Path) -> None:
    ticket = ticket_for(tmp_path, "file", ("method=ce",))
    (tmp_path / "file").write_text("in the way")
    carry_out(ticket.path)
    assert ticket.errors is not None
    assert "FileExistsError" in ticket.errors[0]


@each(("visible", "given"), [("2,3", ["2", "3", "2"]), ("", ["0", "1", "0"])])
def test_workers_share_the_devices_that_are_the_users(
    visible: str, given: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, env, **__: seen.append(env["CUDA_VISIBLE_DEVICES"]))
    engine = Workers(3, gpus=2)
    for number in range(3):
        engine._start(number)
    assert seen == given


def ticket_for(folder: Path, name: str, command: tuple[str, ...]) -> Ticket:
    ticket = Ticket(str(folder / f"{name}.json"), str(folder / name), (command,), None)
    ticket.write()
    return ticket


def test_a_failing_command_is_an_outcome_and_a_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ticket = ticket_for(tmp_path, "wrong", ("method=none",))
    assert ticket.errors is None
    carry_out(ticket.path)
    assert ticket.errors is not None
    assert "method=none: no such method" in ticket.errors[0]
    log = (tmp_path / "wrong" / "run.log").read_text()
    assert "python -m ood_lab method=none" in log
    assert "no such method" in log
    assert capfd.readouterr().out == ""
    print("again on the terminal")
    assert capfd.readouterr().out == "again on the terminal\n"


@each("number", [1, 2])
def test_workers_carry_out_everything_and_replace_one_that_dies(number: int, tmp_path: Path) -> None:
    """The first ticket kills its worker: an interpolation of the command ends the process."""
    deadly = "paths.data=${suicide:}"
    tickets = [ticket_for(tmp_path, "dies", (deadly,))]
    tickets += [ticket_for(tmp_path, f"fails{i}", ("method=none",)) for i in range(3)]
    engine = Workers(number)
    site = tmp_path / "site"
    site.mkdir()
    # A resolver that kills: what a segmentation fault or the memory killer would do.
    (site / "sitecustomize.py").write_text(
        "import os, signal\nfrom omegaconf import OmegaConf\n"
        "OmegaConf.register_new_resolver('suicide', lambda: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(site))
        engine.launch(tickets)
    assert tickets[0].errors is None
    assert all(ticket.errors and "no such method" in ticket.errors[0] for ticket in tickets[1:])


def test_workers_end_with_the_sweep_that_was_killed(tmp_path: Path) -> None:
    """No process goes on behind the back of a sweep that got SIGKILL."""
    script = (
        "import sys, time, threading\nfrom ood_lab.sweep.workers import Workers\n"
        "engine = Workers(1)\nprocess = engine._start(0)\nprint(process.pid, flush=True)\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _until(lambda: not _alive(worker))


def _alive(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return state.is_file() and state.read_text().rpartition(")")[2].split()[0] != "Z"


def _until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


def test_a_job_that_is_another_run_by_now_is_refused(tmp_path: Path) -> None:
    """Its code, say, has changed since the sweep began: its results would lie where nobody looks for them."""
    ticket = Ticket(
        str(tmp_path / "0.json"), str(tmp_path / "out/ce-digits-narrow-s0-00000000"),
        (("method=ce", f"paths.output={tmp_path}/out"),), None,
    )  # fmt: skip
    ticket.write()
    (error,) = carry_out(ticket.path)
    assert error.startswith("ce-digits-narrow-s0-00000000 is another run by now, ce-digits-narrow-s0-de90e708:")

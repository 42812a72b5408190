"""What the work of a run took: pieces and their sum, the stages of a chain, the clock of training."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ood_lab.config import Experiment, prepare
from ood_lab.files.shards import ShardedSet
from ood_lab.reader.shards import MANIFEST
from ood_lab.runs import cost
from ood_lab.runs.cost import add_seconds, bytes_of, seconds_of, stages_of, timed
from ood_lab.runs.run_folder import RunFolder
from ood_lab.task import callbacks
from ood_lab.task.callbacks import Clock
from ood_lab.task.measures import stage_rows
from tests.cases import each

DIGITS = ["dataset=digits", "protocol=digits"]
BOOD = ["method=bood", "decoder=tiny", "generator=diffusion_small", *DIGITS]
FILE = "cost.jsonl"


class Hand:
    """The hand of a clock that a test moves; it stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


# Pieces of work.


def test_the_pieces_of_a_runs_work_are_summed(tmp_path: Path) -> None:
    run_dir = tmp_path / "made" / "where it is missing"
    for work, seconds in (("search", 1.25), ("shard 0", 2.5), ("shard 1", 0.25)):
        add_seconds(run_dir, work, seconds)
    assert seconds_of(run_dir) == 4.0
    rows = [json.loads(line) for line in (run_dir / FILE).read_text().splitlines()]
    assert [set(row) for row in rows] == [{"work", "seconds"}] * 3


@each("seconds", [(5.0, 0.5), (0.5, 5.0), (5.0, 5.0, 1.0)])
def test_of_a_piece_that_was_done_again_the_longest_counts(seconds: tuple[float, ...], tmp_path: Path) -> None:
    add_seconds(tmp_path, "shard 0", 1.0)
    for taken in seconds:
        add_seconds(tmp_path, "search", taken)
    assert seconds_of(tmp_path) == 6.0


def test_a_run_of_an_earlier_version_has_no_time(tmp_path: Path) -> None:
    assert seconds_of(tmp_path) is None
    assert seconds_of(tmp_path / "no such folder") is None
    (tmp_path / FILE).touch()
    assert seconds_of(tmp_path) is None


@each(
    "line",
    [
        b'{"work": "shard 1", "sec', b"", b"\0\0\0\0", b"null", b"3", b'"text"', b"[1, 2]", b"{}",
        b'{"work": "search"}', b'{"seconds": 100.0}', b'{"work": "search", "seconds": null}',
        b'{"work": "search", "seconds": "100"}', b'{"work": ["search"], "seconds": 100.0}',
    ],
)  # fmt: skip
def test_a_line_that_was_cut_or_garbled_counts_for_nothing(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_bytes(line + b"\n")
    assert seconds_of(tmp_path) is None
    add_seconds(tmp_path, "search", 2.0)
    path.write_bytes(path.read_bytes() + line + b"\n")
    add_seconds(tmp_path, "shard 0", 3.0)
    path.write_bytes(path.read_bytes() + line)
    assert seconds_of(tmp_path) == 5.0


def test_bytes_that_are_no_text_count_for_nothing(tmp_path: Path) -> None:
    add_seconds(tmp_path, "search", 2.0)
    with (tmp_path / FILE).open("ab") as file:
        file.write(b"\xff\xfe\x80\n")
    add_seconds(tmp_path, "shard 0", 3.0)
    assert seconds_of(tmp_path) == 5.0


def test_a_row_behind_one_that_was_cut_is_not_lost(tmp_path: Path) -> None:
    """As of a process that was killed while writing: its row has no end of line."""
    add_seconds(tmp_path, "search", 2.0)
    with (tmp_path / FILE).open("a") as file:
        file.write('{"work": "shard 0", "sec')
    add_seconds(tmp_path, "shard 0", 3.0)
    assert seconds_of(tmp_path) == 5.0


def test_two_processes_write_into_one_file_without_losing_a_row(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_write, args=(tmp_path, name)) for name in ("a", "b")]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    rows = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    assert len({row["work"] for row in rows}) == len(rows) == 400
    assert seconds_of(tmp_path) == 200.0


def _write(run_dir: Path, name: str) -> None:
    for number in range(200):
        add_seconds(run_dir, f"{name} {number}", 0.5)


def test_a_block_is_timed_where_it_comes_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hand = Hand()
    monkeypatch.setattr(cost, "time", hand)

    def breaks() -> None:
        with timed(tmp_path, "features"):
            hand.now += 7
            raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        breaks()
    assert not (tmp_path / FILE).exists()
    with timed(tmp_path, "features"):
        hand.now += 2.5
    assert seconds_of(tmp_path) == 2.5


# What was made.


def test_the_bytes_of_a_set_are_those_of_its_shards(tmp_path: Path) -> None:
    experiment = prepare(["task=synthesize", "producer=fractals", f"paths.output={tmp_path}"], look=False)
    assert bytes_of(experiment) is None
    produce = lambda start, stop: {"images": np.zeros((stop - start, 4, 4, 3), np.uint8)}  # noqa: E731
    ShardedSet(experiment.product, "key", 7, 3, produce).make()
    sizes = [path.stat().st_size for path in experiment.product.glob("*.safetensors")]
    assert len(sizes) == 3
    assert bytes_of(experiment) == sum(sizes)
    (experiment.product / MANIFEST).write_text("{")
    assert bytes_of(experiment) is None, "it is not known which shards are of the set"


def test_the_bytes_of_a_network_are_those_of_its_final_weights(tmp_path: Path) -> None:
    experiment = prepare(["method=ce", *DIGITS, f"paths.output={tmp_path}"], look=False)
    weights = RunFolder(experiment.run_dir).weights
    assert bytes_of(experiment) is None
    weights.parent.mkdir(parents=True)
    (weights.parent / "step000000009.ckpt").write_bytes(b"x" * 1000)
    assert bytes_of(experiment) is None, "a checkpoint is nothing that others read"
    weights.write_bytes(b"x" * 123)
    assert bytes_of(experiment) == 123


# The stages of a chain.


@each(
    ("overrides", "names"),
    [
        (BOOD, ["anchors", "encoder", "outliers", "generator", "images", "training"]),
        (["method=dreamood", *DIGITS], ["anchors", "encoder", "outliers", "images", "training"]),
        (["method=oe", "auxiliary=decoded", *BOOD[1:]],
         ["anchors", "encoder", "outliers", "generator", "images", "training"]),
    ],
)  # fmt: skip
def test_the_stages_are_the_runs_of_a_chain_in_order_and_each_once(overrides: list[str], names: list[str]) -> None:
    experiment = prepare(overrides, look=False)
    stages = stages_of(experiment)
    # What a classifier that is fine-tuned starts from is a stage of its own.
    assert [name for name in stages if name != "init"] == names
    assert stages["training"] is experiment
    assert list(stages)[-1] == "training"
    ids = [run.run_id for run in stages.values()]
    assert len(set(ids)) == len(ids)
    assert set(ids) == {run.run_id for run in experiment.with_prerequisites()}, "no run is left out"
    for place, run in enumerate(stages.values()):
        assert set(run.prerequisite_ids) <= set(ids[:place]), "each behind what it depends on"


def test_each_stage_is_named_by_what_it_makes() -> None:
    stages = stages_of(prepare(BOOD, look=False))
    made = {"anchors": "anchors", "encoder": "train", "outliers": "outliers", "generator": "train_generator",
            "images": "decode", "training": "train"}  # fmt: skip
    assert {name: run.task.name for name, run in stages.items()} == made
    assert stages["encoder"].choices["method"] == "anchored"


def test_of_two_runs_that_make_images_none_is_lost_and_the_decoder_is_the_stage_of_images() -> None:
    experiment = prepare([*BOOD, "mixing=escape", "pictures=synthesized"], look=False)
    stages = stages_of(experiment)
    assert {run.run_id for run in stages.values()} == {run.run_id for run in experiment.with_prerequisites()}
    assert stages["images"].task.name == "decode"


@each("overrides", [["method=hamos"], ["method=oe", "auxiliary=fractals"], ["method=ce"]])
def test_a_classifier_for_which_no_set_is_made_has_no_stages(overrides: list[str]) -> None:
    experiment = prepare([*overrides, *DIGITS], look=False)
    assert stages_of(experiment) == {}
    assert list(stage_rows(experiment, {})) == []


def test_time_and_bytes_of_the_stages_become_rows(tmp_path: Path) -> None:
    experiment = prepare([*BOOD, f"paths.output={tmp_path}"], look=False)
    stages = stages_of(experiment)
    assert list(stage_rows(experiment, {"seed": 0})) == [], "nothing is known of runs of an earlier version"
    for number, run in enumerate(stages.values()):
        add_seconds(run.run_dir, "first", 10.0 * number)
        add_seconds(run.run_dir, "second", 1.5)
    _weights(stages["encoder"], 500)
    rows = list(stage_rows(experiment, {"seed": 0}))
    assert [row["metric"] for row in rows if row["unit"] == "s"] == [f"stage_time/{name}" for name in stages]
    assert [row["value"] for row in rows if row["unit"] == "s"] == [10 * n + 1.5 for n in range(6)]
    (size,) = [row for row in rows if row["unit"] == "bytes"]
    assert (size["metric"], size["value"], type(size["value"])) == ("stage_bytes/encoder", 500, float)
    assert all(row["seed"] == 0 for row in rows)


def _weights(experiment: Experiment, size: int) -> None:
    path = RunFolder(experiment.run_dir).weights
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * size)


# The clock of training.


def trained(hand: Hand, state: dict[str, Any] | None, seconds: float) -> Clock:
    """The clock of one process: made, given the state of a checkpoint, started, and so many seconds later."""
    clock, nothing = Clock(), SimpleNamespace()
    hand.now += 31  # until training begins
    if state is not None:
        clock.load_state_dict(state)
    hand.now += 17
    clock.on_fit_start(nothing, nothing)  # type: ignore[arg-type]
    hand.now += seconds
    return clock


@each("parts", [(5.0,), (5.0, 2.0), (5.0, 2.0, 0.25)])
def test_the_clock_goes_on_where_a_checkpoint_was_saved(
    parts: Sequence[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    hand, state = Hand(), None
    monkeypatch.setattr(callbacks, "time", hand)
    for number, seconds in enumerate(parts, start=1):
        clock = trained(hand, state, seconds)
        state = json.loads(json.dumps(clock.state_dict()))
        assert clock.seconds == pytest.approx(sum(parts[:number]))
        hand.now += 1000  # killed; nothing that comes behind the checkpoint counts
    assert state == {"seconds": pytest.approx(sum(parts))}


def test_the_clock_goes_on_while_training_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    hand = Hand()
    monkeypatch.setattr(callbacks, "time", hand)
    clock = trained(hand, {"seconds": 40.0}, 3.0)
    assert clock.state_dict() == {"seconds": pytest.approx(43)}
    hand.now += 2
    assert clock.seconds == pytest.approx(45)
    assert clock.state_dict() == {"seconds": pytest.approx(45)}, "saving stops nothing"

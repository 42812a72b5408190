"""What is made when: needed runs first, each run once, finished ones not at all."""

from __future__ import annotations

from pathlib import Path

from ood_lab.config import prepare
from ood_lab.run_dir import mark_done
from ood_lab.sweep.order import in_waves


def words(output: Path, *more: str) -> list[str]:
    return [f"paths.output={output}", "scorer=[msp]", *more]


def test_needed_runs_come_first_and_once(tmp_path: Path) -> None:
    requests = [prepare(words(tmp_path, f"method={name}", f"seed={s}")) for name in ("hamos", "cider") for s in (0, 1)]
    first, second = in_waves(requests)
    assert sorted(work.run_id for work in first) == sorted({need.run_id for r in requests for need in r.needs})
    assert [work.run_id for work in second] == [request.run_id for request in requests]
    assert not any(work.asked for work in first)
    assert all(work.asked for work in second)
    assert second[0].needs <= {work.run_id for work in first}


def test_a_run_that_is_asked_for_and_stood_on_is_one_work_with_both_requests(tmp_path: Path) -> None:
    alone = prepare(words(tmp_path, "method=ce", "seed=0"))
    above = prepare(words(tmp_path, "method=hamos", "seed=0"))
    assert above.needs[0].run_id == alone.run_id
    first, _ = in_waves([alone, above])
    (work,) = first
    assert work.asked
    assert [r.overrides for r in work.requests] == [alone.overrides, above.needs[0].overrides]


def test_what_is_done_is_left_out(tmp_path: Path) -> None:
    request = prepare(words(tmp_path, "method=ce"))
    assert [work.run_id for wave in in_waves([request]) for work in wave] == [request.run_id]
    request.run_dir.mkdir(parents=True)
    mark_done(request.run_dir)
    (work,) = (work for wave in in_waves([request]) for work in wave)
    assert work.left == [request]  # done, but without the rows of msp


def test_tasks_other_than_training_are_always_carried_out(tmp_path: Path) -> None:
    request = prepare(words(tmp_path, "method=ce", "task=report"))
    request.run_dir.mkdir(parents=True)
    mark_done(request.run_dir)
    assert in_waves([request])[0][0].left == [request]

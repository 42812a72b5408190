"""What is made when: needed runs first, each run once, finished ones not at all."""

from __future__ import annotations

from pathlib import Path

from ood_lab.config import prepare
from ood_lab.runs.run_folder import RunFolder
from ood_lab.sweep.order import in_waves


def overrides(output: Path, *more: str) -> list[str]:
    return [f"paths.output={output}", "scorer=[msp]", *more]


def test_needed_runs_come_first_and_once(tmp_path: Path) -> None:
    experiments = [
        prepare(overrides(tmp_path, f"method={name}", f"seed={s}")) for name in ("hamos", "cider") for s in (0, 1)
    ]
    first, second = in_waves(experiments)
    assert sorted(work.run_id for work in first) == sorted(
        {run_id for r in experiments for run_id in r.prerequisite_ids}
    )
    assert [work.run_id for work in second] == [experiment.run_id for experiment in experiments]
    assert not any(work.asked for work in first)
    assert all(work.asked for work in second)
    assert second[0].prerequisites <= {work.run_id for work in first}


def test_a_run_that_is_asked_for_and_stood_on_is_one_work_with_both_requests(tmp_path: Path) -> None:
    alone = prepare(overrides(tmp_path, "method=ce", "seed=0"))
    above = prepare(overrides(tmp_path, "method=hamos", "seed=0"))
    assert above.prerequisites["init"].run_id == alone.run_id
    first, _ = in_waves([alone, above])
    (work,) = first
    assert work.asked
    assert [r.overrides for r in work.experiments] == [alone.overrides, above.prerequisites["init"].overrides]


def test_what_is_done_is_left_out(tmp_path: Path) -> None:
    experiment = prepare(overrides(tmp_path, "method=ce"))
    assert [work.run_id for wave in in_waves([experiment]) for work in wave] == [experiment.run_id]
    experiment.run_dir.mkdir(parents=True)
    RunFolder(experiment.run_dir).mark_done()
    (work,) = (work for wave in in_waves([experiment]) for work in wave)
    assert work.left == [experiment]  # done, but without the rows of msp


def test_tasks_other_than_training_are_always_carried_out(tmp_path: Path) -> None:
    experiment = prepare(overrides(tmp_path, "method=ce", "task=report"))
    experiment.run_dir.mkdir(parents=True)
    RunFolder(experiment.run_dir).mark_done()
    assert in_waves([experiment])[0][0].left == [experiment]

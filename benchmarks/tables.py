"""Tables and sweeps: planning, printing a finished table beside a full store, what a sweep costs beyond its runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ood_lab
from ood_lab.config import Experiment
from ood_lab.results.store import COLUMNS, add_rows, options_text
from ood_lab.runs.claim import claim
from ood_lab.runs.run_folder import RunFolder
from ood_lab.tables.adapt import adapt, load_scale
from ood_lab.tables.plan import plan
from ood_lab.tables.spec import load_table, table_names

PLAN = """
import sys
from ood_lab.tables.plan import plan
from ood_lab.tables.spec import load_table
found = plan([load_table(name) for name in sys.argv[1:]], look=False)
print(len(found.run_ids), len(found.unavailable))
"""
FAST = ["method=ce", "backbone.width=4", "trainer.max_epochs=0", "trainer.threads=1", "scorer=[msp]", "figure=[roc]"]


def seconds(command: list[str]) -> tuple[float, str]:
    """Wall time of a fresh process, and what it printed."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return time.perf_counter() - began, done.stdout


def planning() -> None:
    """Each table in a process of its own, then all in one."""
    names = table_names()
    times = {name: seconds([sys.executable, "-c", PLAN, name])[0] for name in names}
    slowest = max(times, key=lambda name: times[name])
    print(f"plan of the slowest table, {slowest}, with all imports: {times[slowest]:.1f} s (target 5)")
    taken, text = seconds([sys.executable, "-c", PLAN, *names])
    runs, unavailable = text.split()[-2:]
    print(f"plan of all {len(names)} tables: {taken:.1f} s (target 60); {runs} runs, {unavailable} places without")


def pretend(experiment: Experiment) -> None:
    """A finished run with rows, without the training."""
    for need in experiment.prerequisites.values():
        pretend(need)
    claim(experiment)
    blank = dict.fromkeys(COLUMNS) | {"run_id": experiment.run_id, "method": "x", "stage": "finetune", "commit": "x"}
    blank |= {"versions": {"torch": "2"}, "n_id": 100, "n_ood": 100, "value": 0.5}
    rows = [{**blank, "metric": "accuracy", "convention": experiment.convention()}]
    for name, node in experiment.detectors.items():
        for ood_set in experiment.ood_sets:
            for metric in ("auroc", "fpr95_ood_pos", "fpr95_id_pos", "aupr_in", "aupr_out"):
                own = {"scorer": name, "options": options_text(node), "ood_set": ood_set, "metric": metric}
                rows.append({**blank, **own, "convention": experiment.convention(ood_set)})
    add_rows(experiment.run_dir, rows)
    limit = {"id_rate": experiment.id_rate, "threshold": 0.0, "held": "val", "convention": experiment.convention()}
    lines = [json.dumps(limit | {"scorer": n, "options": options_text(o)}) for n, o in experiment.detectors.items()]
    (experiment.run_dir / "thresholds.jsonl").write_text("\n".join(lines))
    RunFolder(experiment.run_dir).mark_done(1.0)


def printing(output: Path) -> None:
    """`table=hamos_t17` with its runs done, beside 1,000 other runs."""
    overrides = [f"paths.output={output}"]
    planned = plan([adapt(load_table("hamos_t17"), load_scale("tiny"), overrides)])
    for experiment in planned.runs:
        pretend(experiment)
    first = planned.runs[0].run_dir
    for number in range(1000):
        shutil.copytree(first, output / f"{first.name[:-8]}{number:08x}")
    command = [sys.executable, "-m", "ood_lab", "table=hamos_t17", "scale=tiny", *overrides]
    times = [seconds(command)[0] for _ in range(3)]
    print(f"finished table beside 1,000 runs, printed in {min(times):.1f} to {max(times):.1f} s (target 3)")


def overhead(output: Path) -> None:
    """A sweep of 2 and of 10 runs on one worker, against a plain loop in this process."""

    def by_sweep(count: int) -> float:
        command = [sys.executable, "-m", "ood_lab", "-m", *FAST, f"seed=range(0,{count})"]
        return seconds([*command, f"paths.output={output / f'sweep{count}'}"])[0]

    def by_loop(count: int) -> float:
        began = time.perf_counter()
        for seed in range(count):
            ood_lab.run([*FAST, f"seed={seed}", f"paths.output={output / f'loop{count}'}"])
        return time.perf_counter() - began

    by_loop(1)  # imports
    swept, looped = (by_sweep(10) - by_sweep(2)) / 8, (by_loop(10) - by_loop(2)) / 8
    print(f"a run in a sweep {swept:.2f} s, in a plain loop {looped:.2f} s: {swept - looped:+.2f} s (target 0.5)")


if __name__ == "__main__":
    planning()
    with tempfile.TemporaryDirectory() as folder:
        printing(Path(folder) / "store")
        overhead(Path(folder))

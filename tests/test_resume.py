"""A run killed at any moment and started again ends with the numbers of an undisturbed one, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from safetensors.numpy import load_file

import ood_lab

SMALL = [
    "backbone.width=4",
    "init=random",
    "protocol.far=[photos]",
    "dataset.recipe.epochs.finetune=3",
    "dataset.recipe.bank_size=60",
    "dataset.recipe.neighbor=10",
    "trainer.threads=1",
    "trainer.checkpoint_minutes=0.0005",
    "figure=[training_curves]",
]


def start(output: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ood_lab", *SMALL, f"paths.output={output}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)


def finished(output: Path) -> tuple[dict[str, bytes], list[tuple[object, ...]], list[dict[str, object]]]:
    """Weights and features as bytes, metric rows but times, and curves."""
    (run,) = output.glob("hamos-*")
    tensors = {}
    for path in sorted(run.glob("*/*.safetensors")):
        for name, value in load_file(path).items():
            tensors[f"{path.name}/{name}"] = value.tobytes()
    rows = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    kept = [(r["scorer"], r["ood_set"], r["metric"], r["value"]) for r in rows if r["metric"] != "synthesis_time"]
    curves = [json.loads(line) for line in (run / "curves.jsonl").read_text().splitlines()]
    return tensors, kept, curves


def test_killed_run_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    moments = random.Random(0)
    kills = 0
    for epoch in (1, 2):
        process = start(killed)
        # Wait until the fine-tuning is inside the epoch, then kill it and everything it started.
        while process.poll() is None:
            steps = [int(p.name[4:13]) for p in killed.glob("hamos-*/checkpoints/step*.ckpt")]
            if steps and max(steps) >= 9 * epoch:
                time.sleep(moments.uniform(0, 0.6))
                break
            time.sleep(0.02)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills == 2, "the run ended before it could be killed; the test needs a longer one"
    assert not list(killed.glob("hamos-*/DONE"))
    for output in (killed, undisturbed):
        ood_lab.run([*SMALL, f"paths.output={output}"])
    for ours, theirs in zip(finished(killed), finished(undisturbed), strict=True):
        assert ours == theirs

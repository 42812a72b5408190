"""Every number and every weight of `make run`, `make tables` and twelve steps of each method, as files to compare with.

    make run tables && .venv/bin/python -m tests.frozen.numbers            # lists what differs
    .venv/bin/python -m tests.frozen.numbers --write                       # makes the files anew

Weights are compared tensor by tensor, and a run is found again by its weights: names and ids may change, values may
not. Bits depend on the processor and on torch: compare on the machine that made the files, or make both there.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

import ood_lab

FOLDER = Path(__file__).parent
NUMBERS, STEPS = FOLDER / "numbers.json", FOLDER / "steps.json"

# Twelve steps each, on banks small enough that outliers are made from the second or third step on.
COMMON = ["trainer.batch_size=99", "trainer.max_epochs=1", "trainer.log_every_n_steps=1", "scorer=[msp]", "figure=[]"]
SMALL_BANK = ["dataset.recipe.bank_size=10", "dataset.recipe.neighbor=3"]
RUNS = {
    "ce": ["method=ce"],
    "cider": ["method=cider"],
    "hamos": ["method=hamos", *SMALL_BANK],
    "hamos paper_eq7": ["method=hamos", "outlier_loss=paper_eq7", *SMALL_BANK],
    "hamos logistic": ["method=hamos", "outlier_loss=logistic", *SMALL_BANK],
    "hamos negatives": ["method=hamos", "outlier_loss=negatives", *SMALL_BANK],
    "hamos_released": ["method=hamos_released", *SMALL_BANK],
    "hamos_released equidistant": [
        "method=hamos_released", "outlier_loss=equidistant", "outlier_loss.weight=0.14285714", *SMALL_BANK,
    ],
    "hamos midpoints": ["method=hamos", "synthesizer=midpoints", *SMALL_BANK],
    "oe": ["method=oe", "auxiliary=fractals", "trainer.auxiliary_batch_size=64"],
}  # fmt: skip
# What these terms are called in `steps.json`; of the terms on outliers a run has one.
OUTLIERS = ("equidistant", "paper_eq7", "logistic", "negatives", "released")
TERMS = {"loss/compactness": "loss/comp", "loss/dispersion": "loss/disp", "loss/outlier_exposure": "loss/oe"}
TERMS |= {f"loss/{name}": "loss/ood" for name in OUTLIERS}


def tensors_of(run: Path) -> list[str]:
    """A digest of each tensor's shape and bytes, sorted."""
    return sorted(_digest(value) for value in load_file(run / "checkpoints/final.safetensors").values())


def _digest(value: Tensor) -> str:
    told = f"{value.dtype} {tuple(value.shape)} ".encode() + value.contiguous().flatten().numpy().tobytes()
    return hashlib.sha256(told).hexdigest()[:16]


def rows_of(run: Path) -> dict[str, float]:
    """Each stored value by detector, OOD set and metric."""
    rows = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    keys = ("scorer", "options", "ood_set", "convention", "metric")
    return {" ".join(str(row[key]) for key in keys): row["value"] for row in rows}


def losses_of(run: Path) -> dict[str, list[float]]:
    """Each term's value in every step."""
    steps = [json.loads(line) for line in (run / "curves.jsonl").read_text().splitlines()]
    steps = [row for row in steps if "loss/total" in row]
    names = [key for key in steps[-1] if key.startswith(("loss/", "info/"))]
    return {TERMS.get(name, name): [row.get(name, 0.0) for row in steps] for name in sorted(names)}


def collected(outputs: Path) -> dict[str, dict[str, Any]]:
    """For each run its weights and its values."""
    runs = sorted(path.parent for path in outputs.rglob("results.jsonl") if "frozen" not in path.parts)
    return {str(run.relative_to(outputs)): {"tensors": tensors_of(run), "rows": rows_of(run)} for run in runs}


def stepped(outputs: Path) -> dict[str, dict[str, Any]]:
    """Train each of `RUNS`; its weights, its values and the losses of its steps."""
    out = {}
    for name, overrides in RUNS.items():
        results = ood_lab.run([*overrides, *COMMON, f"paths.output={outputs / 'frozen'}"])
        run = outputs / "frozen" / results.run_id
        out[name] = {"tensors": tensors_of(run), "rows": rows_of(run), "losses": losses_of(run)}
    return out


def differences(name: str, then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What was there and is not, or has another value."""
    lost = Counter(then["tensors"]) - Counter(now["tensors"])
    out = [f"{name}: {lost.total()} of {len(then['tensors'])} tensors differ"] if lost else []
    for part in ("rows", "losses"):
        for key, value in then.get(part, {}).items():
            if now.get(part, {}).get(key) != value:
                out.append(f"{name}, {key}: {now.get(part, {}).get(key)} where {value} stood")
    return out


def alike(then: dict[str, Any], runs: dict[str, dict[str, Any]]) -> str | None:
    """The run that shares most tensors with a frozen one; None where they share none."""
    shared = {name: (Counter(then["tensors"]) & Counter(run["tensors"])).total() for name, run in runs.items()}
    best = max(shared, key=lambda name: shared[name], default=None)
    return best if best is not None and shared[best] else None


def main() -> int:
    """Compare, or write."""
    outputs = Path("outputs").absolute()
    now, steps = collected(outputs), stepped(outputs)
    if "--write" in sys.argv:
        for file, values in ((NUMBERS, now), (STEPS, steps)):
            file.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n")
        return 0
    frozen, frozen_steps = json.loads(NUMBERS.read_text()), json.loads(STEPS.read_text())
    differ, count = [], 0
    for name, then in frozen.items():
        found = alike(then, now)
        differ += [f"{name}: no run has its weights"] if found is None else differences(name, then, now[found])
        count += len(then["tensors"]) + len(then["rows"])
    for name, then in frozen_steps.items():
        if name not in steps:  # its source has no bank any more, so that it begins with the first step
            continue
        differ += differences(name, then, steps[name])
        count += len(then["tensors"]) + len(then["rows"]) + sum(map(len, then["losses"].values()))
    print("\n".join(differ) or f"{count:,} values and tensors of {len(frozen) + len(frozen_steps)} runs are the same")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())

"""Every number and every weight of `make run` and `make tables`, as one file to compare with.

    make run tables && .venv/bin/python -m tests.frozen.numbers            # lists what differs
    .venv/bin/python -m tests.frozen.numbers --write                       # makes the file anew

Bits depend on the processor and on torch: compare on the machine that made the file, or make both there.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

FILE = Path(__file__).parent / "numbers.json"


def collected(outputs: Path) -> dict[str, dict[str, float | str]]:
    """For each run its weights' digest, and each stored value by detector, OOD set and metric."""
    found: dict[str, dict[str, float | str]] = {}
    for path in sorted(outputs.rglob("results.jsonl")):
        run = str(path.parent.relative_to(outputs))
        weights = (path.parent / "checkpoints/final.safetensors").read_bytes()
        found[run] = {"weights": hashlib.sha256(weights).hexdigest()}
        for line in path.read_text().splitlines():
            row = json.loads(line)
            name = " ".join(str(row[key]) for key in ("scorer", "options", "ood_set", "convention", "metric"))
            found[run][name] = row["value"]
    return found


def main(outputs: Path = Path("outputs")) -> int:
    """Compare, or write."""
    now = collected(outputs)
    if "--write" in sys.argv:
        FILE.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n")
        return 0
    then = json.loads(FILE.read_text())
    differ = [f"{run}: not there" for run in then if run not in now]
    differ += [
        f"{run}, {name}: {now[run].get(name)} where {value} stood"
        for run, values in then.items()
        if run in now
        for name, value in values.items()
        if now[run].get(name) != value
    ]
    print("\n".join(differ) or f"{sum(map(len, then.values())):,} values of {len(then)} runs are the same")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())

"""Making what an experiment depends on: first, each run in a process of its own, found again by its identity."""

from __future__ import annotations

import shlex
import subprocess
import sys

from ood_lab.config.experiment import Experiment
from ood_lab.errors import RunError
from ood_lab.results.store import Results, read_rows
from ood_lab.runs.claim import verify
from ood_lab.runs.outstanding import is_made, outstanding
from ood_lab.runs.production import damaged
from ood_lab.runs.run_folder import RunFolder


def ensure(experiment: Experiment) -> list[Results]:
    """Bring every prerequisite to its end and give its results.

    It is made by the command that a user would type for it; a lock keeps two processes from making it twice.

    Raises:
        RequestError: a prerequisite was made with other values than today's.
        RunError: a prerequisite failed; the message says how to repeat it alone.
    """
    results, begun = [], RunFolder(experiment.run_dir).has_begun
    for other in experiment.prerequisites.values():
        verify(other)
        if outstanding(other) or (other.produces and not begun and damaged(other)):
            doing = "scoring" if is_made(other) and not other.produces else "making"
            print(f"{experiment.run_id} depends on {other.run_id}; {doing} it first", flush=True)
            command = [sys.executable, "-m", "ood_lab", *other.overrides]
            if other.config_dir is not None:
                command.append(f"--config-dir={other.config_dir}")
            status = subprocess.run(command, check=False).returncode
            # What depends on it needs its weights; that a detector can't work on its features was said.
            if status != 0 and (other.produces or not RunFolder(other.run_dir).done.is_file()):
                again = f"python -m ood_lab {shlex.join(command[3:])}"
                raise RunError(f"the prerequisite {other.run_id} failed (exit code {status}). Repeat it alone: {again}")
        results.append(Results(other.run_id, other.run_dir, read_rows(other.run_dir), ensure(other)))
    return results

"""The runs a run depends on: made first, each in a process of its own, found again by identity."""

from __future__ import annotations

import shlex
import subprocess
import sys

from ood_lab.config import Request, RunError
from ood_lab.results.store import Results, read_rows
from ood_lab.run_dir import outstanding, verify


def ensure(request: Request) -> list[Results]:
    """Bring every needed run to its end and give its results.

    A run is made by the command that a user would type for it; a lock keeps two processes from making it twice.

    Raises:
        RequestError: a needed run was made with other values than today's.
        RunError: a needed run failed; the message says how to repeat it alone.
    """
    results = []
    for need in request.needs:
        verify(need)
        if outstanding(need):
            print(f"{request.run_id} depends on {need.run_id}; making it first", flush=True)
            command = [sys.executable, "-m", "ood_lab", *need.overrides]
            if need.folder is not None:
                command.append(f"--config-dir={need.folder}")
            status = subprocess.run(command, check=False).returncode
            # What depends on it needs its weights; that a detector can't work on its features was said.
            if status != 0 and not (need.run_dir / "DONE").is_file():
                again = f"python -m ood_lab {shlex.join(command[3:])}"
                raise RunError(f"the needed run {need.run_id} failed (exit code {status}). Repeat it alone: {again}")
        results.append(Results(need.run_id, need.run_dir, read_rows(need.run_dir), ensure(need)))
    return results

"""On what and from which code a number was made."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

from ood_lab.config.groups import PACKAGE


@cache
def hardware(accelerator: str) -> str:
    """The device a run used, in words."""
    import torch  # what reads stored results alone does without it

    if accelerator == "gpu":
        return torch.cuda.get_device_name()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []:
        if line.startswith("model name"):
            return f"{line.split(':', 1)[1].strip()} x {torch.get_num_threads()}"
    return f"cpu x {torch.get_num_threads()}"


@cache
def commit() -> str | None:
    """The commit of this checkout, with + if files differ from it; None outside a checkout.

    Asked once a process, when a run is claimed: the checkout may move on while it trains.
    """
    if not (PACKAGE.parent / ".git").exists():
        return None
    command = ["git", "-C", str(PACKAGE.parent), "describe", "--always", "--dirty=+", "--abbrev=8", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None

"""One job of a sweep: what a Hydra launcher calls, in this process or another."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from ood_lab.config import OodLabError, prepare

exit_codes: list[int] = []


def job(_: Any) -> None:
    """Check the job's own overrides again and run them; a failure is reported and the sweep goes on."""
    hydra = HydraConfig.get()
    folders = [s.path.removeprefix("file://") for s in hydra.runtime.config_sources if s.provider == "command-line"]
    try:
        request = prepare(list(hydra.overrides.task), Path(folders[0]) if folders else None)
        from ood_lab.task import execute

        execute(request)
    except OodLabError as error:
        print(f"ood_lab: {error}", file=sys.stderr)
        exit_codes.append(error.exit_code)
    except Exception:  # whatever stopped this job must not stop the others; it is shown and counted
        traceback.print_exc()
        exit_codes.append(1)

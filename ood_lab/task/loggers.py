"""Where curves go besides the run directory."""

from __future__ import annotations

from typing import Any

from ood_lab.config import Request


def build_loggers(request: Request) -> list[Any]:
    """Lightning loggers for the chosen `logger`; `csv` needs none, its file is made from the run's own curves."""
    if request.cfg.logger.name != "wandb":
        return []
    return []

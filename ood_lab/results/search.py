"""The searches of a run's detectors, one JSON file each, as `ood_lab.task.tuning` writes them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ood_lab.config import Request
from ood_lab.results.store import options_text


def search_path(request: Request, name: str) -> Path:
    """Where the search of a detector is kept."""
    text = options_text(request.scorers[name])
    return request.run_dir / "tuning" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"


def validation_auroc(request: Request, name: str) -> float | None:
    """The AUROC on validation data that a detector was chosen by; None where it was not searched, or is not yet."""
    path = search_path(request, name)
    trials = json.loads(path.read_text())["trials"] if path.is_file() else []
    return max((trial["auroc"] for trial in trials if trial["auroc"] is not None), default=None)

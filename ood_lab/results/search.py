"""The searches of a run's detectors, one JSON file each, as `ood_lab.task.tuning` writes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ood_lab.results.store import options_text


def search_path(run_dir: Path, name: str, node: Mapping[str, Any]) -> Path:
    """Where the search of a detector with these options is stored."""
    digits = hashlib.sha256(options_text(node).encode()).hexdigest()[:8]
    return run_dir / "tuning" / f"{name}-{digits}.json"


def validation_auroc(run_dir: Path, name: str, node: Mapping[str, Any]) -> float | None:
    """The AUROC on validation data that a detector was chosen by; None where it was not searched, or is not yet."""
    path = search_path(run_dir, name, node)
    trials = json.loads(path.read_text())["trials"] if path.is_file() else []
    return max((trial["auroc"] for trial in trials if trial["auroc"] is not None), default=None)

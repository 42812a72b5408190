"""The searches of a run's detectors, one JSON file each, as `ood_lab.task.tuning` writes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ood_lab.results.store import options_text

PARTS: dict[str, type] = {"trials": list, "features": dict}


def search_path(run_dir: Path, name: str, node: Mapping[str, Any]) -> Path:
    """Where the search of a detector with these options is stored."""
    digits = hashlib.sha256(options_text(node).encode()).hexdigest()[:8]
    return run_dir / "tuning" / f"{name}-{digits}.json"


def read_search(path: Path) -> dict[str, Any]:
    """A stored search; empty where none can be read (a damaged one is set aside when it is made again)."""
    try:
        found = json.loads(path.read_text()) if path.is_file() else {}
    except ValueError:
        return {}
    whole = isinstance(found, dict) and all(isinstance(found.get(key, kind()), kind) for key, kind in PARTS.items())
    return found if whole else {}


def validation_auroc(run_dir: Path, name: str, node: Mapping[str, Any]) -> float | None:
    """The AUROC on validation data that a detector was chosen by; None where it was not searched, or is not yet."""
    trials = read_search(search_path(run_dir, name, node)).get("trials", [])
    return max((trial["auroc"] for trial in trials if trial["auroc"] is not None), default=None)

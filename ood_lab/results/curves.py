"""What a run logged while it trained, as it is stored: one row a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_curves(path: Path) -> list[dict[str, Any]]:
    """The rows written so far; an unfinished last line is left out."""
    if not path.is_file():
        return []
    text = path.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

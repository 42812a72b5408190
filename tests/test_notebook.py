"""The notebook runs from the first cell to the last, and shows what its stored outputs say it shows."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


def test_every_cell_runs_and_shows_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(DOCS))
    for name in ("OOD_LAB_DATA", "OOD_LAB_OUTPUT"):
        monkeypatch.delenv(name, raising=False)
    from run_notebook import NOTEBOOK, executed

    try:
        stored = json.loads(NOTEBOOK.read_text())
        found = executed(json.loads(NOTEBOOK.read_text()))
    finally:
        sys.modules.pop("run_notebook", None)
    cells = [cell for cell in found["cells"] if cell["cell_type"] == "code"]
    assert len(cells) == 5
    for cell, before in zip(cells, (c for c in stored["cells"] if c["cell_type"] == "code"), strict=True):
        assert cell["outputs"]
        kinds = [set(output.get("data", ())) for output in cell["outputs"]]
        assert kinds == [set(output.get("data", ())) for output in before["outputs"]], "run docs/run_notebook.py"
    assert "AUROC near" in "".join(cells[0]["outputs"][-1]["data"]["text/html"])

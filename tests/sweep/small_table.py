"""A table of three rows on three runs, of which two depend on the first, made in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

TABLE = {
    "source": "none",
    "title": "three methods",
    "kind": "results",
    "unit": "percent",
    "experiment": "hamos",
    "seeds": 1,
    "sets": {"cifar10": ["letters", "photos"]},
    "columns": [
        {"metric": metric, "over": over, "dataset": "cifar10", "backbone": "narrow"}
        for metric, over in (("auroc", "mean"), ("fpr95", "mean"), ("accuracy", None))
    ],
    "rows": [
        {"label": name, "overrides": [f"method={name}"], "scorer": scorer, "values": ["1", "2", "3"]}
        for name, scorer in (("ce", "msp"), ("cider", "knn"), ("hamos", "knn"))
    ],
    "remarks": [],
}
ABOUT_MANY = ["table=three", "scale=tiny", "backbone.width=4", "trainer.checkpoint_minutes=0.01"]


def start(folder: Path, output: Path, *overrides: str) -> subprocess.Popen[bytes]:
    """Begin to make the table, with its file in `folder`."""
    (folder / "conf" / "table").mkdir(parents=True, exist_ok=True)
    (folder / "conf" / "table" / "three.yaml").write_text(yaml.safe_dump(TABLE))
    command = [sys.executable, "-m", "ood_lab", *ABOUT_MANY, *overrides, f"--config-dir={folder / 'conf'}"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, f"paths.output={output}"], env=env, stdout=subprocess.DEVNULL)


def table_of(output: Path) -> str:
    """The finished table as CSV."""
    (path,) = (output / "tables").glob("three.*.csv")
    return path.read_text()

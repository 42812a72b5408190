"""Train requests one after the other as each of their devices does, and leave every device's weights.

two_devices.py FOLDER '{"name": ["override", ...], ...}'
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from ood_lab.config import prepare
from ood_lab.runs.claim import claim
from ood_lab.task.build import build_method
from ood_lab.task.train import _train, rank


def train(name: str, folder: Path, overrides: list[str]) -> None:
    """One request; the weights go to `<name>.rank<n>.pt`, those that the first device would store as `final.*`."""
    experiment = prepare([*overrides, f"paths.output={folder}/{name}"])
    experiment = claim(experiment)
    method = build_method(experiment)
    final = {f"final.{key}": value for key, value in _train(experiment, method, []).items()}
    torch.save({**method.state_dict(), **final}, folder / f"{name}.rank{rank()}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    target = Path(sys.argv[1])
    for name, overrides in json.loads(sys.argv[2]).items():
        train(name, target, overrides)

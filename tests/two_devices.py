"""Train a request as each of its devices does, and leave every device's weights: two_devices.py FOLDER OVERRIDES."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from ood_lab.config import prepare
from ood_lab.run_dir import claim
from ood_lab.task.build import build_method
from ood_lab.task.train import _quiet_lightning, _train, rank

if __name__ == "__main__":
    folder, overrides = Path(sys.argv[1]), sys.argv[2:]
    request = prepare(overrides)
    cfg = claim(request)
    torch.set_num_threads(1)
    _quiet_lightning()
    method = build_method(cfg)
    _train(request, cfg, method, [])
    torch.save(method.state_dict(), folder / f"rank{rank()}.pt")

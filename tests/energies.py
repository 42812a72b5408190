"""Views of a step for terms that read nothing but energies."""

from __future__ import annotations

import torch
from torch import Tensor

from ood_lab.parts import Rows, View, WholeBatch


def view(of_id: Tensor, of_outliers: Tensor, own: slice | None = None) -> View:
    """Energies [N, 1] of the ID rows of all devices, and of outliers; of the former the own ones."""
    labels, places = torch.zeros(len(of_id), dtype=torch.int64), torch.arange(len(of_id))
    mine = places if own is None else places[own]
    whole = WholeBatch(Rows(energy=of_id), labels, mine, 1)
    return View(
        id=Rows(energy=of_id[mine]), labels=labels[mine], kept={}, outliers=Rows(energy=of_outliers), whole=whole
    )

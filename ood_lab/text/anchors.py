"""The anchors that a run made, as other runs read them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ood_lab.errors import RunError
from ood_lab.reader.shards import load_manifest, rows_of


def load_anchors(folder: Path) -> Tensor:
    """The anchors [C, D] of a set that `task=anchors` made.

    Raises:
        RunError: the set is not there, or holds something else.
    """
    return torch.from_numpy(rows_of(folder, "anchors").whole)


def load_words(folder: Path) -> tuple[str, ...]:
    """The word of each class of a set of anchors.

    Raises:
        RunError: the set is not there, or names no words.
    """
    words = load_manifest(folder).about.get("words")
    if not isinstance(words, list):
        raise RunError(f"{folder} is no set of anchors; make one with task=anchors")
    return tuple(map(str, words))

"""A set of one's own: folders of images, named by their paths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ood_lab.config.affects import NOTHING
from ood_lab.dataset.stored import Stored


@dataclass(kw_only=True)
class ImageFolder(Stored):
    """`root` with the subfolders train and test, or wherever these are said to be (see `config.own_folder`).

    Args:
        train, test: folders with one folder a class; null for those in `root`.
        val: the same of validation images; without, some of the test images are kept for validation.

    As an OOD or auxiliary set all images of a folder are read, labels or not.
    """

    train: Annotated[str | None, NOTHING]
    val: Annotated[str | None, NOTHING]
    test: Annotated[str | None, NOTHING]

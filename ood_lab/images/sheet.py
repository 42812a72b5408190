"""Many small pictures in one: a sheet to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ood_lab.files.storage import atomic_file

COLUMNS, ROWS = 16, 8


def write_sheet(path: Path, images: Any, classes: int | None = None) -> None:
    """Write the first images, uint8 [N, S, S, 3], in rows with a white line between them.

    Args:
        classes: of a set whose images are of all classes in turn, how many: each has a column of its own then.
    """
    columns = classes if classes is not None and 4 <= classes <= 2 * COLUMNS else COLUMNS
    shown: NDArray[np.uint8] = np.asarray(images[: ROWS * columns])
    side, rows = shown.shape[1], -(-len(shown) // columns)
    sheet = np.full((rows * (side + 1), columns * (side + 1), 3), 255, np.uint8)
    for number, image in enumerate(shown):
        top, left = (number // columns) * (side + 1), (number % columns) * (side + 1)
        sheet[top : top + side, left : left + side] = image
    with atomic_file(path) as temporary:
        Image.fromarray(sheet).save(temporary, "png")

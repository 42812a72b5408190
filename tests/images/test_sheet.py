"""A sheet of small pictures: where each lies, its white lines, and a column for each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ood_lab.images.sheet import write_sheet
from tests.cases import each


def pictures(count: int, side: int = 3) -> NDArray[np.uint8]:
    """None has a white pixel."""
    return np.random.default_rng(0).integers(0, 250, (count, side, side, 3), dtype=np.uint8)


def sheet(folder: Path, images: NDArray[np.uint8], classes: int | None = None) -> NDArray[np.uint8]:
    path = folder / "new" / "sheet.png"
    write_sheet(path, images, classes)
    assert [file.name for file in path.parent.iterdir()] == ["sheet.png"]
    with Image.open(path) as opened:
        assert (opened.format, opened.mode) == ("PNG", "RGB")
        return np.array(opened)


@each("side", [1, 4])
@each(
    ("count", "classes", "columns", "rows"),
    [
        (1, None, 16, 1), (16, None, 16, 1), (17, None, 16, 2), (128, None, 16, 8), (500, None, 16, 8),
        (30, 10, 10, 3), (35, 10, 10, 4), (500, 10, 10, 8), (500, 4, 4, 8), (500, 32, 32, 8), (500, 33, 16, 8),
        (500, 3, 16, 8), (500, 100, 16, 8), (2, 5, 5, 1),
    ],
)  # fmt: skip
def test_pixels_lie_in_rows_and_all_else_is_white(
    count: int, classes: int | None, columns: int, rows: int, side: int, tmp_path: Path
) -> None:
    images = pictures(count, side)
    found = sheet(tmp_path, images, classes)
    assert found.shape == (rows * (side + 1), columns * (side + 1), 3)
    expected = np.full_like(found, 255)
    for number in range(min(count, rows * columns)):
        top, left = (side + 1) * (number // columns), (side + 1) * (number % columns)
        for y in range(side):
            for x in range(side):
                expected[top + y, left + x] = images[number, y, x]
    assert np.array_equal(found, expected)


@each("classes", [4, 7, 10, 32])
def test_of_classes_in_turn_each_has_a_column(classes: int, tmp_path: Path) -> None:
    labels = np.arange(1000) % classes
    images = np.broadcast_to((labels * 5).astype(np.uint8)[:, None, None, None], (1000, 2, 2, 3))
    found = sheet(tmp_path, images, classes)
    for column in range(classes):
        part = found[:, 3 * column : 3 * column + 2].reshape(8, 3, 2, 3)[:, :2]
        assert np.unique(part).tolist() == [5 * column]


def test_only_the_pictures_that_are_shown_are_read(tmp_path: Path) -> None:
    class Rows:
        """Images in files, too many for memory."""

        asked: slice

        def __getitem__(self, rows: slice) -> NDArray[np.uint8]:
            self.asked = rows
            return pictures(128)

    images = Rows()
    write_sheet(tmp_path / "sheet.png", images)
    assert images.asked == slice(None, 128)


def test_a_sheet_takes_the_place_of_an_older_one_and_half_a_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = sheet(tmp_path, pictures(5)), sheet(tmp_path, pictures(40))
    assert first.shape != second.shape

    def disk_full(self: Image.Image, path: Path, kind: str) -> None:
        path.write_bytes(b"half")
        raise OSError("no space")

    monkeypatch.setattr(Image.Image, "save", disk_full)
    with pytest.raises(OSError, match="no space"):
        sheet(tmp_path, pictures(60))
    (kept,) = (tmp_path / "new").iterdir()
    with Image.open(kept) as opened:
        assert np.array_equal(np.array(opened), second)

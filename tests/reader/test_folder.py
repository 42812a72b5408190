"""Folders of images: classes, order, colour modes, damaged and misplaced files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ood_lab.errors import RunError
from ood_lab.reader import folder
from ood_lab.reader.base import Listing
from tests.cases import each


def picture(width: int = 32, height: int = 32, seed: int = 0, mode: str = "RGB") -> Image.Image:
    array = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(array).convert(mode)


def save(path: Path, image: Image.Image | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or picture(seed=sum(path.name.encode()))).save(path)
    return path


def read(root: Path) -> Listing:
    return folder.read(root, {"folder": "images"})


def test_class_folders_give_labels_in_sorted_order_however_deep_their_images_lie(tmp_path: Path) -> None:
    for name in ("cat/deep/er/x.png", "ant/c.png", "bee/a.png", "ant/b.JPEG"):
        save(tmp_path / "images" / name)
    listing = read(tmp_path)
    assert listing.classes == ("ant", "bee", "cat")
    assert listing.labels.tolist() == [0, 0, 1, 2]
    assert [p.name for p in listing.paths or ()] == ["b.JPEG", "c.png", "a.png", "x.png"]


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    for name in ("b.png", "a.png"):
        save(tmp_path / "images" / name)
    listing = read(tmp_path)
    assert listing.labels.tolist() == [-1, -1]
    assert listing.classes is None
    assert [p.name for p in listing.paths or ()] == ["a.png", "b.png"]


def test_other_and_hidden_files_are_passed_over(tmp_path: Path) -> None:
    save(tmp_path / "images/a/x.PNG")
    (tmp_path / "images/a/notes.txt").write_text("text")
    (tmp_path / "images/a/.directory").write_text("KDE's, as in DTD")
    save(tmp_path / "images/a/._x.png")
    (tmp_path / "images/.cache").mkdir()
    assert len(read(tmp_path)) == 1
    assert read(tmp_path).classes == ("a",)


@each("names", [(), ("notes.txt",)])
def test_a_folder_without_images_is_named(names: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in names:
        (tmp_path / "images" / name).write_text("x")
    with pytest.raises(RunError, match=f"no image below {tmp_path}/images"):
        read(tmp_path)


def test_images_beside_class_folders_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "images/a/x.png")
    save(tmp_path / "images/y.png")
    with pytest.raises(RunError, match=r"both class folders \(a, \.\.\.\) and images \(y\.png"):
        read(tmp_path)


@each(("one", "other"), [("Cat", "cat"), ("\u00e9", "e\u0301"), ("dog", "dog ")])
def test_two_classes_of_one_name_are_named(one: str, other: str, tmp_path: Path) -> None:
    save(tmp_path / "images" / one / "a.png")
    save(tmp_path / "images" / other / "b.png")
    with pytest.raises(RunError, match="two classes of one name"):
        read(tmp_path)


@each("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_every_colour_mode_is_read_as_pil_converts_it(mode: str, tmp_path: Path) -> None:
    image = picture(40, 36, mode=mode)
    save(tmp_path / f"images/a.{'tiff' if mode == 'CMYK' else 'png'}", image)
    assert np.array_equal(np.asarray(read(tmp_path).image(0)), np.asarray(image.convert("RGB")))


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    levels = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    save(tmp_path / "images/a.png", Image.fromarray(levels))
    assert np.array_equal(np.asarray(read(tmp_path).image(0))[:, :, 1], levels // 256)


@each("suffix", ["jpg", "png", "bmp"])
@each("share", [0.0, 0.02, 0.1, 0.5, 0.9])
def test_a_truncated_file_is_named(suffix: str, share: float, tmp_path: Path) -> None:
    broken = save(tmp_path / f"images/broken.{suffix}", picture(80, 80))
    data = broken.read_bytes()
    broken.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(RunError, match=rf"broken\.{suffix}: not a readable image"):
        read(tmp_path).image(0)


def test_a_file_with_altered_bytes_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "images/altered.png", picture(60, 60))
    data = bytearray(path.read_bytes())
    for place in range(60, len(data) - 20, 7):
        data[place] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(RunError, match=r"altered\.png"):
        read(tmp_path).image(0)


def test_a_file_taken_away_after_listing_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "images/a.png")
    listing = read(tmp_path)
    path.unlink()
    with pytest.raises(RunError, match=r"a\.png: no such image"):
        listing.image(0)


def test_keeping_classes_ranks_the_labels_anew(tmp_path: Path) -> None:
    for name in ("ant/a.png", "bee/b.png", "cat/c.png", "cat/d.png"):
        save(tmp_path / "images" / name)
    part = read(tmp_path).keep_classes(lambda name: name != "bee")
    assert part.classes == ("ant", "cat")
    assert part.labels.tolist() == [0, 1, 1]
    assert [p.name for p in part.paths or ()] == ["a.png", "c.png", "d.png"]


def test_hidden_folders_and_files_are_no_images_at_any_depth(tmp_path: Path) -> None:
    save(tmp_path / "images/a/1.png")
    save(tmp_path / "images/a/.ipynb_checkpoints/1-checkpoint.png")
    save(tmp_path / "images/a/deep/.thumbnails/2.png")
    listing = read(tmp_path)
    assert len(listing) == 1
    assert listing.notes == ()


def test_formats_that_are_not_read_and_broken_links_are_noted(tmp_path: Path) -> None:
    save(tmp_path / "images/a/1.pgm", picture(mode="L"))
    for name in ("a/2.gif", "a/3.GIF", "b/4.tga", "a/notes.md"):
        (tmp_path / "images" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "images" / name).touch()
    (tmp_path / "images/a/5.png").symlink_to("nowhere.png")
    (tmp_path / "images/a/up").symlink_to(tmp_path / "images")
    listing = read(tmp_path)
    assert [p.name for p in listing.paths or ()] == ["1.pgm"]
    counts, links = listing.notes
    assert "images: 2 .gif, 1 .tga not read; convert to one of .png" in counts
    assert links.startswith(f"{tmp_path}/images: broken link {tmp_path}/images/a/5.png and 1 more not read")


def test_a_folder_of_other_formats_says_which(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/1.gif").touch()
    with pytest.raises(RunError, match=r"no image below .*1 \.gif not read"):
        read(tmp_path)


def test_a_name_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "images/a/1.png")
    os.rename(tmp_path / "images/a/1.png", os.fsencode(tmp_path / "images/a") + b"/\xff.png")  # noqa: PTH104
    with pytest.raises(RunError, match=r"images: the name b'.*\\xff\.png' is not UTF-8; rename"):
        read(tmp_path)


def test_links_that_lead_round_in_a_circle_are_noted(tmp_path: Path) -> None:
    save(tmp_path / "images/a/1.png")
    save(tmp_path / "images/b/2.png")
    (tmp_path / "images/a/x").symlink_to(tmp_path / "images/b")
    (tmp_path / "images/b/y").symlink_to(tmp_path / "images/a")
    listing = read(tmp_path)
    assert [p.name for p in listing.paths or ()] == ["1.png", "2.png", "2.png", "1.png"]
    assert "broken link" in listing.notes[0]

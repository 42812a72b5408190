"""Images that two sets share: digests of pixels, counts before training, and means without shared sets."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ood_lab
from ood_lab.config import prepare
from ood_lab.config.image_sets import image_set_config
from ood_lab.images.overlap import digests
from ood_lab.images.pixels import Decoded
from ood_lab.runs.claim import claim
from ood_lab.task.overlap import FILE, SAME, announce, overlaps
from tests.trees import plant

SMALL = [
    "method=oe", "init=random", "backbone.width=4", "trainer.max_epochs=1", "trainer.threads=1", "scorer=[msp]",
    "figure=[]",
]  # fmt: skip


def draw(folder: Path, count: int, seed: int) -> None:
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (count, 32, 32, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{number}.png")


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """Outlier images, three of which are also among the twenty-three of a far set, under other names."""
    for seed, (name, count) in enumerate({"outliers": 12, "distant": 20, "close": 5}.items()):
        draw(tmp_path / name, count, seed)
    for number in range(3):
        shutil.copy(tmp_path / f"outliers/{number}.png", tmp_path / f"distant/copy of {number}.png")
    return tmp_path


def words(sets: Path) -> list[str]:
    protocol = [f"protocol.far=[{sets}/distant,gaussian_noise]", f"protocol.near=[{sets}/close]"]
    auxiliary = ["auxiliary=image_folder", f"auxiliary.root={sets}/outliers"]
    return [*SMALL, *auxiliary, *protocol, f"paths.output={sets}/out"]


def test_equal_pixels_have_one_digest_and_one_changed_pixel_another() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (5, 3, 8, 8), dtype=np.uint8)
    pixels[3] = pixels[1]
    changed = pixels.copy()
    changed[1, 2, 7, 7] ^= 1
    first, second = (list(digests(Decoded(images), "x")) for images in (pixels, changed))
    assert first[1] == first[3]
    assert len(set(first)) == 4
    assert [a == b for a, b in zip(first, second, strict=True)] == [True, False, True, True, True]


def test_images_of_another_shape_with_the_same_bytes_are_other_images() -> None:
    pixels = np.zeros((1, 3, 4, 16), dtype=np.uint8)
    assert list(digests(Decoded(pixels), "x")) != list(digests(Decoded(pixels.reshape(1, 3, 16, 4)), "x"))


def test_shared_images_are_counted_and_told_before_training(sets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = prepare(words(sets))
    claim(experiment)
    assert overlaps(experiment) == {"distant": "3 of 23 images"}
    announce(experiment)
    assert "3 of 23 images of the OOD set distant are images of the auxiliary set" in capsys.readouterr().err
    assert (experiment.run_dir / FILE).is_file()


def test_counts_are_kept_and_taken_again_for_other_files(sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = prepare(words(sets))
    claim(experiment)
    overlaps(experiment)
    monkeypatch.setattr("ood_lab.task.overlap.digests", lambda *_: pytest.fail("counted again"))
    assert overlaps(experiment) == {"distant": "3 of 23 images"}
    monkeypatch.undo()
    shutil.copy(sets / "outliers/5.png", sets / "close/x.png")
    assert overlaps(prepare(words(sets))) == {"distant": "3 of 23 images", "close": "1 of 6 images"}


def test_a_set_that_is_both_is_shared_though_training_takes_another_part_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(image_set_config("cifar100", str(tmp_path)), "folder", [f"class{i}" for i in range(100)], per_class=1)
    protocol = ["protocol.near=[cifar100]", "protocol.check=loose"]
    experiment = prepare(
        [*SMALL, "auxiliary=cifar100", *protocol, f"paths.data={tmp_path}", f"paths.output={tmp_path}"]
    )
    claim(experiment)
    assert overlaps(experiment) == {"cifar100": SAME}
    announce(experiment)
    assert "cifar100 is the auxiliary set and an OOD set" in capsys.readouterr().err


def test_without_an_auxiliary_set_nothing_is_shared(tmp_path: Path) -> None:
    assert overlaps(prepare(["method=ce", f"paths.output={tmp_path}"])) == {}


def test_a_shared_set_is_scored_and_in_no_mean_and_the_caption_says_so(
    sets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = ood_lab.run(words(sets))
    shown = capsys.readouterr().out
    assert "shared with the auxiliary set, left out of every mean: distant (3 of 23 images)" in shown
    values = {row["ood_set"]: row for row in results.rows if row["metric"] == "auroc" and row["scorer"] == "msp"}
    assert {name: row["overlap"] for name, row in values.items()} == {
        "distant": "3 of 23 images", "close": None, "gaussian_noise": None,
    }  # fmt: skip
    line = next(line for line in shown.splitlines() if line.startswith("msp"))
    assert line.split()[1:3] == [f"{100 * values[name]['value']:.1f}" for name in ("close", "gaussian_noise")]

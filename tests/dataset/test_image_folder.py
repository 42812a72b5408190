"""Folders of one's own, as ID, OOD and auxiliary set: found by their paths, named by their last part, measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ood_lab
from ood_lab.__main__ import main
from ood_lab.config import RequestError, prepare
from ood_lab.config.from_disk import own_batch_size
from ood_lab.config.own_folder import named_path
from ood_lab.task.build import build
from ood_lab.task.normalisation import channel_statistics

OWN = ["method=ce", "dataset=image_folder", "backbone.width=4", "trainer.threads=1", "trainer.max_epochs=1"]


def draw(folder: Path, count: int, seed: int, suffix: str = "png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        pixels = np.random.default_rng([seed, i]).integers(0, 200, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.{suffix}")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A set of two classes in a folder of an unusual name."""
    root = tmp_path / "my birds, 2"
    for rank, name in enumerate(("blue tit", "c[1]")):
        draw(root / "train" / name, 12, rank)
        draw(root / "test" / name, 10, 10 + rank)
    return root


def own(root: Path, *more: str) -> list[str]:
    return [*OWN, f"dataset.root='{root}'", f"paths.output='{root.parent}/out'", *more]


def test_one_option_is_enough_and_the_disk_says_the_rest(root: Path) -> None:
    experiment = prepare(own(root))
    assert experiment.run_id.startswith("ce-my_birds_2-narrow-s0-")
    assert experiment.value("dataset.name") == "my birds, 2"
    assert experiment.value("dataset.recipe.num_classes") == 2
    assert experiment.trainer.batch_size == 8
    assert experiment.protocol.id_val == 4
    assert experiment.ood_sets == ("gaussian_noise", "fractals_test")
    assert experiment.value("protocol.near") == []
    assert experiment.choices["protocol"] == "own"


def test_another_protocol_and_other_sizes_are_taken_where_they_are_named(root: Path) -> None:
    more = ["protocol=digits", "protocol.near=[letters]", "protocol.far=[photos]", "protocol.id_val=4"]
    experiment = prepare(own(root, *more, "trainer.batch_size=6", "dataset.name=birds"))
    assert experiment.ood_sets == ("letters", "photos")
    assert experiment.run_id.startswith("ce-birds-")
    assert experiment.trainer.batch_size == 6
    with pytest.raises(RequestError, match=r"num_classes=3, but the training images in .* have 2 classes \(blue"):
        prepare(own(root, "dataset.recipe.num_classes=3"))


def test_train_and_test_may_lie_apart_and_the_path_is_no_part_of_the_run(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepare(own(root))
    monkeypatch.chdir(root)
    apart = prepare([*OWN, "dataset.train=train", f"dataset.test='{root}/test'", f"paths.output='{tmp_path}/out'"])
    assert apart.run_id == whole.run_id
    moved = root.rename(tmp_path / "elsewhere")
    assert prepare(own(moved, "dataset.name='my birds, 2'")).run_id == whole.run_id
    assert prepare(own(moved)).run_id != whole.run_id


def test_a_folder_val_is_used_for_validation(root: Path) -> None:
    draw(root / "val/c[1]", 3, 30)
    experiment = prepare(own(root))
    source = build(experiment.dataset)
    assert len(source.listing("val", experiment.protocol.id_val)) == 3
    assert len(source.listing("test", experiment.protocol.id_val)) == 20


def test_folders_are_named_by_path_in_a_protocol(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / "noise", 3, 40)
    draw(tmp_path / "other/noise/deep", 4, 41)
    draw(tmp_path / "other/noise", 2, 42)
    monkeypatch.chdir(tmp_path)
    experiment = prepare(own(root, "protocol.near=[./noise]", "protocol.far=['more:other/noise',photos]"))
    assert experiment.groups_of_sets == {"noise": "near", "more": "far", "photos": "far"}
    assert experiment.use("more").node["root"] == str(tmp_path / "other/noise")
    assert (experiment.use("noise").found(), experiment.use("more").found()) == (3, 6)
    assert len(build(experiment.use("more").node).listing("ood")) == 6


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ("['./noise','./other/noise']", "two sets are called 'noise', .*'another_name:"),
        ("['./other/test']", "would be called 'test', as parts of the ID set are"),
        ("['./nowhere']", r"the OOD set nowhere is not there\. nowhere: missing .*/nowhere"),
        ("[noise]", r"protocol: 'noise' is no data set\. .*A folder of images is written with a slash: \./noise"),
        ("['./empty']", "no image below .*/empty"),
        ("['x:./my birds, 2']", "and the ID set my birds, 2 .* share images"),
        ("['./my birds, 2/test/c[1]']", "and the ID set my birds, 2 .* share images"),
        ("['./other/decomposed']", "decomposed shares 1 classes with my birds, 2"),
    ],
)
def test_a_wrong_folder_in_a_protocol_is_refused(
    sets: str, message: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "noise", 1, 40)
    draw(tmp_path / "other/noise", 1, 40)
    draw(tmp_path / "other/test", 1, 40)
    (tmp_path / "empty/none").mkdir(parents=True)
    draw(root / "train/\u00e9", 9, 3)  # a class that the test split lacks
    draw(tmp_path / "other/decomposed/e\u0301", 1, 40)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=message):
        prepare(own(root, f"protocol.far={sets}"))


def test_an_entry_is_split_into_name_and_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:b/c").mkdir(parents=True)
    assert named_path("./x y") == ("x y", f"{tmp_path}/x y")
    assert named_path("n:/data/x") == ("n", "/data/x")
    assert named_path("a:b/c") == ("c", f"{tmp_path}/a:b/c")
    assert named_path("..") == (tmp_path.parent.name, f"{tmp_path}/..")
    assert named_path("~/z") == ("z", str(Path.home() / "z"))


def test_a_folder_is_an_auxiliary_set(root: Path, tmp_path: Path) -> None:
    draw(tmp_path / "outliers", 9, 50)
    command = ["method=oe", *own(root)[1:], "auxiliary=image_folder", f"auxiliary.root={tmp_path}/outliers"]
    experiment = prepare(command)
    assert experiment.value("auxiliary.name") == "outliers"
    assert experiment.choices["protocol"] == "own"
    assert len(build(experiment.auxiliary).listing("auxiliary")) == 9


def test_the_default_batch_gives_ten_steps_an_epoch() -> None:
    assert [own_batch_size(n) for n in (10, 79, 80, 160, 640, 1279, 1280, 50_000)] == [8, 8, 8, 16, 64, 64, 128, 128]


def test_mean_and_deviation_are_those_of_all_training_pixels(root: Path) -> None:
    pixels = torch.stack([
        torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) for path in sorted(root.rglob("train/*/*.png"))
    ])  # fmt: skip
    plain = pixels.double().div(255).movedim(1, 0).flatten(1)

    class Whole:
        def __len__(self) -> int:
            return len(pixels)

        def chunks(self, size: int) -> Any:
            return iter(pixels.split(7))

    mean, std = channel_statistics(Whole())
    assert mean == pytest.approx(plain.mean(1).tolist(), abs=1e-6)
    assert std == pytest.approx(plain.std(1, correction=0).tolist(), abs=1e-6)
    pixels[:, 1] = 7
    assert channel_statistics(Whole())[1][1] == 1.0


def test_a_run_on_own_images_measures_once_and_serves_every_later_look(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = ood_lab.run(own(root, "scorer=[msp]", "figure=[roc]"))
    stored = json.loads((results.run_dir / "normalisation.json").read_text())
    assert stored["mean"][0] == pytest.approx(99.5 / 255, abs=0.01)
    shown = capsys.readouterr().out
    assert "protocol own, percent. near: none; far: gaussian_noise, fractals_test" in shown
    assert "4 ID test images kept for validation" in shown
    assert f"normalised by ({' '.join(f'{m:.4g}' for m in stored['mean'])})" in shown
    assert set(results.frame()["dataset"]) == {"my_birds_2"}
    detector = ood_lab.load_detector(results.run_dir, "msp")
    assert detector.normalise.mean.flatten().tolist() == pytest.approx(stored["mean"])
    for task in ("train", "evaluate", "report"):
        assert main([*own(root, "scorer=[msp,knn]", "figure=[roc]"), f"task={task}"]) == 0
        assert "normalised by (0.3" in capsys.readouterr().out


def test_what_a_run_depends_on_sees_the_same_images_and_sets(root: Path, tmp_path: Path) -> None:
    draw(tmp_path / "a, b", 3, 40)
    far = f"protocol.far=['{tmp_path}/a, b']"
    (need,) = prepare(["method=hamos", *own(root, far)[1:]]).prerequisites.values()
    plain = prepare([word for word in own(root, far) if word != "trainer.max_epochs=1"])
    assert need.run_id == plain.run_id
    again = prepare(need.overrides)
    assert (again.run_id, again.ood_sets) == (need.run_id, ("a, b",))
    assert again.use("a, b").node["root"] == f"{tmp_path}/a, b"


def test_outliers_that_are_also_tested_are_refused_and_equal_names_are_told_apart(root: Path, tmp_path: Path) -> None:
    draw(tmp_path / "insects", 9, 50)
    draw(tmp_path / "other/insects", 4, 51)
    command = ["method=oe", *own(root)[1:], "auxiliary=image_folder", f"auxiliary.root={tmp_path}/insects"]
    with pytest.raises(RequestError, match=r"x \(.*\) and the auxiliary set insects \(.*\) share images"):
        prepare([*command, f"protocol.far=['x:{tmp_path}/insects']"])
    experiment = prepare([*command, f"protocol.far=[{tmp_path}/other/insects]"])
    assert experiment.use("insects").role == "far"
    assert experiment.use("auxiliary").node["root"] == f"{tmp_path}/insects"
    assert experiment.use("insects").found() == 4


def test_a_home_folder_and_a_colon_go_through_a_needed_run(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ood_lab.config.quoting import as_typed

    monkeypatch.setenv("HOME", str(tmp_path))
    draw(tmp_path / "k:v", 3, 50)
    draw(tmp_path / "~t", 3, 51)
    words = ["method=hamos", *own(root)[1:], as_typed("protocol.far=[~/k:v,~/~t]")]
    experiment = prepare(words)
    assert experiment.ood_sets == ("k:v", "~t")
    (need,) = experiment.prerequisites.values()
    assert prepare(need.overrides).ood_sets == ("k:v", "~t")


def test_lists_in_a_file_of_ones_own_are_trained_on(root: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        lines = [f"{path.relative_to(root)} {int('c[' in str(path))}" for path in sorted((root / split).rglob("*.png"))]
        (root / f"{split}.txt").write_text("\n".join(lines))
    (tmp_path / "lab/dataset").mkdir(parents=True)
    (tmp_path / "lab/dataset/listed.yaml").write_text(
        "defaults: [image_folder, _self_]\nname: listed\nlayouts:\n  lists:\n"
        "    train: {list: train.txt, images: .}\n    test: {list: test.txt, images: .}\n"
    )
    experiment = prepare(
        [OWN[0], "dataset=listed", f"dataset.root='{root}'", f"paths.output={tmp_path}/out"], tmp_path / "lab"
    )
    assert experiment.use("id").layout == "lists"
    assert experiment.value("dataset.recipe.num_classes") == 2
    assert experiment.protocol.id_val == 4

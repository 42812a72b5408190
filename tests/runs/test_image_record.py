"""Images that changed are seen: training images stop the command, test images are scored again and said so."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ood_lab
from ood_lab.__main__ import main
from ood_lab.config import RequestError, prepare
from ood_lab.files.fingerprint import fingerprint
from ood_lab.runs import claim
from ood_lab.runs.image_record import ImageRecord
from ood_lab.runs.run_images import RunImages
from ood_lab.task import evaluate, features

CLASSES = ("a", "b")


def draw(folder: Path, count: int, seed: int, suffix: str = "png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        pixels = np.random.default_rng([seed, i]).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.{suffix}")


SET = """
defaults: [stored, override /augmentation@_global_.augmentation: crop, _self_]
name: mine
layouts: {folder: {train: {folder: mine/train}, test: {folder: mine/test}}}
recipe: {num_classes: null, test_images: null, benchmark: mine, serve: resident, resize: 32, side: 32,
         epochs: {pretrain: 1, finetune: 1}, projection_dim: 16, bank_size: 8, neighbor: 2}
"""
NOISE = "defaults: [stored, _self_]\nname: noise\nlayouts: {folder: {test: {folder: noise}}}\n"


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A small run on images of its own."""
    for rank, name in enumerate(CLASSES):
        draw(tmp_path / "data/mine/train" / name, 12, rank)
        draw(tmp_path / "data/mine/test" / name, 10, 10 + rank)
    draw(tmp_path / "data/noise", 8, 20, "bmp")
    for name, text in (("mine", SET), ("noise", NOISE)):
        (tmp_path / "conf/dataset").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"conf/dataset/{name}.yaml").write_text(text)
    return [
        "method=ce", "dataset=mine", "protocol.near=[]", "protocol.far=[noise]", "scorer=[msp]", "figure=[roc]",
        "backbone.width=4", "trainer.threads=1", f"paths.data={tmp_path}/data", f"paths.output={tmp_path}/out",
        f"--config-dir={tmp_path}/conf",
    ]  # fmt: skip


def scored(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(command) == 0
    return capsys.readouterr().out


def test_nothing_is_computed_as_long_as_nothing_changed(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = scored(command, capsys)
    assert "4 ID test images kept for validation" in first
    monkeypatch.setattr(evaluate, "measure", lambda _: pytest.fail("measured again"))
    again = scored(command, capsys)
    assert again.rpartition("report:")[2] == first.rpartition("report:")[2]


@pytest.mark.parametrize("change", ["added", "replaced", "removed", "other names"])
def test_changed_training_images_stop_the_command_with_two_remedies(
    change: str, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored(command, capsys)
    train = tmp_path / "data/mine/train/a"
    if change == "added":
        shutil.copy(train / "0.png", train / "99.png")
    elif change == "replaced":
        data = (train / "0.png").read_bytes()
        (train / "0.png").write_bytes(data[:-30] + bytes(reversed(data[-30:-12])) + data[-12:])
    elif change == "removed":
        (train / "0.png").unlink()
    else:
        (train / "0.png").rename(train / "zero.png")
    assert main(command) == 2
    message = capsys.readouterr().err
    assert "began with other train images of mine (24 files" in message
    assert "move " in message
    assert "dataset.name=" in message
    assert "put the images back" in message


def test_validation_images_are_trained_on_where_they_choose_the_weights(command: list[str], tmp_path: Path) -> None:
    """They are taken from the test images."""
    conf = tmp_path / "conf"
    last, chosen = (prepare([*command[:-1], *more], conf) for more in ([], ["trainer.select=best_val_accuracy"]))
    for experiment in (last, chosen):
        claim.enter_training_images(experiment)
    assert RunImages(last).trained_on == ["train"]
    assert RunImages(chosen).trained_on == ["train", "test"]
    RunImages(chosen).check_training()
    draw(tmp_path / "data/mine/test/a", 1, 30)
    RunImages(last).check_training()
    with pytest.raises(RequestError, match=r"began with other test images of mine .*dataset\.name="):
        RunImages(chosen).check_training()


def test_copied_and_touched_images_are_the_same(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(command, capsys)
    shutil.copytree(tmp_path / "data", tmp_path / "copy", copy_function=shutil.copyfile)
    for path in (tmp_path / "data").rglob("*.png"):
        os.utime(path)
    monkeypatch.setattr(features, "extract", lambda *_: pytest.fail("extracted again"))
    assert "changed since" not in scored(command, capsys)
    moved = [word.replace(f"paths.data={tmp_path}/data", f"paths.data={tmp_path}/copy") for word in command]
    assert "changed since" not in scored(moved, capsys)


def test_replaced_ood_pictures_of_the_same_names_and_sizes_are_scored_again(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = ood_lab.run(command[:-1], config_dir=tmp_path / "conf").frame()
    kept = tmp_path / "kept"
    shutil.copytree(tmp_path / "data/noise", kept)
    for i, path in enumerate(sorted((tmp_path / "data/mine/test").rglob("*.png"))[:8]):
        Image.open(path).save(tmp_path / f"data/noise/{i}.bmp")
    shown = scored(command, capsys)
    assert "images changed since, and scored again: noise (8 files, 8 at first)" in shown
    after = ood_lab.run(command[:-1], config_dir=tmp_path / "conf").frame()
    auroc = [float(f[(f["metric"] == "auroc")]["value"].iloc[0]) for f in (before, after)]
    assert auroc[0] != auroc[1]
    shutil.copytree(kept, tmp_path / "data/noise", dirs_exist_ok=True)
    back = ood_lab.run(command[:-1], config_dir=tmp_path / "conf").frame()
    assert float(back[back["metric"] == "auroc"]["value"].iloc[0]) == auroc[0]
    capsys.readouterr()
    assert "changed since" not in scored(command, capsys), "the pictures are those of the beginning"


def test_added_test_images_are_scored_again(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored([*command, "protocol.id_val=4"], capsys)
    shutil.copy(tmp_path / "data/noise/0.bmp", tmp_path / "data/noise/9.bmp")
    shutil.copy(tmp_path / "data/mine/test/a/0.png", tmp_path / "data/mine/test/a/99.png")
    shown = scored([*command, "protocol.id_val=4"], capsys)
    assert "noise (9 files, 8 at first)" in shown
    assert "test (21 files, 20 at first)" in shown


def test_a_run_from_before_there_were_records_keeps_its_scores(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = scored(command, capsys)
    next((tmp_path / "out").glob("*/images.json")).unlink()
    assert main(command) == 2
    assert "images.json is not there any more: nothing tells" in capsys.readouterr().err
    identity = next((tmp_path / "out").glob("*/identity.json"))
    identity.write_text(identity.read_text().replace('"images": true,', ""))
    monkeypatch.setattr(features, "extract", lambda *_: pytest.fail("extracted again"))
    monkeypatch.setattr(evaluate, "score_all", lambda *_: pytest.fail("scored again"))
    assert scored(command, capsys).rpartition("report:")[2] == first.rpartition("report:")[2]
    monkeypatch.setattr(evaluate, "measure", lambda _: pytest.fail("measured again"))
    scored(command, capsys)


def test_a_record_that_something_else_changed_is_named(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "images.json").write_text('{"test": [{"names": 1}]}')
    with pytest.raises(RequestError, match=r"images\.json was changed by something else"):
        ImageRecord(tmp_path, tmp_path)


def test_without_a_digest_other_times_are_another_state(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"one")
    record = ImageRecord(tmp_path, tmp_path / "cache")
    first = record.met("x", [file], fingerprint([file]))
    file.write_bytes(b"two")
    second = record.met("x", [file], fingerprint([file]))
    assert (first.edition, len(second.edition)) == ("", 12)
    assert ImageRecord(tmp_path, tmp_path / "cache").states == record.states


def test_a_report_says_that_its_numbers_are_not_of_todays_images(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored(command, capsys)
    draw(tmp_path / "data/noise", 8, 21, "bmp")
    shown = scored([*command, "task=report"], capsys)
    assert "NOT of today's images, which have changed: noise; task=evaluate scores them again" in shown
    assert "NOT of" not in scored([*command, "task=evaluate"], capsys)


def test_a_picture_replaced_under_its_old_time_is_decoded_again(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored(command, capsys)
    before = next((tmp_path / "out").glob("*/results.jsonl")).read_text()
    times = {path: path.stat() for path in (tmp_path / "data/noise").iterdir()}
    draw(tmp_path / "data/noise", 8, 21, "bmp")
    for path, stat in times.items():
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    scored(command, capsys)
    assert next((tmp_path / "out").glob("*/results.jsonl")).read_text() != before


def test_an_unfinished_run_says_why_it_cannot_tell_a_copy(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "measure", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        patch.setattr(claim, "READ_FIRST_GB", 0)
        assert main(command) == 130
    for path in (tmp_path / "data/mine/train").rglob("*.png"):
        os.utime(path)
    capsys.readouterr()
    assert main(command) == 2
    assert "whose times differ; the run ended before they were read" in capsys.readouterr().err


def test_a_run_that_was_killed_goes_on_with_a_copy_of_its_images(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "measure", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(command) == 130
    for path in (tmp_path / "data").rglob("*.*"):
        path.chmod(0o600)
        os.utime(path)
    assert main(command) == 0


def test_validation_images_of_a_search_are_looked_at(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(tmp_path / "check", 6, 70)
    tuned = [
        *(word for word in command if word != "scorer=[msp]"), "scorer=[knn]", "tuning=openood",
        f"protocol.validation=[{tmp_path}/check]", "tuning.grids={knn: {k: [1, 5]}}",
    ]  # fmt: skip
    scored(tuned, capsys)
    search = next((tmp_path / "out").glob("*/tuning/knn-*.json"))
    before = search.read_text()
    scored(tuned, capsys)
    assert search.read_text() == before
    draw(tmp_path / "check", 7, 71)
    scored(tuned, capsys)
    assert search.read_text() != before


def test_a_grid_over_images_of_one_name_is_refused(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(tmp_path / "one/noise", 3, 1)
    draw(tmp_path / "two/noise", 3, 2)
    plain = [word for word in command if not word.startswith("protocol.far")]
    assert main([*plain, "-m", f"protocol.far=[{tmp_path}/one/noise],[{tmp_path}/two/noise]"]) == 2
    message = capsys.readouterr().err
    assert "two combinations are the same run" in message
    assert "'name:path'" in message
    assert main([*plain, "-m", f"protocol.far=['a:{tmp_path}/one/noise'],['b:{tmp_path}/two/noise']"]) == 0


def test_own_validation_images_are_named_in_the_caption_and_looked_at(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(tmp_path / "data/mine/val/a", 5, 80)
    node = SET.replace("test: {folder: mine/test}", "val: {folder: mine/val}, test: {folder: mine/test}")
    (tmp_path / "conf/dataset/mine.yaml").write_text(node)
    assert "\n5 ID validation images; OOD sets whole" in scored(command, capsys)
    draw(tmp_path / "data/mine/val/a", 6, 81)
    shown = scored(command, capsys)
    assert "6 ID validation images" in shown
    assert "scored again: val (6 files, 5 at first)" in shown
    whole = scored([*command, "protocol.id_val=0"], capsys)
    assert "whole ID test set" in whole
    assert "changed since" not in whole, "another protocol is no other image"
    draw(tmp_path / "data/mine/val/a", 6, 82)
    assert "test (26 files, 26 at first)" in scored([*command, "protocol.id_val=0"], capsys)


def test_a_report_without_numbers_of_todays_protocol_says_so(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored(command, capsys)
    draw(tmp_path / "data/mine/test/a", 16, 83)
    draw(tmp_path / "data/mine/test/b", 16, 84)
    assert main([*command, "task=report"]) == 2
    assert "but none for these detectors, images and protocol options" in capsys.readouterr().err


def test_long_names_and_names_like_markup_are_stored_and_shown(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long, red = "n" * 240, "[bold]x"
    draw(tmp_path / long, 3, 90)
    draw(tmp_path / red, 3, 91)
    plain = [word for word in command if not word.startswith("protocol.far")]
    shown = scored([*plain, f"protocol.far=['{tmp_path}/{long}','{tmp_path}/{red}']"], capsys)
    assert f"far: {long}, {red}" in shown


def test_a_checkpoint_that_does_not_fit_leaves_no_folder(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "junk.pt").write_text("no weights")
    assert main([*command, f"init.checkpoint={tmp_path}/junk.pt"]) == 2
    assert "junk.pt is no checkpoint of tensors" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("ce-*"))

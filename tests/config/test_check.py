"""Wrong requests: each is refused with one message that names the value and what was expected or is nearest."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ood_lab.config import RequestError, check, prepare
from ood_lab.config.check import parse
from ood_lab.config.suggest import nearest
from tests.cases import each


@pytest.fixture(autouse=True)
def _places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OOD_LAB_DATA", "no-such-folder")  # one name, so that composed image sets are remembered
    monkeypatch.setenv("OOD_LAB_OUTPUT", str(tmp_path / "outputs"))


def refusal(*overrides: str) -> str:
    with pytest.raises(RequestError) as caught:
        prepare(overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


@each(
    ("override", "words"),
    [
        ("method=hamoss", ["method=hamoss", "'hamos'"]),
        ("backbone=resnet81", ["backbone=resnet81", "'resnet18'"]),
        ("scorer=[msp,knnn]", ["knnn", "'knn'"]),
        ("metod=hamos", ["metod", "'method'"]),
        ("sede=1", ["sede", "'seed'"]),
        ("backbone.widht=8", ["backbone.widht", "backbone=narrow", "'width'"]),
        ("trainer.max_epoch=3", ["trainer.max_epoch", "'max_epochs'"]),
        ("method.optimizer.l=0.1", ["method.optimizer.l", "'lr'"]),
        ("scorer.knn.kk=3", ["scorer.knn.kk", "'k'"]),
        ("protocol.near=[letter]", ["'letter'", "'letters'"]),
    ],
)
def test_a_misspelt_name_is_answered_with_the_nearest_one(override: str, words: list[str]) -> None:
    message = refusal(override)
    assert [w for w in words if w not in message] == []
    assert "Did you mean" in message


def test_figures_of_runs_or_settings_that_are_not_there_are_refused_before_any_training(tmp_path: Path) -> None:
    message = refusal("method=ce", f"figure.feature_map.beside=[{tmp_path}]")
    assert f"figure.feature_map.beside={tmp_path}: not the folder of a finished run" in message
    (tmp_path / "features").mkdir()
    (tmp_path / "config.yaml").write_text("dataset: {name: cifar10}")
    assert "not the folder of a finished run" in refusal("method=ce", f"figure.feature_map.beside=[{tmp_path}]")
    (tmp_path / "features" / "test-0.safetensors").touch()
    message = refusal("method=ce", f"figure.feature_map.beside=[{tmp_path}]")
    assert "a run on dataset cifar10, this one is on digits" in message
    (tmp_path / "config.yaml").write_text("dataset: {name: digits}")
    prepare(["method=ce", f"figure.feature_map.beside=[{tmp_path}]"])
    steps = ["figure=[rounds]", "figure.rounds.leapfrog_steps=[1,2]"]
    assert "synthesizer=random_walk has no leapfrog_steps" in refusal("method=hamos", "synthesizer=random_walk", *steps)
    assert "synthesizer=null has none; use hmc" in refusal("method=ce", "figure=[rounds]")
    assert "synthesizer=gaussian_tail has none" in refusal("method=vos", "figure=[rounds]")
    prepare(["method=hamos", *steps])


def test_a_name_near_to_nothing_is_answered_with_the_choices() -> None:
    assert "Choose from: anchored, aoe, ares, bood, ce, cider, csi" in refusal("method=zzzz")


def test_nearest_says_nothing_where_there_is_nothing() -> None:
    assert nearest("x", []) == ""


@each(
    ("override", "expected"),
    [
        ("backbone.width=-1", "a whole number above 0"),
        ("backbone.width=8.5", "a whole number above 0"),
        ("backbone.depths=[1,1,0,1]", "a list of four whole numbers above 0"),
        ("backbone.depths=[1,1,1]", "a list of four whole numbers above 0"),
        ("protocol.mean=[0.5]", "three numbers from 0 to 1, one a channel"),
        ("protocol.mean=[0.5,0.5,0.5,0.5]", "three numbers from 0 to 1"),
        ("protocol.std=[58,57,57]", "three numbers above 0, at most 1"),
        ("protocol.std=[0,1,1]", "three numbers above 0, at most 1"),
        ("protocol.transform=squish", "one of short_side, center_crop"),
        ("backbone.block=basik", "one of basic, bottleneck"),
        ("trainer.max_epochs=-1", "a whole number, 0 or above"),
        ("trainer.batch_size=many", "a whole number above 0"),
        ("trainer.precision=8", "one of 32-true, bf16-mixed, 16-mixed"),
        ("trainer.checkpoint_minutes=0", "a number above 0"),
        ("seed=-1", "a whole number, 0 or above"),
        ("seed=true", "a whole number, 0 or above"),
        ("outlier_loss.weight=nan", "a number, 0 or above"),
        ("outlier_loss.start=1.5", "a whole number of epochs, 0 or above, or a share of the run between 0 and 1"),
        ("method.optimizer.momentum=1.5", "a number from 0 to 1"),
        ("method.optimizer=3", "a mapping with _target_"),
        ("augmentation.flip=2", "a number from 0 to 1"),
        ("scorer.knn.space=logits", "one of method, penultimate, projection"),
        ("protocol.fpr_rule=last", "one of first, nearest"),
        ("protocol.near=letters", "a list, each entry a string"),
        ("paths.output=3", "a string"),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_named_with_what_was_expected(override: str, expected: str) -> None:
    message = refusal(override)
    assert message.startswith(override.partition("=")[0] + "=")
    assert f"expected {expected}" in message


@each("override", ["backbone.depths=[]", "outlier_loss.weight=inf", "method.optimizer.lr=inf"])
def test_a_value_that_no_training_can_use_is_refused(override: str) -> None:
    assert override.partition("=")[0] in refusal(override)


@each("value", ["abc", "0", "-3"])
def test_the_number_of_classes_must_be_a_positive_whole_number(value: str) -> None:
    assert "num_classes" in refusal(f"dataset.recipe.num_classes={value}")


def test_an_interpolated_value_is_checked_where_it_is_used() -> None:
    assert "bank_size=-3: expected a whole number above 0" in refusal("dataset.recipe.bank_size=-3")


def test_an_added_key_is_refused_even_with_hydras_plus_signs() -> None:
    assert "foo" in refusal("++backbone.foo=1")
    assert "foo" in refusal("+foo=1")


def test_a_deleted_key_is_missed() -> None:
    assert "backbone lacks width" in refusal("~backbone.width")


@each("text", ["hamos", "--verbose", ""])
def test_a_word_that_is_no_override_is_named(text: str) -> None:
    with pytest.raises(RequestError, match="expected key=value"):
        parse([text])


def test_broken_override_grammar_is_named() -> None:
    assert "backbone.depths=[1," in refusal("backbone.depths=[1,")


@each("override", ["method=null", "backbone=null", "scorer=null", "augmentation=null", "head=null", "method="])
def test_a_group_without_a_choice_is_a_wrong_request(override: str) -> None:
    assert override.partition("=")[0] in refusal(override)


def test_a_classifier_refuses_a_synthesizer() -> None:
    message = refusal("method=ce", "synthesizer=hmc")
    assert "method=ce takes no synthesizer" in message
    assert "synthesizer=hmc" in message


def test_a_set_without_a_recipe_cannot_be_trained_on() -> None:
    message = refusal("dataset=mnist")
    assert "dataset=mnist has no training recipe" in message
    assert "digits, cifar10 or cifar100" in message


def test_missing_images_are_named_with_the_remedy(tmp_path: Path) -> None:
    message = refusal("dataset=cifar10", f"paths.data={tmp_path}")
    assert f"{tmp_path}/cifar-10-batches-py/data_batch_1" in message
    assert "cifar-10-python.tar.gz" in message
    assert f"paths.data={tmp_path}" in message
    assert "OOD_LAB_DATA" in message


def test_of_a_partly_present_set_only_what_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "cifar10" / "train" / "cat").mkdir(parents=True)
    message = refusal("dataset=cifar10", f"paths.data={tmp_path}")
    assert f"{tmp_path}/cifar10/test" in message
    assert f"{tmp_path}/cifar10/train" not in message


def test_a_missing_ood_set_is_named_and_can_be_skipped(tmp_path: Path) -> None:
    here = [f"paths.data={tmp_path}", "protocol.far=[textures,photos]"]
    message = refusal(*here)
    assert f"{tmp_path}/textures" in message
    assert "protocol.missing=skip" in message
    assert prepare([*here, "protocol.missing=skip"]).ood_sets == ("letters", "photos")


@each("override", ["trainer=gpu", "trainer.accelerator=gpu"])
def test_a_gpu_that_is_not_there_is_said_before_anything_starts(override: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "cuda_devices", lambda: 0)
    assert re.search("no CUDA device.*trainer=cpu", refusal(override))


def test_a_gpu_that_is_there_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "cuda_devices", lambda: 1)
    assert prepare(["trainer=gpu"]).trainer.accelerator == "gpu"


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert f"init.checkpoint={tmp_path}/no.ckpt: no such file" in refusal(f"init.checkpoint={tmp_path}/no.ckpt")


def test_an_output_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "not a folder one can write to" in refusal(f"paths.output={tmp_path}/file/outputs")


def test_what_the_needed_run_is_told_is_checked_too() -> None:
    assert "trainer.max_epochs=-1" in refusal("init.overrides=['trainer.max_epochs=-1']")
    assert "method=nothing" in refusal("init.method=nothing")


def test_a_refused_request_leaves_no_trace(tmp_path: Path) -> None:
    refusal("backbone.width=-1")
    assert list(tmp_path.iterdir()) == []


def test_a_depth_that_no_wide_resnet_has_is_refused() -> None:
    assert "backbone.depth=41: expected 6 n + 4" in refusal("backbone=wrn40_2", "backbone.depth=41")


def test_the_transform_of_a_single_set_is_checked() -> None:
    assert "protocol.transforms.photos='squish': expected one of" in refusal("protocol.transforms.photos=squish")
    assert (
        prepare(["protocol.transforms.photos=squash"])
        .convention("photos")
        .startswith("id_val=150 transform=squash subset=none")
    )


@each(
    ("override", "message"),
    [
        ("protocol.mean=[125,125,125]", "protocol.mean=[125, 125, 125]: expected three numbers from 0 to 1, one a "
         "channel (divide by 255 what is stated on 0..255) or null"),
        ("init.key=ema", "init.key=ema names a network in a file; give init.checkpoint=FILE, too"),
        ("init.weights={url: x}", "init.weights lacks file"),
        ("init.weights={file: x, sha: y}", "unknown option 'init.weights.sha'. Did you mean 'sha256'?"),
        ("seed=0,1", "'seed=0,1' names several values; add -m to run them all (from Python: ood_lab.run([...], "
         "multirun=True))"),
    ],
)  # fmt: skip
def test_the_whole_message(override: str, message: str) -> None:
    assert refusal(override) == message


def test_a_report_may_have_no_picture() -> None:
    assert prepare(["figure=[]"]).run_id == prepare([]).run_id

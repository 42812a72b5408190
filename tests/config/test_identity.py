"""The run id: the same weights have the same name, other weights another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ood_lab.config import check, prepare
from ood_lab.config.identity import weight_values
from tests.cases import each


@pytest.fixture(autouse=True)
def _places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OOD_LAB_DATA", "no-such-folder")  # one name, so that composed image sets are remembered
    monkeypatch.setenv("OOD_LAB_OUTPUT", str(tmp_path / "outputs"))


def run_id(*overrides: str) -> str:
    return prepare(overrides).run_id


@each(
    ("overrides", "frozen"),
    [
        ([], "hamos-digits-narrow-s0-e1fe720f"),
        (["method=ce"], "ce-digits-narrow-s0-de90e708"),
        (["method=cider"], "cider-digits-narrow-s0-2c007fd0"),
        (["method=hamos_released"], "hamos_released-digits-narrow-s0-c580fd74"),
        (["seed=1"], "hamos-digits-narrow-s1-02027785"),
        (["synthesizer=midpoints"], "ce_cider_midpoints_equidistant-digits-narrow-s0-e0dfce8d"),
        (
            ["synthesizer=random_sphere", "outlier_loss.weight=0.2"],
            "ce_cider_random_sphere_equidistant-digits-narrow-s0-f0997892",
        ),
        (["method=ce", "backbone=resnet18", "trainer.max_epochs=3"], "ce-digits-resnet18-s0-3bf1c086"),
        (["backbone.width=8"], "hamos-digits-narrow-s0-8a2a674e"),
        (["init.overrides=['trainer.max_epochs=20']"], "hamos-digits-narrow-s0-1dac0216"),
    ],
)
def test_ids_of_released_configurations_stay(overrides: list[str], frozen: str) -> None:
    assert run_id(*overrides) == frozen


PLACES = ["paths.data=elsewhere", "paths.output=elsewhere", "dataset.licence=other", "dataset.how_to_get=other"]
SCORING = ["scorer=[msp,knn]", "scorer.knn.k=10", "protocol.far=[photos]", "protocol.fpr_rule=nearest", "task=evaluate"]
MACHINE = [
    "logger=wandb",
    "logger.project=other",
    "trainer.threads=1",
    "trainer.eval_batch_size=10",
    "trainer.log_every_n_steps=1",
    "trainer.checkpoint_minutes=1",
]


@each("overrides", [PLACES, SCORING, MACHINE])
def test_what_shapes_no_weights_changes_no_id(
    overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a relative paths.output is made where one stands
    plain, changed = prepare([]), prepare(overrides)
    assert changed.run_id == plain.run_id
    assert changed.prerequisite_ids == plain.prerequisite_ids


@each(
    ("method", "override"),
    [
        ("ce", "seed=1"),
        ("ce", "trainer.max_epochs=3"),
        ("ce", "trainer.batch_size=64"),
        ("ce", "trainer.precision=bf16-mixed"),
        ("ce", "method.optimizer.lr=0.02"),
        ("ce", "augmentation.padding=2"),
        ("ce", "augmentation=simclr"),
        ("ce", "backbone.width=8"),
        ("ce", "backbone=resnet18"),
        ("ce", "dataset.mean=[0.1,0.2,0.3]"),
        ("hamos", "outlier_loss.weight=0.2"),
        ("hamos", "outlier_loss=logistic"),
        ("hamos", "synthesizer.rounds=3"),
        ("hamos", "synthesizer=midpoints"),
        ("hamos", "dataset.recipe.bank_size=100"),
        ("hamos", "init=random"),
        ("hamos", "init.method=cider"),
        ("hamos", "init.overrides=['method.optimizer.lr=0.05']"),
    ],
)
def test_what_shapes_the_weights_changes_the_id(method: str, override: str) -> None:
    assert run_id(f"method={method}", override) != run_id(f"method={method}")


@each("override", ["protocol.id_val=100", "protocol.transform=squash"])
def test_validation_images_count_where_they_choose_the_weights(override: str) -> None:
    chosen, name = ["method=ce", "trainer.select=best_val_accuracy"], override.partition("=")[0]
    assert run_id("method=ce", override) == run_id("method=ce"), "the last weights are the same"
    assert run_id(*chosen, override) != run_id(*chosen)
    assert run_id(*chosen, "protocol.fpr_rule=nearest") == run_id(*chosen)
    assert name not in weight_values(prepare(["method=ce", override]))
    values = [weight_values(prepare(words))[name] for words in (chosen, [*chosen, override])]
    assert str(values[1]) == override.partition("=")[2] != str(values[0])


def test_a_projector_that_is_taken_over_counts() -> None:
    taken = ["method=cider", "init=csi_contrast"]
    left = [*taken, "init.projector=false"]
    assert run_id(*taken) != run_id(*left)
    assert weight_values(prepare(taken))["init.projector"] is True
    assert "init.projector" not in weight_values(prepare(left))


def test_ids_of_different_runs_differ() -> None:
    runs = [
        [],
        ["method=ce"],
        ["method=cider"],
        ["seed=1"],
        ["outlier_loss.weight=0.2"],
        ["id_loss.cider.w_compactness=0.2"],
    ]
    assert len({run_id(*o) for o in runs}) == len(runs)


VALUES = ["outlier_loss.weight=1e-1", "backbone.width=16", "trainer.max_epochs=8", "seed=0", "synthesizer.rounds=5"]
CHOICES = ["augmentation=crop", "synthesizer=hmc", "init=pretrained", "trainer=cpu", "method=hamos", "backbone=narrow"]


@each("overrides", [["outlier_loss.weight=0.1"], VALUES, CHOICES])
def test_a_default_written_out_keeps_the_id(overrides: list[str]) -> None:
    assert run_id(*overrides) == run_id()


def test_the_order_of_overrides_does_not_matter() -> None:
    assert run_id("seed=2", "backbone.width=8", "method=cider") == run_id("method=cider", "backbone.width=8", "seed=2")


def test_the_precision_of_the_gpu_trainer_counts_like_one_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "cuda_devices", lambda: 1)
    assert run_id("method=ce", "trainer=gpu", "trainer.precision=32-true") == run_id("method=ce")
    assert run_id("method=ce", "trainer=gpu") == run_id("method=ce", "trainer.precision=bf16-mixed")
    assert run_id("method=ce", "trainer=gpu") != run_id("method=ce")


def test_a_classifier_pretrained_on_another_trainer_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "cuda_devices", lambda: 1)
    plain, gpu = prepare([]), prepare(["trainer=gpu", "trainer.precision=32-true"])
    assert gpu.prerequisite_ids != plain.prerequisite_ids, "the prerequisite has the trainer's own precision"
    assert gpu.run_id != plain.run_id


def test_a_checkpoint_counts_by_its_content_and_not_by_its_place(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.ckpt", "b.ckpt", "c.ckpt")]
    for path, content in zip(paths, (b"one", b"one", b"two"), strict=True):
        path.write_bytes(content)
    a, b, c = (run_id(f"init.checkpoint={path}") for path in paths)
    assert a == b
    assert len({a, c, run_id(), run_id("init=random")}) == 4


def test_the_id_names_method_data_network_and_seed() -> None:
    assert re.fullmatch(r"cider-digits-resnet18-s7-[0-9a-f]{8}", run_id("method=cider", "backbone=resnet18", "seed=7"))


def test_another_process_environment_gives_the_same_id(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = run_id()
    monkeypatch.setenv("OOD_LAB_DATA", str(tmp_path / "other"))
    monkeypatch.chdir(tmp_path)
    assert run_id() == before


def test_the_values_that_affect_the_weights_hold_values_and_no_places() -> None:
    values = weight_values(prepare([]))
    assert values["outlier_loss.weight"] == 0.1
    assert values["trainer.max_epochs"] == 8
    assert values["head.projection_dim"] == 128
    places = ("dataset.root", "dataset.layouts", "dataset.how_to_get", "dataset.licence", "paths", "scorer", "protocol")
    assert [k for k in values if k.startswith(places)] == []

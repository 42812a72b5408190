"""At full scale every row of GReg's tables has the settings of the paper, and of its code where the paper is silent.

What differs on purpose, and what neither says, is in docs/FIDELITY.md.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.cases import each
from tests.full_scale import composed, rows_of

TABLES = [f"greg_t{n}" for n in range(1, 7)]
BACKBONES = {"resnet18", "wrn40_2", "densenet100", "densenet121"}
CIFAR = ["textures", "svhn", "places365", "lsun_c", "lsun_r", "isun"]
SETS = {"cifar10": CIFAR, "cifar100": CIFAR, "imagenet10": ["inaturalist", "sun", "places", "textures"]}
POSTHOC = ("MSP", "ODIN", "Energy Score", "ReAct", "Dice", "DICE", "LINe", "Clean")
GREG = {"outlier_loss.m_in": -25.0, "outlier_loss.m_out": -7.0, "outlier_loss.weight": 0.1}
PENALTY = {
    "regularizer.gradient.weight": 1.0, "regularizer.gradient.m_in": -25.0, "regularizer.gradient.m_out": -7.0,
    "regularizer.gradient.reading": "released",
}  # fmt: skip
FINETUNED = {
    "init.method": "ce", "trainer.max_epochs": 20, "trainer.batch_size": 64, "trainer.auxiliary_batch_size": 64,
    "method.optimizer.lr": 0.001, "method.optimizer.schedule": "cosine", "method.optimizer.momentum": 0.9,
}  # fmt: skip
STEPS = {
    "method.optimizer.schedule": "milestones",
    "method.optimizer.gamma": 0.1,
    "method.optimizer.weight_decay": 1e-4,
}
FROM_SCRATCH = {
    "init.method": None, "trainer.max_epochs": 100, "trainer.batch_size": 64, "trainer.auxiliary_batch_size": 64,
    "method.optimizer.lr": 0.1, "method.optimizer.milestones": [0.5, 0.75, 0.9], **STEPS,
}  # fmt: skip
ROWS: dict[str, dict[str, Any]] = {
    "OE": {**FINETUNED, "outlier_loss.weight": 0.5},
    "Energy Loss": {**FINETUNED, "outlier_loss.m_out": -5.0, "outlier_loss.weight": 0.1},
    "GReg": {**FINETUNED, **GREG, **PENALTY},
    "GReg+": {
        **FROM_SCRATCH, **GREG, **PENALTY, "trainer.max_epochs": 60, "trainer.auxiliary_batch_size": 128,
        "method.optimizer.milestones": [0.8333333], "selector.clusters": 64, "selector.candidates": None,
    },
    "POEM": {
        **FROM_SCRATCH, **GREG, "selector.pool": 400_000, "selector.queue": 4, "selector.prior": 20.0,
        "selector.noise": 0.5, "selector.target": 3.0,
    },
    "DOS": {**FROM_SCRATCH, "outlier_loss.weight": 1.0, "selector.clusters": 64, "selector.candidates": None},
    "OpenMix": {
        "init.method": None, "trainer.max_epochs": 200, "trainer.batch_size": 128, "trainer.auxiliary_batch_size": 128,
        "method.optimizer.lr": 0.1, **STEPS, "method.optimizer.weight_decay": 5e-4,
        "method.optimizer.milestones": [0.5, 0.75], "perturbation.beta_a": 10.0, "perturbation.beta_b": 10.0,
        "perturbation.operation": "blend", "outlier_loss.weight": 1.0,
    },
}  # fmt: skip
SAME = {  # as rows of other names are composed
    "Energy": "Energy Loss", "Energy loss": "Energy Loss", "Energy + Grad": "GReg", "Energy only clustering": "GReg+",
    "OE + Grad": "OE", "POEM + Grad": "POEM",
}  # fmt: skip
PARTS = {
    "OE": ("linear", None, None, "outlier_exposure"),
    "Energy Loss": ("linear", None, None, "energy_margin"),
    "GReg": ("linear", None, None, "energy_margin"),
    "GReg+": ("linear", "energy_kmeans", None, "energy_margin"),
    "POEM": ("linear", "poem", None, "energy_margin"),
    "DOS": ("absent_class", "dos", None, "absent_class"),
    "OpenMix": ("absent_class", None, "mix", "soft_label"),
}
SCORERS = {
    "MSP": "msp", "ODIN": "odin", "Energy Score": "energy", "ReAct": "react", "Dice": "dice", "DICE": "dice",
    "LINe": "line", "OE": "msp", "OE + Grad": "msp", "DOS": "absent_class", "OpenMix": "msp",
}  # fmt: skip


def settings(label: str, dataset: str) -> dict[str, Any]:
    """What a row that is trained with outliers must have."""
    name = SAME.get(label, label)
    expected = dict(ROWS[name])
    if name == "Energy Loss":
        expected["outlier_loss.m_in"] = -27.0 if dataset == "cifar100" else -23.0
    if label == "Energy only clustering":
        expected = {key: value for key, value in expected.items() if not key.startswith("regularizer")}
    if label.endswith("+ Grad"):
        expected |= PENALTY
    if label == "OE + Grad":
        expected |= {"regularizer.gradient.m_in": None, "regularizer.gradient.m_out": None}
    if dataset == "imagenet10" and name in ("GReg+", "DOS"):  # all networks there are fine-tuned
        expected |= {"init.method": "ce", "method.optimizer.lr": 0.001, "selector.candidates": 2953}
        expected |= {"method.optimizer.milestones": [0.4], "trainer.max_epochs": 25} if name == "GReg+" else {
            "trainer.max_epochs": 20
        }  # fmt: skip
    return expected


@each("name", TABLES)
def test_each_row_has_the_papers_settings(name: str) -> None:
    for place, label, experiment in rows_of(name):
        plain = experiment.value
        if label in POSTHOC:
            assert experiment.choices["method"] == "ce"
            assert plain("trainer.max_epochs") == 100
            continue
        expected = settings(label, place.dataset)
        wrong = {key: (plain(key), value) for key, value in expected.items() if plain(key) != value}
        assert not wrong, f"{name}, {label} on {place.dataset}: {wrong}"


@each("name", TABLES)
def test_each_row_has_the_parts_of_its_method_and_its_outliers(name: str) -> None:
    for place, label, experiment in rows_of(name):
        if label in POSTHOC:
            continue
        plain = experiment.value
        found = [plain(group) for group in ("head", "selector", "perturbation", "outlier_loss")]
        names = tuple(None if node is None else node["_target_"].split(".")[2] for node in found)
        assert names == PARTS[SAME.get(label, label)], f"{name}, {label}"
        penalised = label in ("GReg", "GReg+") or label.endswith("+ Grad")
        assert list(plain("regularizer")) == (["gradient"] if penalised else []), f"{name}, {label}"
        auxiliary = "imagenet990" if place.dataset == "imagenet10" else "randomimages300k"
        assert plain("auxiliary.name") == auxiliary


@each("name", TABLES)
def test_each_row_is_scored_as_the_paper_says_on_its_sets(name: str) -> None:
    table, _ = composed(name)
    for place, label, experiment in rows_of(name):
        assert experiment.choices["backbone"] in BACKBONES
        if name == "greg_t6":  # accuracies
            continue
        assert table.rows[place.row].scorer == SCORERS.get(label, "energy"), label
        assert list(table.sets[place.dataset]) == SETS[place.dataset]
    assert list(table.seeds) == [0, 1, 2]  # three trials


@each("name", TABLES)
def test_no_two_rows_are_one_run_but_those_that_differ_in_their_detector(name: str) -> None:
    table, experiments = composed(name)
    seen: dict[tuple[str, str | None], str] = {}
    for place, (experiment, *_) in experiments.items():
        label = table.rows[place.row].label
        key = (f"{experiment.run_id} {place.dataset} {place.backbone}", table.rows[place.row].scorer)
        assert key not in seen, f"{name}: {label} is the run of {seen[key]}"
        seen[key] = label


def test_energy_with_the_penalty_is_greg_as_the_printed_figures_say() -> None:
    alone = {place.dataset: run.run_id for place, label, run in rows_of("greg_t4") if label == "Energy + Grad"}
    for name in ("greg_t1", "greg_t2"):
        greg = [(p, run) for p, label, run in rows_of(name) if label == "GReg" and p.backbone == "densenet100"]
        for place, run in greg:
            assert run.run_id == alone[place.dataset]


def test_candidates_of_an_epoch_are_all_images_or_the_papers_number() -> None:
    """300,000 images in steps of 64 of 50,000; on ImageNet-10 2,953 of about 13,000."""
    assert 300_000 * 64 // 50_000 == 384
    assert pytest.approx(600_000, rel=0.01) == 2953 * 13_000 // 64

"""At full scale the rows of BOOD's tables have the settings of the paper, else those of DreamOOD's code.

What differs on purpose, and what neither says, is in docs/FIDELITY.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ood_lab.config import Experiment
from tests.cases import each
from tests.full_scale import composed, rows_of

TABLES = [f"bood_t{number}" for number in range(1, 9)]
CHAIN = ("bood", "dreamood")
CLASSIFIER = {
    "trainer.batch_size": 160, "method.optimizer.lr": 0.1, "method.optimizer.schedule": "cosine",
    "method.optimizer.momentum": 0.9, "method.optimizer.weight_decay": 5e-4, "method.stage": "pretrain",
    "outlier_loss.energy": "plain", "init.method": None, "auxiliary.name": "decoded",
}  # fmt: skip
OF_SET: dict[str, dict[str, Any]] = {
    "cifar100": {"outlier_loss.weight": 2.5, "outlier_loss.hidden": 0},
    "imagenet100": {"outlier_loss.weight": 1, "outlier_loss.hidden": 512},
}
DECODER = {
    "decoder.model": "CompVis/stable-diffusion-v1-4", "decoder.count": 100_000, "decoder.steps": 50,
    "decoder.guidance": 7.5, "decoder.size": 512, "decoder.scheduler": "pndm", "decoder.norm": "anchor",
    "decoder.prompt": "A high-quality image of the {word}",
}  # fmt: skip
BOUNDARY = {
    "outliers.alpha": 0.015, "outliers.max_steps": 100, "outliers.further_steps": 2, "outliers.share": 5.0,
    "outliers.scope": "per_class", "outliers.features": "raw", "outliers.drop_misclassified": True,
    "outliers.identification": "boundary", "outliers.displacement": "adversarial",
}  # fmt: skip
# DreamOOD's code draws 10,000 of each class.
LOW_LIKELIHOOD: dict[str, dict[str, Any]] = {
    "cifar100": {"outliers.boundary": 50, "outliers.deviation": 0.07},
    "imagenet100": {"outliers.boundary": 200, "outliers.deviation": 0.03},
}
DRAWS = {"outliers.neighbor": 300, "outliers.candidates": 1500, "outliers.per_point": 2, "outliers.rounds": 100}
ENCODER = {
    "method.optimizer.lr": 0.1, "method.optimizer.schedule": "cosine", "method.optimizer.momentum": 0.9,
    "method.optimizer.weight_decay": 5e-4, "head.temperature": 0.1, "head.anchors_norm": "unit",
}  # fmt: skip
NETWORKS = {"cifar100": "resnet34", "imagenet100": "resnet34_imagenet"}
ENCODER_BATCH = {"bood": 160, "dreamood": 256}
CHANGED: dict[str, dict[str, Any]] = {
    "boundary identification": {"outliers.displacement": "none"},
    "feature perturbation": {"outliers.identification": "random"},
    "(1)": {"outliers.displacement": "gaussian_noise", "outliers.scale": None},
    "(2)": {"outliers.displacement": "centroid", "outliers.scale": None},
}
FROM_SCRATCH = {
    "init.method": None, "method.stage": "pretrain", "method.optimizer.lr": 0.1, "trainer.batch_size": 160,
    "outlier_loss.start": 0.4,
}  # fmt: skip
GAN = {
    "method.optimizer.lr": 2e-4, "method.optimizer.milestones": [0.6], "method.optimizer.weight_decay": 0.0,
    "outlier_loss.weight": 0.1, "synthesizer.uncertainty": 0.1, "synthesizer.lr": 2e-4, "synthesizer.noise": 100,
    "synthesizer.width": 512,
}  # fmt: skip


def maker(experiment: Experiment, group: str) -> Experiment:
    """The run of a chain that a group's choice makes."""
    (found,) = {
        run.run_id: run for run in below(experiment) if run.maker is not None and run.maker.group == group
    }.values()
    return found


def below(experiment: Experiment) -> Iterator[Experiment]:
    for other in experiment.prerequisites.values():
        yield other
        yield from below(other)


def encoder(experiment: Experiment) -> Experiment:
    return maker(experiment, "outliers").prerequisites["outliers.encoder"]


def assert_settings(label: str, experiment: Experiment, expected: dict[str, Any]) -> None:
    wrong = {k: (experiment.value(k), value) for k, value in expected.items() if experiment.value(k) != value}
    assert not wrong, f"{label}: {wrong}"


@each("name", TABLES)
def test_each_row_of_a_chain_has_its_settings_at_every_stage(name: str) -> None:
    seen = 0
    for place, label, experiment in rows_of(name):
        method = str(experiment.choices["method"])
        if method not in CHAIN:
            continue
        seen += 1
        assert_settings(label, experiment, CLASSIFIER | OF_SET[place.dataset])
        assert_settings(label, maker(experiment, "decoder"), DECODER)
        finds = BOUNDARY | CHANGED.get(label, {}) if method == "bood" else DRAWS | LOW_LIKELIHOOD[place.dataset]
        assert_settings(label, maker(experiment, "outliers"), finds)
        assert_settings(label, encoder(experiment), ENCODER | {"trainer.batch_size": ENCODER_BATCH[method]})
        assert maker(experiment, "anchors").choices["anchors"] == "clip"
        network = experiment.choices["backbone"]
        assert encoder(experiment).choices["backbone"] == network
        assert network == NETWORKS[place.dataset] or name == "bood_t8"
    assert seen >= 2


SWEEPS: dict[str, tuple[str, list[float]]] = {
    "bood_f5_alpha": ("outliers.alpha", [0.001, 0.005, 0.015, 0.03, 0.1]),
    "bood_f5_steps": ("outliers.further_steps", [0, 1, 2, 3, 4, 5]),
    "bood_f6_share": ("outliers.share", [2.5, 5, 10, 20]),
    "bood_f6_weight": ("outlier_loss.weight", [0.5, 1, 2, 2.5, 3]),
    "bood_f6_max_steps": ("outliers.max_steps", [5, 50, 100, 200, 400]),
}


@each("name", SWEEPS)
def test_a_sweep_changes_one_setting_of_the_row_in_table_1(name: str) -> None:
    swept, values = SWEEPS[name]
    found = []
    for place, label, experiment in rows_of(name):
        run = maker(experiment, "outliers") if swept.startswith("outliers.") else experiment
        found.append(run.value(swept))
        kept = {key: value for key, value in (CLASSIFIER | OF_SET[place.dataset]).items() if key != swept}
        assert_settings(label, experiment, kept)
        finds = {key: value for key, value in BOUNDARY.items() if key != swept}
        assert_settings(label, maker(experiment, "outliers"), finds)
    assert found == values


def test_the_ablations_are_those_of_tables_3_and_6() -> None:
    found = {label for name in ("bood_t3", "bood_t6") for _, label, _ in rows_of(name)}
    assert set(CHANGED) <= found


def test_the_depth_of_table_8_is_that_of_encoder_and_classifier() -> None:
    assert [str(experiment.choices["backbone"]) for _, _, experiment in rows_of("bood_t8")] == [
        "resnet18", "resnet34", "resnet50",
    ]  # fmt: skip


@each("name", ["bood_t1", "bood_t2"])
def test_the_baselines_with_outliers_are_trained_from_scratch(name: str) -> None:
    seen = set()
    for _, label, experiment in rows_of(name):
        method = str(experiment.choices["method"])
        if method in ("vos", "npos"):
            assert_settings(label, experiment, FROM_SCRATCH)
            seen.add(method)
        if method == "gan":
            assert_settings(label, experiment, GAN | {"synthesizer.side": 32 if name == "bood_t1" else 64})
            seen.add(method)
    assert seen == {"vos", "npos", "gan"}


@each("name", TABLES)
def test_no_two_rows_with_outliers_are_one_run(name: str) -> None:
    runs = [e.run_id for place, _, e in rows_of(name) if e.choices["method"] != "ce"]
    table, _ = composed(name)
    shared = len(runs) - len(set(runs))
    assert shared == 0, f"{table.id}: {shared}"

"""At full scale the rows of AOE's and ARES's tables have the settings of the papers and of AOE's code.

What differs on purpose, and what neither says, is in docs/FIDELITY.md.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ood_lab.config import Experiment
from ood_lab.tables.plan import Place, Plan, plan
from ood_lab.tables.spec import Table, load_table
from tests.cases import each

AOE, ARES = ("aoe_t1", "aoe_t2"), ("ares_t1a", "ares_t1b", "ares_t2", "ares_t3", "ares_t4")
SWEEPS = {
    "aoe_f4": ("perturbation.epsilon", [0, 0.05, 0.1, 0.25, 0.5, 1]),
    "aoe_f8": ("perturbation.sigma", [0, 0.05, 0.1, 0.25, 0.5, 1]),
    "aoe_f11": ("trainer.auxiliary_images", [100, 300, 1000, 3000, 9984]),
}
AOE_SETS = [
    "fooling_images", "textures", "tinyimagenet_c", "tinyimagenet_r", "lsun_c", "lsun_r", "gaussian_noise_aoe",
    "uniform_noise_aoe",
]  # fmt: skip
FINETUNED = {
    "trainer.max_epochs": 10, "trainer.batch_size": 128, "trainer.auxiliary_batch_size": 128,
    "trainer.auxiliary_images": 9984, "auxiliary.name": "cifar_gan", "method.optimizer.lr": 5e-4,
    "method.optimizer.momentum": 0.9, "method.optimizer.weight_decay": 5e-4, "method.optimizer.schedule": "cosine",
    "outlier_loss.weight": 0.5, "method.outlier_space": "raw01", "method.mean_over": "all_rows",
    "backbone.dropout": 0.3,
}  # fmt: skip
SCHEMES: dict[str, dict[str, Any]] = {
    "Outlier Exposure [18]": FINETUNED,
    "Outlier Exposure + Noise": {**FINETUNED, "perturbation.sigma": 0.5, "perturbation.shared": True},
    "AOE": {
        **FINETUNED, "perturbation.epsilon": 0.5, "perturbation.steps": 1, "perturbation.objective": "energy",
        "perturbation.statistics": "batch", "perturbation.of": "outliers",
    },
}  # fmt: skip
ARES_ROW = {
    "trainer.max_epochs": 500, "trainer.batch_size": 128, "method.optimizer.lr": 0.1, "outlier_loss.start": 0.4,
    "method.optimizer.schedule": "cosine", "outlier_loss.weight": 0.1, "mixing.alpha": 3.0, "mixing.rounds": 4,
    "mixing.p_clean": 0.0, "synthesizer.alpha": 2.0, "synthesizer.pool": 10_000, "synthesizer.take": 128,
    "synthesizer.queue_size": 10_000, "synthesizer.expansion": True, "synthesizer.estimation": "lowest",
    "outlier_loss.middle": "moments", "head.weights": "learned", "init.method": None,
}  # fmt: skip
CHANGED: dict[str, dict[str, Any]] = {
    "ARES w/o Escape": {"mixing.p_clean": 1.0},
    "ARES w/o Expansion": {"synthesizer.expansion": False},
    "ARES w/o Estimation": {"synthesizer.estimation": "none"},
    "ARES w/ NCE": {"outlier_loss.middle": None},
    "ARES w/ CE": {"outlier_loss.middle": None},
    "40/100": {"trainer.max_epochs": 100},
    "80/200": {"trainer.max_epochs": 200},
}


@cache
def planned(name: str) -> Plan:
    return plan([load_table(name)], look=False)


def composed(name: str) -> tuple[Table, dict[Place, tuple[Experiment, ...]]]:
    return load_table(name), dict(planned(name).experiments)


@each("name", [*AOE, *ARES, *SWEEPS, "aoe_f6", "aoe_f9"])
def test_every_row_has_a_run(name: str) -> None:
    assert planned(name).unavailable == {}


def rows_of(name: str) -> list[tuple[Place, str, Experiment]]:
    table, experiments = composed(name)
    return [(place, table.rows[place.row].label, runs[0]) for place, runs in experiments.items()]


def assert_settings(name: str, label: str, experiment: Experiment, expected: dict[str, Any]) -> None:
    wrong = {k: (experiment.value(k), value) for k, value in expected.items() if experiment.value(k) != value}
    assert not wrong, f"{name}, {label}: {wrong}"


@each("name", AOE)
def test_each_row_of_aoe_has_its_settings(name: str) -> None:
    table, _ = composed(name)
    assert list(table.seeds) == [0, 1, 2]
    trained = set()
    for place, label, experiment in rows_of(name):
        scheme = label.partition(" / ")[0].replace("(Ours)", "").replace("(ours)", "").strip()
        assert experiment.choices["backbone"] == "wrn40_2"
        assert experiment.choices["init"] == f"oe_wrn40_2_{place.dataset}"
        assert list(experiment.ood_sets) == AOE_SETS or name == "aoe_t1"
        if scheme == "Cross-Entropy":
            assert experiment.trainer.max_epochs == 0
            continue
        assert_settings(name, label, experiment, SCHEMES[scheme])
        trained.add(scheme)
    assert trained == set(SCHEMES)


@each(("name", "swept", "values"), [(name, *sweep) for name, sweep in SWEEPS.items()])
def test_a_sweep_of_aoe_changes_one_setting_of_its_row(name: str, swept: str, values: list[float]) -> None:
    scheme = "Outlier Exposure + Noise" if name == "aoe_f8" else "AOE"
    found: dict[str, list[float]] = {}
    for place, label, experiment in rows_of(name):
        expected = {key: value for key, value in SCHEMES[scheme].items() if key != swept}
        assert_settings(name, label, experiment, expected)
        found.setdefault(place.dataset, []).append(experiment.value(swept))
    assert {dataset: sorted(given) for dataset, given in found.items()} == {"cifar10": values, "cifar100": values}


@each("name", ARES)
def test_each_row_of_ares_has_the_papers_settings(name: str) -> None:
    table, _ = composed(name)
    seen = 0
    for place, label, experiment in rows_of(name):
        assert experiment.choices["backbone"] == "wrn40_2"
        if experiment.choices["method"] != "ares":
            continue
        seen += 1
        assert table.rows[place.row].scorer == "weighted_energy"
        assert experiment.pictures is not None
        assert_settings(name, label, experiment, ARES_ROW | CHANGED.get(label, {}))
        losses = {"ARES w/ NCE": "nce", "ARES w/ CE": "weighted_energy_logistic"}
        assert experiment.choices["outlier_loss"] == losses.get(label, "jensen_shannon")
    assert seen >= 1

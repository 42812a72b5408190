"""At full scale every row of HamOS's tables has the settings of the paper (section 4, appendices D to F, Table 4).

The values below are the paper's, written out here. What differs from them on purpose is in docs/FIDELITY.md.
"""

from __future__ import annotations

from typing import Any

from ood_lab.config import Experiment
from ood_lab.tables.plan import Place
from tests.cases import each
from tests.full_scale import composed

TABLES = [f"hamos_t{n}" for n in range(1, 25) if n != 4]  # Table 4 lists settings
FROM_SCRATCH = {
    "hamos_t13": (100, 0.1, 0.2),
    "hamos_t14": (500, 0.5, 0.1),
}  # epochs, rate, share of cross-entropy alone
POSTHOC = ("MSP", "ODIN", "EBO", "KNN", "ASH", "Scale", "Relation")
ID_SETS = {
    "cifar10": {"backbone": "resnet34", "rate": 0.01, "batch": 128, "dim": 128, "bank": 1000, "k": 200},
    "cifar100": {"backbone": "resnet34", "rate": 0.01, "batch": 128, "dim": 128, "bank": 1000, "k": 200},
    "imagenet1k": {"backbone": "resnet50_imagenet", "rate": 0.0001, "batch": 256, "dim": 256, "bank": 100, "k": 100},
}
FAR = {
    "cifar10": ["mnist", "svhn", "textures", "places365", "lsun"],
    "cifar100": ["mnist", "svhn", "textures", "places365", "lsun"],
    "imagenet1k": ["sun", "inaturalist", "places365", "textures"],
}
DETECTORS: dict[str, dict[str, Any]] = {
    "odin": {"temperature": 10000.0, "epsilon": 0.14},
    "energy": {"temperature": 1.0},
    "knn": {"k": 50},
    "ash": {"variant": "s", "percentile": 65},
    "scale": {"percentile": 85},
}
# What a table sweeps, and the values that it prints.
SWEPT: dict[str, tuple[str, list[float]]] = {
    "hamos_t16": ("synthesizer.midpoint_noise", [0.0, 0.001, 0.01, 0.05, 0.1, 0.2]),
    "hamos_t17": ("outlier_loss.weight", [0.01, 0.05, 0.1, 0.3, 0.5]),
    "hamos_t18": ("synthesizer.neighbor", [50, 100, 200, 500]),
    "hamos_t19": ("synthesizer.margin", [0.0, 0.05, 0.1, 0.15, 0.2]),
    "hamos_t20": ("synthesizer.leapfrog_steps", [1, 2, 3, 4, 5]),
    "hamos_t21": ("synthesizer.step_size", [0.01, 0.05, 0.1, 0.3, 0.5]),
    "hamos_t22": ("synthesizer.adjacent", [1, 2, 3, 4, 5, 10, 20]),
    "hamos_t23": ("synthesizer.rounds", [1, 2, 3, 4, 5]),
    "hamos_t24": ("head.projection_dim", [64, 128, 256, 512]),
}
PARTS = {
    "CSI": (["csi"], None, None),  # its first stage; the second trains heads
    "SSD+": (["ce", "supcon"], None, None),
    "KNN+": (["ce", "supcon"], None, None),
    "SupCon": (["ce", "supcon"], None, None),
    "SimCLR": (["ce", "simclr"], None, None),
    "CIDER": (["ce", "cider"], None, None),
    "PALM": (["ce", "palm"], None, None),
    "VOS": (["ce"], "gaussian_tail", "energy_logistic"),
    "NPOS": (["ce", "cider"], "knn_boundary", "logistic_penultimate"),
    "CE": (["ce"], None, None),
    "CE+HamOS": (["ce"], "hmc", "equidistant"),
    "SimCLR+HamOS": (["ce", "simclr"], "hmc", "equidistant"),
    "SupCon+HamOS": (["ce", "supcon"], "hmc", "equidistant"),
    "CIDER+HamOS": (["ce", "cider"], "hmc", "equidistant"),
    "Random Walk": (["ce", "cider"], "random_walk", "equidistant"),
    "MALA": (["ce", "cider"], "hmc", "equidistant"),
    "mMALA": (["ce", "cider"], "rmhmc", "equidistant"),
    "RMHMC": (["ce", "cider"], "rmhmc", "equidistant"),
}
HAMOS = (["ce", "cider"], "hmc", "equidistant")


def rows_of(name: str) -> list[tuple[Place, str, Experiment]]:
    """Of each row the run that trains the network: of CSI, which has two stages, the first."""
    table, experiments = composed(name)
    labelled = [(place, table.rows[place.row].label, runs[0]) for place, runs in experiments.items()]
    return [(place, label, run.prerequisites["init"] if label == "CSI" else run) for place, label, run in labelled]


def expected(name: str, place: Place, label: str) -> dict[str, Any]:
    """The paper's settings of a row that is trained, by dotted key."""
    sizes = ID_SETS[place.dataset]
    values: dict[str, Any] = {
        "trainer.max_epochs": 20,
        "trainer.batch_size": sizes["batch"],
        "method.optimizer.lr": sizes["rate"],
        "method.optimizer.momentum": 0.9,
        "method.optimizer.weight_decay": 1e-4,
        "method.optimizer.schedule": "cosine",
        "method.optimizer.warmup": 0.0,
        "method.stage": "finetune",
        "method.trainable": "layer4_mlp" if place.dataset == "imagenet1k" else "whole",
        "head.projection_dim": sizes["dim"],
    }
    if name in FROM_SCRATCH:
        epochs, rate, _ = FROM_SCRATCH[name]
        values |= {"trainer.max_epochs": epochs, "method.optimizer.lr": rate}
    terms, synthesizer, outlier_loss = PARTS.get(label.partition("(")[0].strip(), HAMOS)
    if outlier_loss == "equidistant":
        values |= {
            "outlier_loss.weight": 0.1,
            "outlier_loss.prototype_momentum": 0.95,
            "synthesizer.neighbor": sizes["k"],
            "synthesizer.bank_size": sizes["bank"],
            "synthesizer.kappa": 2.0,
            "synthesizer.margin": 0.1,
            "synthesizer.step_size": 0.1,
            "synthesizer.adjacent": 4,
            "synthesizer.rounds": 5,
        }
        if synthesizer != "random_walk":
            values["synthesizer.leapfrog_steps"] = 1 if label in ("MALA", "mMALA") else 3
    if synthesizer == "gaussian_tail":
        values |= {"synthesizer.per_class": 200, "outlier_loss.weight": 0.1}
    if synthesizer == "knn_boundary":
        values |= {"synthesizer.anchors": 2, "synthesizer.per_anchor": 200, "outlier_loss.weight": 0.1}
    if "cider" in terms and label != "NPOS":
        values |= {"id_loss.cider.w_compactness": 0.5, "id_loss.cider.w_dispersion": 1.0}
    return values


def test_the_table_of_settings_is_composed() -> None:
    assert composed("hamos_t4")[1]


@each("name", TABLES)
def test_each_row_has_the_papers_settings(name: str) -> None:
    swept, printed = SWEPT.get(name, ("", []))
    for place, label, experiment in rows_of(name):
        plain = experiment.value
        assert experiment.choices["backbone"] == ID_SETS[place.dataset]["backbone"]
        if label in POSTHOC:
            assert plain("trainer.max_epochs") in (100, 0)  # a classifier of 100 epochs, or the published one
            continue
        wrong = {}
        for key, value in expected(name, place, label).items():
            if key == swept:
                assert plain(key) in printed, f"{label}: {key}={plain(key)}"
            elif plain(key) != value:
                wrong[key] = (plain(key), value)
        assert not wrong, f"{name}, {label} on {place.dataset}: {wrong}"


@each("name", TABLES)
def test_each_row_has_the_parts_of_its_method(name: str) -> None:
    for place, label, experiment in rows_of(name):
        if label in POSTHOC:
            continue
        terms, synthesizer, outlier_loss = PARTS.get(label.partition("(")[0].strip(), HAMOS)
        plain = experiment.value
        before = ["ce"] if label == "CSI" and name in FROM_SCRATCH else []  # alone, until the contrast begins
        assert sorted(plain("id_loss")) == [*before, *terms], label
        for group, wanted in (("synthesizer", synthesizer), ("outlier_loss", outlier_loss)):
            node = plain(group)
            assert (None if node is None else node["_target_"].split(".")[2]) == wanted, f"{label} on {place.dataset}"


@each("name", FROM_SCRATCH)
def test_from_scratch_contrast_waits_for_its_share_and_outliers_for_half_of_the_run(name: str) -> None:
    share = FROM_SCRATCH[name][2]
    for _, label, experiment in rows_of(name):
        plain = experiment.value
        assert experiment.choices["init"] == "random"
        if label == "CSI":
            assert plain("id_loss.ce.end") == share
        starts = {term: node["start"] for term, node in plain("id_loss").items()}
        assert starts == {term: 0 if term == "ce" else share for term in starts}, label
        if plain("outlier_loss") is not None:
            assert plain("outlier_loss.start") == 0.5, label


@each("name", TABLES)
def test_each_row_is_scored_as_the_paper_says_on_its_sets(name: str) -> None:
    table, _ = composed(name)
    for place, label, experiment in rows_of(name):
        row = table.rows[place.row]
        if label == "CSI":
            assert (row.scorer, row.options) == ("csi", {"shifts": "first"})  # Eq. 20
            continue
        node = experiment.detectors[row.scorer or ""]
        for key, value in DETECTORS.get(row.scorer or "", {}).items():
            assert node[key] == value, f"{label}: {row.scorer}.{key}"
        if name not in ("hamos_t6", "hamos_t7", "hamos_t15"):
            assert list(table.sets[place.dataset]) == FAR[place.dataset]
    assert list(table.seeds) == [0, 1, 2]  # "multiple runs"


@each("name", TABLES)
def test_no_two_rows_are_one_run_but_those_that_differ_in_their_detector(name: str) -> None:
    table, experiments = composed(name)
    seen: dict[tuple[str, str | None, str], str] = {}
    for place, (experiment, *_) in experiments.items():
        row = table.rows[place.row]
        label = row.label
        key = (f"{experiment.run_id} {place.dataset} {place.backbone}", row.scorer, repr(sorted(row.options.items())))
        assert key not in seen, f"{name}: {label} is the run of {seen[key]}"
        seen[key] = label

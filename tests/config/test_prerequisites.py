"""What an experiment depends on: named, inherited from, found again by identity, refused where it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from ood_lab.config import Experiment, RequestError, prepare
from ood_lab.config.groups import LIST_GROUPS
from ood_lab.config.identity import weight_values
from ood_lab.config.prepare import with_ood_sets, with_seed
from ood_lab.config.quoting import as_typed
from tests.cases import each

FRACTALS = "[task=synthesize,producer=fractals,producer.count=200,producer.shard_items=100]"
DEPENDS = ["method=oe", "auxiliary=synthesized", f"auxiliary.needs.images={FRACTALS}"]
ALONE = ["task=synthesize", "producer=fractals", "producer.count=200", "producer.shard_items=100"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OOD_LAB_OUTPUT", str(tmp_path / "outputs"))


def depends(*overrides: str) -> Experiment:
    return prepare([*map(as_typed, DEPENDS), *overrides])


def test_a_set_that_a_run_needs_is_that_of_its_own_command() -> None:
    experiment = depends("backbone.width=8", "seed=3", "trainer.threads=1", "scorer=[msp]", "logger=csv")
    below = experiment.prerequisites["auxiliary.images"]
    assert below.run_id == prepare(ALONE).run_id, "neither network nor seed nor detectors are inherited"
    assert below.trainer.threads == 1, "the machine is"
    assert below.paths == experiment.paths
    assert experiment.auxiliary is not None
    assert experiment.auxiliary.options["root"] == str(below.product)
    assert experiment.auxiliary.name == "synthesized_fractals"
    assert list(experiment.prerequisites) == ["init", "auxiliary.images"]


def test_what_the_set_depends_on_is_in_the_id_and_where_it_lies_is_not(tmp_path: Path) -> None:
    plain = depends()
    other = prepare([*DEPENDS[:2], as_typed(DEPENDS[2].replace("200", "300"))])
    assert plain.prerequisites["auxiliary.images"].run_id != other.prerequisites["auxiliary.images"].run_id
    assert plain.run_id != other.run_id
    assert plain.run_id == depends(f"paths.output={tmp_path}/moved").run_id
    assert not [key for key in weight_values(plain) if "needs" in key or key.endswith("root")]


def test_another_seed_of_the_run_needs_the_same_set() -> None:
    first, second = depends("init=random"), depends("init=random", "seed=1")
    assert first.prerequisite_ids == second.prerequisite_ids
    assert with_seed(first, 1).run_id == second.run_id


@each(
    ("overrides", "expected"),
    [
        (["task=synthesize"], "task=synthesize: name the producer, producer=NAME. Choose from: .*fractals"),
        (["producer=fractals"], "producer=fractals: nothing that this command does depends on it; add task=synthesize"),
        ([*ALONE, "seed=3"], r"seed: producer=fractals does not depend on it.*producer.seed=3"),
        ([*ALONE, "backbone.width=3"], "backbone.width: producer=fractals does not depend on it"),
        ([*ALONE, "trainer.max_epochs=3"], "trainer.max_epochs: producer=fractals does not depend on it"),
        ([*ALONE, "trainer.batch_size=3"], "trainer.batch_size: producer=fractals does not depend on it"),
        ([*ALONE, "trainer.select=last"], "trainer.select: producer=fractals does not depend on it"),
        ([*ALONE, "trainer.eval_precision=32-true"], "trainer.eval_precision: producer=fractals does not depend on it"),
        ([*ALONE, "producer.shard_items=0"], "producer.shard_items=0: expected a whole number above 0"),
        ([*DEPENDS[:2], "auxiliary.needs.images=[task=synthesize]"], "auxiliary.images: task=synthesize: name the"),
        ([*DEPENDS[:2], "auxiliary.needs.images=[task=synthesize,producer=x]"], "producer=x: no such producer"),
        (
            [*DEPENDS[:2], "auxiliary.needs.images=[producer.count=3]"],
            "auxiliary.images: producer.count: no producer is",
        ),
        (
            [*DEPENDS[:2], "auxiliary.needs.images=[method=ce]"],
            r"auxiliary.images: a run with task=train makes no images; name one with task=synthesize or decode, as in ",
        ),
        (
            [*DEPENDS[:2], "auxiliary.needs.images=[task=evaluate,method=ce]"],
            "auxiliary.images: a run with task=evaluate makes no images",
        ),
        (
            ["method=hamos", "init.overrides=[task=evaluate]"],
            "init: a run with task=evaluate makes no weights of a classifier; name one with task=train",
        ),
        ([*DEPENDS[:2], "auxiliary.needs.image=[a=b]"], "has no 'image'. Did you mean 'images'"),
        ([*DEPENDS[:2], "auxiliary.needs.images=fractals"], "'fractals': expected the overrides of a run"),
        (["method=ce", "protocol.far=[synthesized]"], "'synthesized' is made by another run"),
    ],
)
def test_a_wrong_prerequisite_is_refused_with_its_name(overrides: list[str], expected: str) -> None:
    with pytest.raises(RequestError, match=expected):
        prepare([as_typed(text) for text in overrides])


def test_the_machine_of_a_set_may_be_stated_and_shares_no_batches() -> None:
    machine = ["trainer.threads=1", "trainer.workers=1", "trainer.devices=3"]  # by which no batch size is divided
    assert prepare([*ALONE, *machine]).run_id == prepare(ALONE).run_id


def test_a_task_may_be_named_by_its_option() -> None:
    named = prepare([*DEPENDS[:2], as_typed(DEPENDS[2].replace("task=", "task.name="))])
    assert named.run_id == depends().run_id
    assert named.prerequisite_ids == depends().prerequisite_ids


def test_fewer_ood_sets_change_nothing_about_a_set_that_is_made() -> None:
    experiment = depends("init=random", "protocol.near=[letters]", "protocol.far=[photos]")
    fewer = with_ood_sets(experiment, ["photos"])
    assert fewer.ood_sets == ("photos",)
    assert fewer.prerequisites == experiment.prerequisites
    below = fewer.prerequisites["auxiliary.images"]
    assert prepare(below.overrides).run_id == below.run_id, "its command line can be typed"


NEEDY = """
from ood_lab.augmentation.crop_flip import CropFlip
from ood_lab.dataset.synthesized import Synthesized
from ood_lab.figure.roc import ROC
from ood_lab.scorer.msp import MSP

class Crop(CropFlip):
    def __init__(self, *, needs: dict, padding: int, flip: float): ...

class Curve(ROC):
    def __init__(self, *, needs: dict, points: int): ...

class Detector(MSP):
    def __init__(self, *, needs: dict): ...
"""
NEEDY_FILES = {
    "augmentation": "_target_: needy.Crop\npadding: 1\nflip: 0.0\n",
    "figure": "# @package figure.needy\n_target_: needy.Curve\npoints: 3\n",
    "scorer": "# @package scorer.needy\n_target_: needy.Detector\n",
    "dataset": "defaults: [synthesized, override /augmentation@_global_.augmentation: crop, _self_]\nname: needy\n"
    "layouts: {shards: {train: {shards: a}, test: {shards: b}}}\n"
    "recipe: {num_classes: 10, test_images: null, benchmark: needy, serve: resident, resize: 32, side: 32, "
    "epochs: {pretrain: 1, finetune: 1}, projection_dim: 16, bank_size: 8, neighbor: 2}\n",
}


@each("group", NEEDY_FILES)
def test_parts_that_are_built_without_what_runs_made_need_none(
    group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "needy.py").write_text(NEEDY)
    (tmp_path / group).mkdir()
    (tmp_path / group / "needy.yaml").write_text(f"{NEEDY_FILES[group]}needs: {{images: {FRACTALS}}}\n")
    chosen = f"{group}=[needy]" if group in LIST_GROUPS else f"{group}=needy"
    part = f"{group}.needy" if group in LIST_GROUPS else group
    with pytest.raises(RequestError, match=rf"^{part}\.needs: a part of the group {group} can't depend on a run"):
        prepare(["method=ce", "protocol.near=[letters]", chosen], tmp_path)


def test_what_depends_on_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset/mine.yaml").write_text(
        "defaults: [synthesized, _self_]\nname: mine\nneeds: {images: [method=oe, auxiliary=mine]}\n"
    )
    with pytest.raises(RequestError, match=r"auxiliary.images depends on itself: .*method=oe auxiliary=mine"):
        prepare(["method=oe", "auxiliary=mine"], tmp_path)

"""What an experiment depends on: named, inherited from, found again by identity, refused where it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from ood_lab.config import Experiment, RequestError, prepare
from ood_lab.config.identity import weight_values
from ood_lab.config.prepare import with_seed
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
        (["task=synthesize"], "task=synthesize: name what makes the set, producer=NAME. Choose from: fractals"),
        (["producer=fractals"], "producer=fractals: only task=synthesize makes a set"),
        ([*ALONE, "seed=3"], r"seed: producer=fractals does not depend on it.*producer.seed=3"),
        ([*ALONE, "backbone.width=3"], "backbone.width: producer=fractals does not depend on it"),
        ([*ALONE, "producer.shard_items=0"], "producer.shard_items=0: expected a whole number above 0"),
        ([*DEPENDS[:2], "auxiliary.needs.images=[task=synthesize]"], "auxiliary.images: task=synthesize: name what"),
        ([*DEPENDS[:2], "auxiliary.needs.images=[task=synthesize,producer=x]"], "producer=x: no such producer"),
        (
            [*DEPENDS[:2], "auxiliary.needs.images=[producer.count=3]"],
            "auxiliary.images: producer.count: no producer is",
        ),
        ([*DEPENDS[:2], "auxiliary.needs.image=[a=b]"], "has no 'image'. Did you mean 'images'"),
        ([*DEPENDS[:2], "auxiliary.needs.images=fractals"], "'fractals': expected the overrides of a run"),
        (["method=ce", "protocol.far=[synthesized]"], "'synthesized' is made by another run"),
    ],
)
def test_a_wrong_prerequisite_is_refused_with_its_name(overrides: list[str], expected: str) -> None:
    with pytest.raises(RequestError, match=expected):
        prepare([as_typed(text) for text in overrides])


def test_what_depends_on_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset/mine.yaml").write_text(
        "defaults: [synthesized, _self_]\nname: mine\nneeds: {images: [method=oe, auxiliary=mine]}\n"
    )
    with pytest.raises(RequestError, match=r"auxiliary.images depends on itself: .*method=oe auxiliary=mine"):
        prepare(["method=oe", "auxiliary=mine"], tmp_path)

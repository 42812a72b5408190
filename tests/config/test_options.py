"""What each option affects: declared once, and read by identity, features, tables and prerequisites."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from ood_lab.config import prepare, schema
from ood_lab.config.affects import COMPARABILITY, FEATURES, NOTHING, SCORES, WEIGHTS, Affects, of_fields
from ood_lab.config.identity import affecting, weight_values
from ood_lab.config.options import affected_by
from ood_lab.config.signature import signature
from tests.cases import each

OWN = """
from typing import Annotated
from ood_lab.config.affects import NOTHING
from ood_lab.id_loss.ce import CE

class Mine(CE):
    def __init__(self, dims, *, shown: Annotated[str, NOTHING], width: int, **options):
        super().__init__(dims, **options)
"""


@each(
    ("key", "affects"),
    [
        ("seed", WEIGHTS),
        ("bootstrap", SCORES),
        ("trainer", NOTHING),
        ("trainer.precision", WEIGHTS),
        ("trainer.batch_size", WEIGHTS | COMPARABILITY),
        ("trainer.eval_precision", FEATURES | COMPARABILITY),
        ("protocol.missing", NOTHING),
        ("protocol.subset", SCORES | COMPARABILITY),
        ("protocol.mean", WEIGHTS | FEATURES | COMPARABILITY),
        ("paths.data", NOTHING),
        ("figure", NOTHING),
        ("scorer.knn.k", SCORES | COMPARABILITY),
        ("backbone.width", WEIGHTS | FEATURES | SCORES | COMPARABILITY),
        ("method", WEIGHTS | FEATURES | SCORES | COMPARABILITY),
    ],
)
def test_an_override_affects_what_its_option_or_group_says(key: str, affects: Affects) -> None:
    assert affected_by(key) == affects


def test_an_option_of_a_recipe_affects_what_its_mark_says() -> None:
    marks = signature("ood_lab.config.schema.Recipe").affects
    assert marks
    assert {name: affected_by(f"dataset.recipe.{name}") for name in marks} == marks
    assert affected_by("dataset.root") == affected_by("dataset") not in marks.values()


def test_marks_read_from_the_source_are_those_of_the_running_class() -> None:
    for section in (schema.Root, schema.Trainer, schema.Protocol, schema.Recipe):
        assert signature(f"ood_lab.config.schema.{section.__name__}").affects == of_fields(section)
    assert {option.name for option in fields(schema.Trainer)} == set(of_fields(schema.Trainer)), "each says it"


def test_a_nodes_options_are_left_out_by_what_they_affect_below_it_too() -> None:
    part = {"_target_": "ood_lab.dataset.fractals.Fractals", "name": "f", "root": "/a", "count": 3}
    both = {"_target_": "ood_lab.dataset.fractals_and_feature_vis.FractalsAndFeatureVis", "parts": {"one": part}}
    seen = affecting(both, FEATURES)["parts"]["one"]
    assert seen == {"_target_": part["_target_"], "name": "f", "count": 3}


def test_an_option_of_a_class_of_ones_own_that_affects_nothing_is_no_part_of_the_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "marked_terms.py").write_text(OWN)
    (tmp_path / "conf/id_loss").mkdir(parents=True)
    text = "# @package id_loss.mine\n_target_: marked_terms.Mine\nshown: a\nwidth: 1\n"
    (tmp_path / "conf/id_loss/mine.yaml").write_text(text)

    def made(*overrides: str) -> str:
        return prepare(["method=ce", "id_loss=[mine]", *overrides], tmp_path / "conf").run_id

    assert made() == made("id_loss.mine.shown=b") != made("id_loss.mine.width=2")
    found = weight_values(prepare(["method=ce", "id_loss=[mine]"], tmp_path / "conf"))
    assert "id_loss.mine.width" in found
    assert "id_loss.mine.shown" not in found

"""What a constructor accepts, read from its source: ranges, literals, unions, lists, inherited fields."""

from __future__ import annotations

import ast
from typing import Any

import pytest

from ood_lab.config.annotation import accepts, describe
from ood_lab.config.signature import signature
from ood_lab.errors import RequestError
from tests.cases import each


def annotation(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


@each(
    ("text", "good", "bad"),
    [
        ("int", [-1, 0, 7], [1.0, "1", True, None]),
        ("float", [-1, 0.5], ["1", True, None, float("nan")]),
        ("str", ["", "a"], [1, None, ["a"]]),
        ("bool", [True, False], [0, 1, "true"]),
        ("PositiveInt", [1, 10**9], [0, -1, 1.0, True]),
        ("NonNegativeInt", [0, 1], [-1, 0.0, False]),
        ("PositiveFloat", [1e-30, 3], [0, 0.0, -1.0, float("nan")]),
        ("NonNegativeFloat", [0, 0.0, 2.5], [-1e-30, "0", float("nan")]),
        ("Fraction", [0, 1, 0.5], [-0.001, 1.001, True]),
        ("Percentile", [0, 100, 50.5], [-0.1, 100.1]),
        ("PositivePercent", [0.5, 100], [0, 100.1]),
        ("dict", [{}], [[], None]),
        ("dict[str, int]", [{"a": 1}], [[1]]),
        ("list[PositiveInt]", [[1], [1, 2]], [[], [0], [1, "2"], 1, "12", (1,)]),
        ("Literal['a', 'b']", ["a", "b"], ["c", "", None, ["a"]]),
        ("Literal['a']", ["a"], ["b", ""]),
        ("str | None", [None, "x"], [1]),
        ("list[str] | int | None", [None, 3, ["x"]], ["x", [3]]),
        ("SGD", [{"_target_": "x.Y"}], [{}, "SGD", 1, None]),
    ],
)
def test_an_annotation_accepts_exactly_its_values(text: str, good: list[Any], bad: list[Any]) -> None:
    node = annotation(text)
    assert [v for v in good if not accepts(node, v)] == []
    assert [v for v in bad if accepts(node, v)] == []


@each("value", [float("inf"), float("-inf")])
@each("text", ["Fraction", "Percentile"])
def test_infinity_is_no_share(text: str, value: float) -> None:
    assert not accepts(annotation(text), value)


@each(
    ("text", "words"),
    [
        ("PositiveInt", "a whole number above 0"),
        ("Literal['a', 'b']", "one of a, b"),
        ("str | None", "a string or null"),
        ("list[Fraction]", "a list, each entry a number from 0 to 1"),
        ("dict[str, int]", "a mapping"),
        ("SGD", "a mapping with _target_ (a SGD)"),
    ],
)
def test_an_annotation_is_described_in_words(text: str, words: str) -> None:
    assert describe(annotation(text)) == words


def test_keyword_only_parameters_are_keys_and_positional_ones_are_injected() -> None:
    spec = signature("ood_lab.backbone.resnet.ResNet")
    assert list(spec.parameters) == ["block", "depths", "width", "stem", "norm"]
    assert spec.injected == ("num_classes",)


def test_a_dataclass_has_its_own_and_its_inherited_fields() -> None:
    spec = signature("ood_lab.dataset.stored.Stored")
    assert list(spec.parameters) == [
        "name", "root", "layouts", "how_to_get", "licence", "mean", "std", "recipe",
        "include", "exclude", "benchmark", "draw", "count", "checksums", "downloads",
    ]  # fmt: skip


def test_a_class_without_constructor_has_that_of_its_base() -> None:
    assert signature("ood_lab.id_loss.ce.CE").parameters.keys() == {"weight", "start", "end", "lr_factor"}
    assert signature("ood_lab.id_loss.ce.CE").injected == ("dims",)
    assert signature("ood_lab.scorer.msp.MSP").parameters == {}


@each(
    ("target", "named"),
    [("ood_lab.id_loss.nothing.CE", "ood_lab.id_loss.nothing"), ("ood_lab.id_loss.ce.Nothing", "Nothing")],
)
def test_a_target_that_does_not_exist_is_named(target: str, named: str) -> None:
    with pytest.raises(RequestError, match=named):
        signature(target)

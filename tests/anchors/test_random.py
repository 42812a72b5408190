"""Random anchors: unit vectors of the seed and the word alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ood_lab.anchors.random import Random
from ood_lab.errors import RunError
from tests.cases import each

NAMES = ("cat", "dog", "oak_tree", "ship")


def embedded(names: tuple[str, ...] = NAMES, **changes: Any) -> dict[str, Tensor]:
    made = Random(names, **{"words": {}, "seed": 0, "dimension": 16, **changes})
    return dict(zip(names, made.embed(), strict=True))


@each("dimension", [1, 2, 16, 768])
def test_anchors_have_unit_norm(dimension: int) -> None:
    for anchor in embedded(dimension=dimension).values():
        assert (anchor.dtype, anchor.shape) == (torch.float32, (dimension,))
        assert anchor.double().norm().item() == pytest.approx(1, abs=1e-6)


def test_an_anchor_does_not_depend_on_the_other_classes_or_on_what_was_drawn_before() -> None:
    whole = embedded()
    torch.manual_seed(7)
    for names in [NAMES[::-1], ("ship",), ("truck", "dog", "ship")]:
        for name, anchor in embedded(names).items():
            if name in whole:
                assert torch.equal(anchor, whole[name]), name


def test_seeds_and_words_decide_anchors() -> None:
    first, other = embedded(), embedded(seed=1)
    assert len({tuple(anchor.tolist()) for found in (first, other) for anchor in found.values()}) == 2 * len(NAMES)


def test_an_anchor_is_that_of_the_word_for_a_class() -> None:
    words = embedded(words={"cat": "puma"})
    assert torch.equal(words["cat"], embedded(("puma",))["puma"])
    assert torch.equal(words["dog"], embedded()["dog"])
    assert torch.equal(words["oak_tree"], embedded(("oak",))["oak"])
    assert not torch.equal(words["cat"], embedded()["cat"])


def test_anchors_point_anywhere() -> None:
    anchors = torch.stack(list(embedded(tuple(f"word{i}" for i in range(120)), dimension=64).values())).double()
    cosines = (anchors @ anchors.T)[~torch.eye(120, dtype=torch.bool)]
    assert cosines.std().item() == pytest.approx(1 / 8, rel=0.05)
    assert cosines.mean().abs() < 0.01


def test_items_are_the_classes_in_their_order() -> None:
    made = Random(NAMES, words={"ship": "boat"}, seed=3, dimension=8)
    assert (made.count, made.shard_items, made.classes) == (4, 4, NAMES)
    assert made.about == {"words": ["cat", "dog", "oak", "boat"]}
    items = made.produce(0, 4)
    assert set(items) == {"anchors"}
    assert np.array_equal(items["anchors"], made.embed().numpy())
    pieces = [made.produce(start, stop)["anchors"] for start, stop in [(0, 1), (1, 3), (3, 4)]]
    assert np.array_equal(np.concatenate(pieces), items["anchors"])


def test_a_word_for_a_class_that_there_is_not_is_refused() -> None:
    with pytest.raises(RunError, match=r"anchors\.words: no class 'cow'; the classes are cat, dog, oak_tree, ship"):
        Random(NAMES, words={"cow": "ox"}, seed=0, dimension=4)

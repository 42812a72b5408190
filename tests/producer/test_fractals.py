"""Fractals as a producer: the pictures of the data set of that name, however they are asked for."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ood_lab.dataset.fractals import Fractals as Set
from ood_lab.producer.fractals import Fractals
from tests.cases import each


def test_they_are_those_of_the_data_set() -> None:
    about = {"name": "f", "root": "", "layouts": {}, "how_to_get": "", "licence": ""}
    images = Set(**about, mean=None, std=None, recipe=None, count=130, native_side=16, seed=3).load("ood")
    made = Fractals(count=130, shard_items=50, side=16, seed=3).produce(0, 130)["images"]
    assert made.shape == (130, 16, 16, 3)
    assert np.array_equal(made, images.pixels.permute(0, 2, 3, 1).numpy())


@each("parts", [[0, 7, 100, 130], [0, 99, 101, 130], [0, 130]])
def test_a_picture_does_not_depend_on_what_it_is_made_with(parts: list[int]) -> None:
    producer = Fractals(count=130, shard_items=50, side=8, seed=0)
    pieces = [producer.produce(a, b)["images"] for a, b in pairwise(parts)]
    assert np.array_equal(np.concatenate(pieces), producer.produce(0, 130)["images"])


def test_another_seed_makes_other_pictures() -> None:
    first, second = (Fractals(count=5, shard_items=5, side=8, seed=seed).produce(0, 5)["images"] for seed in (0, 1))
    assert not np.array_equal(first, second)

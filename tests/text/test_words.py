"""The words of classes, and reading those that a set of anchors was made with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ood_lab.errors import RunError
from ood_lab.reader.shards import MANIFEST, Manifest, Shard
from ood_lab.text.anchors import load_anchors, load_words
from ood_lab.text.words import SYNONYMS, words_of
from tests.cases import each

CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
CIFAR100 = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
    man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
    pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
    skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
    tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
IMAGENET = " ".join(name for name in SYNONYMS if name.startswith("n0"))


@each(
    ("name", "word"),
    [
        ("aquarium_fish", "fish"),
        ("lawn_mower", "mower"),
        ("sweet_pepper", "peppers"),
        ("pickup_truck", "pickup"),
        ("willow_tree", "willow"),
        ("chimpanzee", "chimp"),
        ("n01498041", "stingray"),
        ("n02129604", "tiger"),
        ("n07745940", "strawberry"),
        ("cat", "cat"),
        ("traffic_light_pole", "traffic light pole"),
    ],
)
def test_a_name_stands_for_itself_or_for_the_word_that_is_known(name: str, word: str) -> None:
    assert words_of(["x", name], {}) == ("x", word)


def test_words_that_are_given_come_first() -> None:
    own = {"aquarium_fish": "goldfish", "cat": "tom_cat"}
    assert words_of(["dog", "cat", "aquarium_fish", "oak_tree"], own) == ("dog", "tom_cat", "goldfish", "oak")


def test_a_word_for_a_class_that_there_is_not_is_refused() -> None:
    with pytest.raises(RunError, match=r"^anchors\.words: no class 'cow'; the classes are cat, aquarium_fish$"):
        words_of(["cat", "aquarium_fish"], {"cat": "puma", "cow": "ox"})


@each(("names", "count"), [(CIFAR10, 10), (CIFAR100, 100), (IMAGENET, 100)])
def test_every_class_of_the_benchmarks_has_one_word_of_its_own(names: str, count: int) -> None:
    words = words_of(names.split(), {})
    assert len(set(words)) == len(words) == count
    assert all(word.isalpha() and word.islower() for word in words)


def stored(folder: Path, name: str = "anchors", about: dict[str, Any] | None = None) -> Path:
    shards = []
    for number, count in enumerate((2, 1)):
        file = f"{number}.safetensors"
        save_file({name: torch.arange(4.0).expand(count, 4) + 10 * number}, folder / file)
        shards.append(Shard(file, count, (folder / file).stat().st_size, ""))
    (folder / MANIFEST).write_text(Manifest("key", tuple(shards), ("a", "b", "c"), about or {}).text())
    return folder


def test_anchors_and_words_are_read_from_a_set(tmp_path: Path) -> None:
    folder = stored(tmp_path, about={"words": ["ant", "bee", "cat"]})
    expected = torch.tensor([[0.0, 1, 2, 3], [0, 1, 2, 3], [10, 11, 12, 13]])
    assert torch.equal(load_anchors(folder), expected)
    assert load_words(folder) == ("ant", "bee", "cat")


def test_another_set_has_neither_anchors_nor_words(tmp_path: Path) -> None:
    folder = stored(tmp_path, "images")
    with pytest.raises(RunError, match="is no set of anchors; make one with task=anchors"):
        load_words(folder)
    with pytest.raises(RunError, match="'anchors'"):
        load_anchors(folder)
    for load in (load_words, load_anchors):
        with pytest.raises(RunError, match="is not there"):
            load(tmp_path / "nothing")


def test_two_classes_of_one_word_are_refused() -> None:
    with pytest.raises(RunError, match="ox, cow have one word, 'ox'"):
        words_of(("cat", "ox", "cow"), {"cow": "ox"})

"""Images that another run makes: the auxiliary set is its shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ood_lab.config.image_sets import image_set_config
from ood_lab.errors import RunError
from ood_lab.files.shards import ShardedSet
from ood_lab.producer.fractals import Fractals
from ood_lab.task.build import build


def test_the_auxiliary_set_is_the_shards(tmp_path: Path) -> None:
    producer = Fractals(count=30, shard_items=20, side=8, seed=0)
    ShardedSet(tmp_path, "key", 30, 20, producer.produce).ensure()
    node = {**image_set_config("synthesized", "nowhere"), "root": str(tmp_path)}
    listing = build(node).listing("auxiliary")
    images = np.stack([np.asarray(listing.image(row)) for row in range(30)])
    assert np.array_equal(images, producer.produce(0, 30)["images"])
    assert len(listing.files) == 3, "the manifest and two shards: other images are noticed by them"


def test_shards_that_are_not_there_are_named(tmp_path: Path) -> None:
    node = {**image_set_config("synthesized", "nowhere"), "root": str(tmp_path)}
    with pytest.raises(RunError, match=r"manifest.json is not there\. Made first by the run that needs it"):
        build(node).listing("auxiliary")

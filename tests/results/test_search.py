"""The searches of a run's detectors: read where they can be."""

from __future__ import annotations

import json
from pathlib import Path

from ood_lab.results.search import read_search, search_path, validation_auroc

NODE = {"_target_": "ood_lab.scorer.knn.KNN", "k": 5}


def test_the_best_trial_of_a_search_is_what_it_was_chosen_by(tmp_path: Path) -> None:
    path = search_path(tmp_path, "knn", NODE)
    assert read_search(path) == {}
    assert validation_auroc(tmp_path, "knn", NODE) is None
    found = {"trials": [{"auroc": 0.7}, {"auroc": 0.9}, {"auroc": None}]}
    path.parent.mkdir()
    path.write_text(json.dumps(found))
    assert read_search(path) == found
    assert validation_auroc(tmp_path, "knn", NODE) == 0.9
    assert validation_auroc(tmp_path, "knn", NODE | {"k": 6}) is None, "other options have a search of their own"


def test_a_damaged_search_is_none_and_stays(tmp_path: Path) -> None:
    path = search_path(tmp_path, "knn", NODE)
    path.parent.mkdir()
    for damage in (b"", b'{"trials": [{"au', b"[1, 2]", b"null", b"3", b"\xff\xfe\x00"):
        path.write_bytes(damage)
        assert read_search(path) == {}
        assert validation_auroc(tmp_path, "knn", NODE) is None
        assert path.read_bytes() == damage

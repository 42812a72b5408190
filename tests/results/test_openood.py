"""The score file against what OpenOOD's Evaluator keeps and computes from it."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ood_lab.evaluation.metrics import ood_metrics
from ood_lab.results.openood import Scored, postprocessor, score_file


def scored(rows: int, seed: int, shift: float = 0.0, labelled: bool = True) -> Scored:
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 5, rows) if labelled else np.full(rows, -1)
    return Scored(draw.normal(shift, 1, rows), draw.integers(0, 5, rows), labels)


TEST, VAL = scored(50, 0), scored(20, 1)
GROUPS = {
    "near": {"tiny_imagenet": scored(30, 2, 1.0, False)},
    "far": {"textures": scored(40, 3, 2.0, False), "svhn": scored(10, 4, 2.0, False)},
}


def test_every_set_is_a_list_of_predictions_confidences_and_labels_under_openoods_names() -> None:
    content = pickle.loads(score_file(TEST, VAL, GROUPS))
    assert content["id"].keys() == {"train", "val", "test"}
    assert content["id"]["train"] is None
    assert list(content["ood"]) == ["val", "near", "far"]
    assert {g: list(content["ood"][g]) for g in ("near", "far")} == {"near": ["tin"], "far": ["texture", "svhn"]}
    predicted, confidence, labels = content["id"]["test"]
    np.testing.assert_array_equal(predicted, TEST.predicted)
    np.testing.assert_array_equal(confidence, -TEST.scores)
    np.testing.assert_array_equal(labels, TEST.labels)
    assert set(content["ood"]["far"]["svhn"][2]) == {-1}
    np.testing.assert_array_equal(content["id_preds"], TEST.predicted)


def test_openoods_arithmetic_on_the_file_gives_our_metrics() -> None:
    content = pickle.loads(score_file(TEST, None, GROUPS))
    assert content["id"]["val"] is None
    _, id_conf, id_label = content["id"]["test"]
    for name, ours in (("texture", GROUPS["far"]["textures"]), ("svhn", GROUPS["far"]["svhn"])):
        _, conf, label = content["ood"]["far"][name]
        is_ood = np.concatenate([id_label, label]) == -1
        theirs = roc_auc_score(is_ood, -np.concatenate([id_conf, conf]))
        assert theirs == pytest.approx(ood_metrics(TEST.scores, ours.scores)["auroc"])


def test_detectors_have_openoods_names() -> None:
    assert [postprocessor(n) for n in ("maxlogit", "energy", "knn", "vim")] == ["mls", "ebo", "knn", "vim"]

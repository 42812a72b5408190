"""Features of other programs: every form is read alike, and what does not fit together is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ood_lab.errors import RequestError
from ood_lab.evaluation.given_features import GivenFeatures
from ood_lab.scorer import build_scorer
from ood_lab.types import FeatureSet, LinearHead
from tests.cases import each

RANDOM = np.random.default_rng(0)
TRAIN, LABELS = RANDOM.normal(size=(30, 4)), np.arange(30) % 3
TEST, OOD = RANDOM.normal(size=(12, 4)), RANDOM.normal(size=(9, 4))
WEIGHT, BIAS = RANDOM.normal(size=(3, 4)), RANDOM.normal(size=3)


def given(**changed: Any) -> GivenFeatures:
    sets: dict[str, Any] = {"train": (TRAIN, LABELS), "test": (TEST, LABELS[:12]), "ood": {"noise": OOD}}
    return GivenFeatures(**{**sets, "head": (WEIGHT, BIAS), **changed})


def test_logits_are_those_of_the_head_and_the_accuracy_is_theirs() -> None:
    found = given()
    logits = TEST.astype(np.float32) @ WEIGHT.astype(np.float32).T + BIAS.astype(np.float32)
    np.testing.assert_allclose(found.of("test").tensors["logits"].numpy(), logits, rtol=1e-5)
    assert found.accuracy() == pytest.approx((logits.argmax(1) == LABELS[:12]).mean())
    assert (found.classes, found.width, found.names) == (3, 4, ["test", "noise"])


FORMS = {
    "pair": (TRAIN, LABELS),
    "mapping": {"features": TRAIN, "labels": LABELS},
    "feature set": FeatureSet(torch.tensor(TRAIN), torch.tensor(TRAIN @ WEIGHT.T + BIAS), torch.tensor(LABELS)),
    "lists": (TRAIN.tolist(), LABELS.tolist()),
    "big-endian": (TRAIN.astype(">f4"), LABELS.astype(">i8")),
    "list of two": [TRAIN, LABELS],
    "rows that require gradients": ([torch.tensor(row, requires_grad=True) for row in TRAIN], LABELS.tolist()),
    "halves": (torch.tensor(TRAIN).half().double().numpy(), LABELS.astype(np.uint8)),
}


@each("form", list(FORMS))
def test_every_form_of_a_set_is_read_alike(form: str) -> None:
    read = given(train=FORMS[form]).of("train").tensors
    assert read["features"].dtype == torch.float32
    torch.testing.assert_close(read["features"], torch.tensor(TRAIN).float(), rtol=1e-3, atol=1e-3)
    assert read["labels"].tolist() == LABELS.tolist()


def test_every_form_of_a_head_is_read_alike() -> None:
    layer = torch.nn.Linear(4, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(WEIGHT))
        layer.bias.copy_(torch.tensor(BIAS))
    pair = LinearHead(torch.tensor(WEIGHT), torch.tensor(BIAS))
    for form in (layer, pair, (WEIGHT, BIAS), {"weight": WEIGHT, "bias": BIAS}):
        head = given(head=form).head
        assert head is not None
        torch.testing.assert_close(head.weight, torch.tensor(WEIGHT).float())
        torch.testing.assert_close(head.bias, torch.tensor(BIAS).float())
    alone = given(head=WEIGHT).head
    assert alone is not None
    assert alone.bias.tolist() == [0, 0, 0]


BROKEN = TRAIN.copy()
BROKEN[7, 2] = np.nan
WRONG = {
    "another width": ({"ood": {"noise": OOD[:, :3]}}, "noise: features of width 3, and those of train have 4"),
    "NaN": ({"train": (BROKEN, LABELS)}, "train features: 1 of 30 rows with NaN or infinities, row 7 first"),
    "label above": ({"train": (TRAIN, LABELS + 1)}, "train labels: 3 in row 2; expected 0 to 2"),
    "label below": ({"train": (TRAIN, LABELS - 2)}, "train labels: -2 in row 0; expected 0 to 2"),
    "test label": ({"test": (TEST, LABELS[:12] + 9)}, "test labels: 9 in row 0"),
    "count of labels": ({"train": (TRAIN, LABELS[:5])}, "train: 30 rows of features and 5 of labels"),
    "half labels": ({"train": (TRAIN, LABELS + 0.5)}, "train labels: not whole numbers"),
    "head of another width": ({"head": (WEIGHT[:, :2], BIAS)}, "head: its weight is [3, 2], for features of width 2"),
    "head turned": ({"head": WEIGHT.T}, "The weight looks transposed: give [C, D], [3, 4]"),
    "head turned, with a bias": ({"head": (WEIGHT.T, BIAS)}, "The weight looks transposed: give [C, D], [3, 4]"),
    "head of no class": ({"head": WEIGHT[:0]}, "its weight is [0, 4], of no class"),
    "bias": ({"head": (WEIGHT, BIAS[:2])}, "a weight of 3 classes and a bias of 2"),
    "logits of another head": (
        {"train": {"features": TRAIN, "logits": TRAIN}, "test": {"features": TEST, "logits": TEST},
         "ood": {"noise": {"features": OOD, "logits": OOD}}},
        "head: its weight is [3, 4], of 3 classes; the given logits have 4 columns",
    ),
    "maps": ({"train": TRAIN.reshape(30, 2, 2)}, "train features: shape [30, 2, 2]; expected [N, D]; pool maps"),
    "no rows": ({"test": TEST[:0]}, "test features: no rows"),
    "no ood": ({"ood": {}}, "ood: expected OOD sets by name"),
    "ood without names": ({"ood": OOD}, "ood: expected OOD sets by name"),
    "name": ({"ood": {"test": OOD}}, "an OOD set can't be called 'test'"),
    "misspelled": ({"train": {"features": TRAIN, "label": LABELS}}, "holds 'label'"),
    "ragged": ({"train": [[1.0, 2.0], [1.0]]}, "train features: not an array of numbers"),
    "text": ({"train": [["a"]]}, "train features: not an array of numbers"),
    "triple": ({"train": (TRAIN, LABELS, LABELS)}, "train: a tuple of 3"),
}  # fmt: skip


@each("case", list(WRONG))
def test_what_does_not_fit_is_refused_by_name(case: str) -> None:
    changed, words = WRONG[case]
    with pytest.raises(RequestError) as error:
        given(**changed)
    assert words in str(error.value)


def test_logits_of_some_sets_alone_are_refused() -> None:
    with pytest.raises(RequestError, match="noise has no logits, and train has"):
        given(
            train={"features": TRAIN, "logits": TRAIN[:, :3]},
            test={"features": TEST, "logits": TEST[:, :3]},
            head=None,
        )


def test_a_detector_is_told_what_it_lacks() -> None:
    bare = given(train=TRAIN, test=TEST, head=None)
    expected = {"knn": None, "mahalanobis": "class labels", "rmds": "class labels", "msp": "logits", "vim": "head"}
    for name, words in expected.items():
        why = bare.lacks(build_scorer(name))
        assert (why is None) if words is None else words in str(why)
    assert "images" in str(given().lacks(build_scorer("odin")))
    assert given().lacks(build_scorer("odin", epsilon=0.0)) is None
    assert "shifts" in str(given().lacks(build_scorer("csi")))


def test_labels_of_ood_sets_and_unknown_test_labels_do_not_matter() -> None:
    found = given(ood={"noise": (OOD, np.arange(9) + 100)}, test=(TEST, np.r_[np.full(6, -1), LABELS[6:12]]))
    assert (found.of("noise").tensors["labels"] == -1).all()
    logits = found.of("test").tensors["logits"][6:].argmax(1).numpy()
    assert found.accuracy() == pytest.approx((logits == LABELS[6:12]).mean())


def test_the_key_of_a_set_changes_with_its_content_alone() -> None:
    assert given().of("train").key == given().of("train").key
    assert given().of("train").key != given(train=(TRAIN + 1e-3, LABELS)).of("train").key

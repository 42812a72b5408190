"""What holds of each detector: unfitted use is said, the inputs stay, and a row's score is its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ood_lab.config.groups import groups
from ood_lab.scorer import build_scorer
from ood_lab.scorer.base import NotFittedError, Scorer
from ood_lab.types import FeatureSet, LinearHead
from tests.cases import each
from tests.scorer.case import DIM, TEST, TRAIN, as_given, head

NAMES = groups()["scorer"]
# What they give where the network has one class: a constant, by their formulas.
ONE_CLASS = {"msp": 0, "entropy": 0, "gen": 0, "gradnorm": 0, "odin": 0, "kl_matching": 0, "rmds": 0}


def fitted(name: str, train: FeatureSet = TRAIN, single: LinearHead | None = None) -> Scorer:
    given = as_given(name, train)
    return build_scorer(name).fit(given, head=single or head(), val=given)


@each("name", NAMES)
def test_nothing_is_written_into_the_features(name: str) -> None:
    before = [t.clone() for t in (*TRAIN, *TEST) if t is not None]
    fitted(name).score(as_given(name, TEST))
    after = [t for t in (*TRAIN, *TEST) if t is not None]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@each("name", NAMES)
def test_a_rows_score_does_not_depend_on_the_others(name: str) -> None:
    scorer = fitted(name)
    data = as_given(name, TEST)
    whole = scorer.score(data)
    assert whole.shape == (len(data.features),)
    rows = [FeatureSet(data.features[i : i + 1], data.logits[i : i + 1]) for i in range(len(data.features))]
    torch.testing.assert_close(torch.cat([scorer.score(row) for row in rows]), whole, rtol=1e-6, atol=1e-8)


def test_before_fit_a_detector_scores_or_says_that_it_is_not_fitted() -> None:
    ready = set()
    for name in NAMES:
        try:
            build_scorer(name).score(as_given(name, TEST))
            ready.add(name)
        except NotFittedError:
            continue
    logits_alone = {"msp", "maxlogit", "energy", "entropy", "gen", "gradnorm", "odin", "godin"}
    assert ready == {*logits_alone, "csi_joint", "absent_class", "attacked", "weighted_energy"}


NEEDS = [(name, need) for name in NAMES for need in build_scorer(name).requires]


@each(("name", "need"), NEEDS)
def test_what_a_detector_needs_and_is_not_given_is_said(name: str, need: str) -> None:
    given = as_given(name, TRAIN)
    message = "needs the classifier's head" if need == "head" else "needs the training labels"
    with pytest.raises(ValueError, match=message):
        build_scorer(name).fit(
            given._replace(labels=None) if need == "labels" else given, head=None if need == "head" else head()
        )


@each("name", [name for name, need in NEEDS if need == "head"])
def test_a_head_of_another_network_is_said(name: str) -> None:
    with pytest.raises(ValueError, match=r"the head's weight is \(3, 4\); logits and features say \(5, 16\)"):
        build_scorer(name).fit(TRAIN, head=LinearHead(torch.zeros(3, 4), torch.zeros(3)))


@each("name", NAMES)
@each("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_named(name: str, value: float) -> None:
    for part in ("features", "logits"):
        broken = getattr(TRAIN, part).clone()
        broken[[3, 7], 2] = value
        data = as_given(name, TRAIN._replace(**{part: broken}))
        message = rf"the {part} of 2 of 200 rows aren't finite, row 3 first"
        with pytest.raises(ValueError, match=rf"training set: {message}"):
            build_scorer(name).fit(data, head=head())
        with pytest.raises(ValueError, match=rf"set to score: {message}"):
            fitted(name).score(data)


@each("name", NAMES)
def test_a_training_set_without_rows_is_named(name: str) -> None:
    none = as_given(name, FeatureSet(TRAIN.features[:0], TRAIN.logits[:0], TRAIN.labels[:0]))  # type: ignore[index]
    with pytest.raises(ValueError, match="the training set has no rows"):
        build_scorer(name).fit(none, head=head())


@each("name", sorted(set(NAMES) - {"pood"}))
def test_a_set_without_rows_has_no_scores(name: str) -> None:
    data = as_given(name, TEST)
    assert fitted(name).score(FeatureSet(data.features[:0], data.logits[:0])).shape == (0,)


@each("name", sorted(set(NAMES) - {"pood"}))
def test_a_network_with_one_class_gives_the_documented_value_or_an_error(name: str) -> None:
    only = LinearHead(head().weight[:1], head().bias[:1])

    def of_one_class(data: FeatureSet) -> FeatureSet:
        logits = data.features @ only.weight.T + only.bias
        return as_given(name, FeatureSet(data.features, logits, torch.zeros(len(logits), dtype=torch.int64)))

    train, test = of_one_class(TRAIN), of_one_class(TEST)
    if name == "fdbd":
        with pytest.raises(ValueError, match="has only one"):
            build_scorer(name).fit(train, head=only)
        return
    scores = build_scorer(name).fit(train, head=only).score(test)
    assert scores.isfinite().all()
    if name in ONE_CLASS:
        torch.testing.assert_close(scores, torch.full_like(scores, ONE_CLASS[name]), rtol=0, atol=1e-9)


@each("name", sorted(set(NAMES) - {"pood"}))
def test_fewer_rows_than_dimensions_give_finite_scores_or_an_error(name: str) -> None:
    assert TRAIN.labels is not None
    few = FeatureSet(TRAIN.features[:6], TRAIN.logits[:6], TRAIN.labels[:6])
    assert len(few.features) < DIM
    if name == "vim":
        with pytest.raises(ValueError, match="have nothing outside 8 dimensions; use a smaller dim"):
            fitted(name, few)
        assert build_scorer("vim", dim=3).fit(few, head=head()).score(TEST).isfinite().all()
        return
    assert fitted(name, few).score(as_given(name, TEST)).isfinite().all()


@each("name", ["knn", "nnguide"])
def test_a_k_above_the_bank_is_the_bank(name: str) -> None:
    few = FeatureSet(TRAIN.features[:6], TRAIN.logits[:6], TRAIN.labels)
    alpha = {"alpha": 1.0} if name == "nnguide" else {}
    all_of_it, more = (build_scorer(name, k=k, **alpha).fit(few).score(TEST) for k in (6, 60))
    assert torch.equal(all_of_it, more)


def test_features_alone_will_do_where_a_detector_reads_nothing_else() -> None:
    random = np.random.default_rng(0)
    train, test, labels = random.normal(size=(40, 6)), random.normal(size=(9, 6)), np.arange(40) % 4
    head = LinearHead(torch.randn(4, 6), torch.zeros(4))
    x, y = (torch.tensor(a).float() for a in (train, test))
    whole = [FeatureSet(a, a @ head.weight.T + head.bias, b) for a, b in ((x, torch.tensor(labels)), (y, None))]
    for name, more in {
        "knn": {},
        "mahalanobis": {"labels": labels},
        "vim": {"head": head},
        "msp": {"head": head},
    }.items():
        alone = build_scorer(name).fit(train, **more).score(test)
        torch.testing.assert_close(alone, build_scorer(name).fit(whole[0], head=head).score(whole[1]))
    given = build_scorer("msp").fit(train, logits=whole[0].logits).score(test, logits=whole[1].logits)
    torch.testing.assert_close(given, build_scorer("msp").fit(whole[0]).score(whole[1]))


def test_what_a_detector_lacks_is_said() -> None:
    train = torch.randn(10, 3)
    with pytest.raises(ValueError, match=r"Mahalanobis needs the training labels; call fit\(features, labels=...\)"):
        build_scorer("mahalanobis").fit(train)
    with pytest.raises(ValueError, match="MSP reads logits, too; give them"):
        build_scorer("msp").fit(train)
    with pytest.raises(ValueError, match=r"KNN: features of shape \[3\]; expected \[N, D\]"):
        build_scorer("knn").fit(train[0])

"""OOD metrics against scikit-learn and against counting, on scores of every awkward kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from ood_lab.evaluation.metrics import intervals, ood_metrics
from tests.cases import each

MIRROR = {
    "auroc": "auroc", "aupr_in": "aupr_out", "aupr_out": "aupr_in",
    "fpr95_ood_pos": "fpr95_id_pos", "fpr95_id_pos": "fpr95_ood_pos",
}  # fmt: skip


def fpr_at_95(is_positive: np.ndarray, scores: np.ndarray) -> float:
    fpr, tpr, _ = roc_curve(is_positive, scores, drop_intermediate=False)
    return float(fpr[np.argmax(tpr >= 0.95)])


def reference(id_scores: Any, ood_scores: Any) -> dict[str, float]:
    """The five numbers from scikit-learn."""
    id_scores, ood_scores = np.asarray(id_scores), np.asarray(ood_scores)
    scores = np.concatenate([id_scores, ood_scores]).astype(np.float64)
    is_ood = np.concatenate([np.zeros(len(id_scores), int), np.ones(len(ood_scores), int)])
    precision_in, recall_in, _ = precision_recall_curve(1 - is_ood, -scores)
    precision_out, recall_out, _ = precision_recall_curve(is_ood, scores)
    return {
        "auroc": float(roc_auc_score(is_ood, scores)),
        "aupr_in": float(auc(recall_in, precision_in)),
        "aupr_out": float(auc(recall_out, precision_out)),
        "fpr95_ood_pos": fpr_at_95(is_ood, scores),
        "fpr95_id_pos": fpr_at_95(1 - is_ood, -scores),
    }


def hendrycks(positive: np.ndarray, negative: np.ndarray, level: float = 0.95) -> float:
    """`fpr_and_fdr_at_recall` of Hendrycks and Gimpel, for scores that are high on the positive side."""
    y_true = np.concatenate([np.ones(len(positive)), np.zeros(len(negative))])
    y_score = np.concatenate([positive, negative])
    order = np.argsort(y_score, kind="mergesort")[::-1]
    y_score, y_true = y_score[order], y_true[order]
    threshold_rows = np.r_[np.where(np.diff(y_score))[0], y_true.size - 1]
    tps = np.cumsum(y_true)[threshold_rows]
    fps = 1 + threshold_rows - tps
    recall = tps / tps[-1]
    rows = slice(tps.searchsorted(tps[-1]), None, -1)
    recall, fps = np.r_[recall[rows], 1], np.r_[fps[rows], 0]
    return float(fps[np.argmin(np.abs(recall - level))] / len(negative))


def cases() -> list[tuple[str, np.ndarray, np.ndarray]]:
    draw = np.random.default_rng(0)
    return [
        ("random", draw.normal(0, 1, 500), draw.normal(1, 1, 400)),
        ("reversed", draw.normal(1, 1, 300), draw.normal(-1, 1, 300)),
        ("float32", draw.normal(0, 1, 500).astype(np.float32), draw.normal(1, 1, 400).astype(np.float32)),
        ("tied", draw.integers(0, 4, 500).astype(float), draw.integers(1, 6, 300).astype(float)),
        ("integers", draw.integers(-5, 5, 200), draw.integers(-3, 9, 100)),
        ("constant", np.full(50, 2.0), np.full(30, 2.0)),
        ("one constant side", np.full(50, 0.3), draw.uniform(0, 1, 70)),
        ("separated", np.arange(40.0), np.arange(100.0, 130.0)),
        ("tiny", draw.normal(0, 1e-300, 60), draw.normal(1e-300, 1e-300, 60)),
        ("close float32", (1 + draw.integers(0, 9, 90) * 1e-7).astype(np.float32), np.ones(40, np.float32)),
        ("huge", draw.normal(0, 1e300, 60), draw.normal(1e300, 1e300, 60)),
        ("unbalanced", draw.normal(0, 1, 5000), draw.normal(1, 1, 3)),
        ("unbalanced the other way", draw.normal(0, 1, 3), draw.normal(1, 1, 5000)),
        ("one each", np.array([0.0]), np.array([1.0])),
        ("one each, tied", np.array([1.0]), np.array([1.0])),
        ("exactly 95 of 100", np.arange(100.0), np.arange(100.0) + 0.5),
        ("twenty each", np.arange(20.0), np.arange(20.0)),
    ]


CASES = cases()
finite = st.floats(-1e6, 1e6, allow_nan=False)
coarse = st.integers(-3, 3).map(float)


def sides(elements: Any) -> Any:
    side = st.lists(elements, min_size=1, max_size=60)
    return st.tuples(side, side)


@each(("name", "id_scores", "ood_scores"), CASES)
def test_all_metrics_are_scikit_learns(name: str, id_scores: np.ndarray, ood_scores: np.ndarray) -> None:
    assert ood_metrics(id_scores, ood_scores) == pytest.approx(reference(id_scores, ood_scores), abs=1e-12)


@given(sides(finite) | sides(coarse))
@settings(max_examples=100, deadline=None, database=None)
def test_all_metrics_are_scikit_learns_on_any_scores(pair: tuple[list[float], list[float]]) -> None:
    assert ood_metrics(*pair) == pytest.approx(reference(*pair), abs=1e-12)


@given(sides(coarse | finite))
@settings(max_examples=100, deadline=None, database=None)
def test_auroc_is_the_share_of_pairs_in_order_with_ties_halved(pair: tuple[list[float], list[float]]) -> None:
    wins = [(o > i) + 0.5 * (o == i) for i in pair[0] for o in pair[1]]
    assert ood_metrics(*pair)["auroc"] == pytest.approx(np.mean(wins), abs=1e-12)


def test_infinite_scores_are_counted_like_any_other() -> None:
    inf = float("inf")
    assert ood_metrics([-inf, 0, inf], [inf, inf])["auroc"] == pytest.approx((2 + 2 + 1) / 6)


@each(
    "change",
    [lambda x: 3 * x - 7, np.exp, np.tanh, lambda x: x**3, lambda x: np.sign(x) * np.log1p(abs(x))],
)
@each("rule", ["first", "nearest"])
def test_a_monotone_map_changes_nothing(change: Any, rule: Any) -> None:
    draw = np.random.default_rng(1)
    id_scores, ood_scores = draw.integers(-8, 5, 200) / 4, draw.integers(-5, 8, 150) / 4
    before = ood_metrics(id_scores, ood_scores, rule)
    assert ood_metrics(change(id_scores), change(ood_scores), rule) == before


@given(sides(coarse | finite))
@settings(max_examples=100, deadline=None, database=None)
def test_exchanging_the_sides_with_the_sign_turned_mirrors_the_metrics(pair: tuple[list[float], list[float]]) -> None:
    there, back = ood_metrics(*pair), ood_metrics([-s for s in pair[1]], [-s for s in pair[0]])
    assert back == pytest.approx({MIRROR[name]: value for name, value in there.items()}, abs=1e-12)


def test_a_perfect_detector() -> None:
    perfect = {"auroc": 1.0, "aupr_in": 1.0, "aupr_out": 1.0, "fpr95_ood_pos": 0.0, "fpr95_id_pos": 0.0}
    assert ood_metrics(np.arange(100), np.arange(100, 200)) == perfect


@each("count", [1, 5, 12, 19, 20, 100])
def test_a_perfect_detector_is_perfect_by_either_rule_and_on_any_number_of_images(count: int) -> None:
    for rule in ("first", "nearest"):
        result = ood_metrics(np.arange(count), np.arange(count) + count, rule)  # type: ignore[arg-type]
        assert (result["fpr95_ood_pos"], result["fpr95_id_pos"]) == (0.0, 0.0), rule


def test_order_within_a_side_does_not_matter() -> None:
    draw = np.random.default_rng(2)
    id_scores, ood_scores = draw.integers(0, 9, 80), draw.integers(3, 12, 70)
    before = ood_metrics(id_scores, ood_scores)
    assert ood_metrics(draw.permutation(id_scores), draw.permutation(ood_scores)) == before


def naive_first(positive: np.ndarray, negative: np.ndarray) -> float:
    for threshold in sorted(set(positive) | set(negative), reverse=True):
        if (positive >= threshold).mean() >= 0.95:
            return float((negative >= threshold).mean())
    raise AssertionError


@each(("name", "id_scores", "ood_scores"), CASES[:10])
def test_the_first_rule_is_the_highest_threshold_that_reaches_95_percent(
    name: str, id_scores: np.ndarray, ood_scores: np.ndarray
) -> None:
    result = ood_metrics(id_scores, ood_scores, "first")
    assert result["fpr95_ood_pos"] == pytest.approx(naive_first(ood_scores, id_scores))
    assert result["fpr95_id_pos"] == pytest.approx(naive_first(-id_scores, -ood_scores))


@each(("name", "id_scores", "ood_scores"), CASES)
def test_the_nearest_rule_is_hendrycks(name: str, id_scores: np.ndarray, ood_scores: np.ndarray) -> None:
    result = ood_metrics(id_scores, ood_scores, "nearest")
    assert result["fpr95_ood_pos"] == pytest.approx(hendrycks(ood_scores, id_scores))
    assert result["fpr95_id_pos"] == pytest.approx(hendrycks(-id_scores, -ood_scores))


@given(sides(coarse | finite))
@settings(max_examples=100, deadline=None, database=None)
def test_the_nearest_rule_is_hendrycks_on_any_scores(pair: tuple[list[float], list[float]]) -> None:
    id_scores, ood_scores = map(np.array, pair)
    result = ood_metrics(id_scores, ood_scores, "nearest")
    assert result["fpr95_ood_pos"] == pytest.approx(hendrycks(ood_scores, id_scores))
    assert result["fpr95_id_pos"] == pytest.approx(hendrycks(-id_scores, -ood_scores))


def test_the_rules_differ_where_the_nearest_recall_lies_below_95_percent() -> None:
    ood = np.append(np.arange(10.0, 29.0) + 10, 0.0)  # 19 of 20 above every ID score, one below
    ood[:2] = 5.5  # recall 17/20 = 0.85 before the ties, 0.95 with them
    id_scores = np.arange(10.0)
    assert ood_metrics(id_scores, ood, "first")["fpr95_ood_pos"] == pytest.approx(0.4)
    many = np.concatenate([np.full(94, 20.0), np.full(6, -1.0)])
    assert ood_metrics(id_scores, many, "nearest")["fpr95_ood_pos"] == pytest.approx(hendrycks(many, id_scores))
    assert ood_metrics(id_scores, many, "first")["fpr95_ood_pos"] == 1.0


@each(("id_scores", "ood_scores", "named"), [([], [1.0], "id_scores"), ([1.0], [], "ood_scores")])
def test_an_empty_side_is_named(id_scores: list[float], ood_scores: list[float], named: str) -> None:
    with pytest.raises(ValueError, match=f"{named} is empty"):
        ood_metrics(id_scores, ood_scores)


def test_nan_is_named_and_counted() -> None:
    nan = float("nan")
    with pytest.raises(ValueError, match="ood_scores holds 2 NaN"):
        ood_metrics([1.0], [nan, 0.0, nan])
    with pytest.raises(ValueError, match="id_scores holds 1 NaN"):
        ood_metrics(np.array([nan], np.float32), [1.0])


def test_tensors_and_mixed_types_are_accepted_and_left_as_they_were() -> None:
    id_scores, ood_scores = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([5, 2])
    result = ood_metrics(id_scores, ood_scores)
    assert result == ood_metrics([3.0, 1.0, 2.0], [5.0, 2.0])
    assert id_scores.tolist() == [3.0, 1.0, 2.0]
    assert all(type(value) is float for value in result.values())


@given(sides(coarse | finite))
@settings(max_examples=100, deadline=None, database=None)
def test_average_precision_is_scikit_learns(pair: tuple[list[float], list[float]]) -> None:
    id_scores, ood_scores = map(np.array, pair)
    scores = np.concatenate([id_scores, ood_scores])
    is_ood = np.concatenate([np.zeros(len(id_scores)), np.ones(len(ood_scores))])
    ours = ood_metrics(id_scores, ood_scores, aupr_rule="average_precision")
    assert ours["aupr_out"] == pytest.approx(average_precision_score(is_ood, scores), abs=1e-12)
    assert ours["aupr_in"] == pytest.approx(average_precision_score(1 - is_ood, -scores), abs=1e-12)


def test_constant_scores_are_chance_by_auroc_and_worst_by_fpr() -> None:
    ours = ood_metrics(np.full(80, 0.3), np.full(20, 0.3))
    assert (ours["auroc"], ours["fpr95_ood_pos"], ours["fpr95_id_pos"]) == (0.5, 1.0, 1.0)
    assert (ours["aupr_in"], ours["aupr_out"]) == pytest.approx((0.9, 0.6))
    steps = ood_metrics(np.full(80, 0.3), np.full(20, 0.3), aupr_rule="average_precision")
    assert (steps["aupr_in"], steps["aupr_out"]) == pytest.approx((0.8, 0.2))


def bootstrapped(id_scores: np.ndarray, ood_scores: np.ndarray, draws: int, seed: int) -> list[dict[str, float]]:
    """The same resamplings, each measured from its scores."""
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        ids = id_scores[draw.integers(len(id_scores), size=len(id_scores))]
        found.append(ood_metrics(ids, ood_scores[draw.integers(len(ood_scores), size=len(ood_scores))]))
    return found


@each("case", [0, 3, 5])
def test_intervals_are_percentiles_of_resampled_metrics(case: int) -> None:
    _, id_scores, ood_scores = CASES[case]
    expected = bootstrapped(id_scores, ood_scores, 60, 4)
    for name, bounds in intervals(id_scores, ood_scores, 60, np.random.default_rng(4)).items():
        values = [metrics[name] for metrics in expected]
        assert bounds == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])), abs=1e-12)


def test_intervals_cover_the_true_auroc_as_often_as_they_say() -> None:
    truth = 0.7602499389065233  # of normal scores one deviation apart: Phi(1 / sqrt 2)
    draw = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        low, high = intervals(draw.normal(size=150), draw.normal(1, 1, 150), 200, draw)["auroc"]
        covered += low <= truth <= high
    assert 0.90 <= covered / 200 <= 0.99

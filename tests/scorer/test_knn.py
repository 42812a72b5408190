"""Distance to the k-th neighbour against a plain loop and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from ood_lab.errors import RequestError
from ood_lab.scorer import build_scorer
from ood_lab.scorer.base import NotFittedError
from ood_lab.types import FeatureSet
from tests.cases import each


def features(rows: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).mul(5).to(dtype)


def as_set(values: torch.Tensor) -> FeatureSet:
    return FeatureSet(values, torch.zeros(len(values), 2))


def score(train: torch.Tensor, data: torch.Tensor, k: int) -> torch.Tensor:
    return build_scorer("knn", k=k).fit(as_set(train)).score(as_set(data))


def naive(train: torch.Tensor, data: torch.Tensor, k: int) -> list[float]:
    bank = [v / np.linalg.norm(v) for v in train.double().numpy()]
    result = []
    for row in data.double().numpy():
        row = row / np.linalg.norm(row)
        result.append(sorted(float(np.linalg.norm(row - b)) for b in bank)[k - 1])
    return result


@each("k", [1, 5, 30])
def test_it_is_the_distance_to_the_kth_normalised_training_row(k: int) -> None:
    train, data = features(30, 0, torch.float64), features(20, 1, torch.float64)
    assert score(train, data, k).tolist() == pytest.approx(naive(train, data, k), rel=1e-12)


@each("k", [1, 7, 50])
def test_in_float32_it_is_scikit_learns(k: int) -> None:
    train, data = features(300, 2), features(100, 3)
    unit = [v.double().numpy() / np.linalg.norm(v.double().numpy(), axis=1, keepdims=True) for v in (train, data)]
    distances, _ = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(unit[0]).kneighbors(unit[1])
    np.testing.assert_allclose(score(train, data, k).numpy(), distances[:, -1], atol=1e-5)


def test_a_direction_away_from_the_training_rows_scores_higher() -> None:
    train = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, -0.1]])
    near, far = score(train, torch.tensor([[2.0, 0.0], [-1.0, 0.0]]), 2)
    assert far > near
    assert far.item() == pytest.approx(2.0, abs=0.01)


def test_the_length_of_a_feature_does_not_matter() -> None:
    train, data = features(30, 0), features(20, 1)
    torch.testing.assert_close(score(train * 7, data * 0.01, 3), score(train, data, 3), atol=1e-5, rtol=1e-5)


def test_a_k_above_the_number_of_rows_is_that_number() -> None:
    train, data = features(6, 0), features(5, 1)
    assert torch.equal(score(train, data, 1000), score(train, data, 6))


def test_training_rows_are_at_distance_0_from_themselves() -> None:
    train = features(50, 0)
    assert score(train, train, 1).max() < 1e-6


def test_a_repeated_training_row_counts_as_often_as_it_occurs() -> None:
    train = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
    query = torch.tensor([[1.0, 0.0]])
    assert [score(train, query, k).item() for k in (1, 3)] == [0.0, 0.0]
    assert score(train, query, 4).item() == pytest.approx(2**0.5)


def test_a_feature_of_zeros_gives_a_number() -> None:
    assert torch.isfinite(score(features(9, 0), torch.zeros(1, 8), 2)).all()


def test_unfitted_it_says_so() -> None:
    with pytest.raises(NotFittedError, match=r"KNN is not fitted; call fit"):
        build_scorer("knn").score(as_set(features(1, 0)))


def test_fitting_again_forgets_the_first_bank() -> None:
    scorer = build_scorer("knn", k=1).fit(as_set(features(30, 0)))
    scorer.fit(as_set(features(30, 5)))
    data = as_set(features(4, 1))
    assert torch.equal(scorer.score(data), build_scorer("knn", k=1).fit(as_set(features(30, 5))).score(data))


def test_the_configured_k_is_50_in_the_methods_space() -> None:
    scorer = build_scorer("knn")
    assert (scorer.k, scorer.space) == (50, "method")
    assert build_scorer("knn_penultimate").space == "penultimate"


@each(("option", "value"), [("k", 0), ("k", 2.5), ("k", True), ("space", "logits")])
def test_a_value_out_of_range_is_a_wrong_request(option: str, value: object) -> None:
    with pytest.raises(RequestError, match=f"scorer knn: {option}="):
        build_scorer("knn", **{option: value})

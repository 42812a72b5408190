"""Mahalanobis distance against a plain loop and scikit-learn's covariance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import EmpiricalCovariance

from ood_lab.errors import RequestError
from ood_lab.scorer import build_scorer
from ood_lab.scorer.base import NotFittedError
from ood_lab.types import FeatureSet


def features(rows: int, seed: int, dims: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % 3
    mix = torch.randn(dims, dims, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    centres = 6 * torch.randn(3, dims, generator=torch.Generator().manual_seed(98), dtype=torch.float64)
    return torch.randn(rows, dims, generator=draw, dtype=torch.float64) @ mix + centres[labels], labels


def as_set(values: torch.Tensor, labels: torch.Tensor | None = None) -> FeatureSet:
    return FeatureSet(values, torch.zeros(len(values), 3), labels)


def score(train: torch.Tensor, labels: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
    return build_scorer("mahalanobis").fit(as_set(train, labels)).score(as_set(data))


def naive(train: torch.Tensor, labels: torch.Tensor, data: torch.Tensor) -> list[float]:
    x, y = train.double().numpy(), labels.numpy()
    means = {c: x[y == c].mean(0) for c in np.unique(y)}
    covariance = np.zeros((x.shape[1], x.shape[1]))
    for row, label in zip(x, y, strict=True):
        covariance += np.outer(row - means[label], row - means[label]) / len(x)
    inverse = np.linalg.pinv(covariance, hermitian=True)
    return [min(float((row - m) @ inverse @ (row - m)) for m in means.values()) for row in data.double().numpy()]


def test_it_is_the_smallest_squared_distance_to_a_class_mean_under_the_tied_covariance() -> None:
    (train, labels), (data, _) = features(90, 0), features(40, 1)
    assert score(train, labels, data).tolist() == pytest.approx(naive(train, labels, data), rel=1e-9)


def test_it_agrees_with_scikit_learn() -> None:
    (train, labels), (data, _) = features(90, 0), features(40, 1)
    means = torch.stack([train[labels == c].mean(0) for c in range(3)])
    model = EmpiricalCovariance(assume_centered=True).fit((train - means[labels]).numpy())
    expected = np.min([model.mahalanobis((data - mean).numpy()) for mean in means], axis=0)
    np.testing.assert_allclose(score(train, labels, data).numpy(), expected, rtol=1e-9)


def test_float32_features_are_computed_in_float64() -> None:
    (train, labels), (data, _) = features(90, 0), features(40, 1)
    result = score((train + 1000).float(), labels, (data + 1000).float())
    assert result.dtype == torch.float64
    expected = naive((train + 1000).float(), labels, (data + 1000).float())
    assert result.tolist() == pytest.approx(expected, rel=1e-6)


def test_far_features_score_higher_than_class_means() -> None:
    train, labels = features(90, 0)
    mean = train[labels == 1].mean(0)
    at_mean, far = score(train, labels, torch.stack([mean, mean + 100]))
    assert at_mean < 1e-9
    assert far > 100


def test_an_invertible_linear_map_changes_nothing() -> None:
    (train, labels), (data, _) = features(90, 0), features(40, 1)
    mix = torch.randn(5, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    torch.testing.assert_close(score(train @ mix, labels, data @ mix), score(train, labels, data), rtol=1e-6, atol=1e-6)


def test_a_dead_unit_and_a_repeated_one_do_no_harm() -> None:
    (train, labels), (data, _) = features(90, 0), features(40, 1)

    def widen(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, torch.zeros(len(x), 1), x[:, :1]], 1)

    wide = score(widen(train), labels, widen(data))
    assert wide.tolist() == pytest.approx(naive(widen(train), labels, widen(data)), rel=1e-6)
    torch.testing.assert_close(wide, score(train, labels, data), rtol=1e-6, atol=1e-6)


def test_fewer_rows_than_dimensions_give_the_pseudo_inverse() -> None:
    (train, labels), (data, _) = features(12, 0, dims=30), features(10, 1, dims=30)
    assert score(train, labels, data).tolist() == pytest.approx(naive(train, labels, data), rel=1e-6)


def test_features_without_any_spread_give_numbers() -> None:
    labels = torch.arange(6) % 3
    assert torch.isfinite(score(torch.ones(6, 4), labels, torch.rand(3, 4))).all()


def test_a_class_without_training_rows_has_no_mean() -> None:
    (train, labels), _ = features(90, 0), None
    data = torch.randn(20, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    present = labels != 1
    result = score(train[present], labels[present], data)
    assert result.tolist() == pytest.approx(naive(train[present], labels[present], data), rel=1e-9)


def test_unfitted_it_says_so() -> None:
    with pytest.raises(NotFittedError, match="Mahalanobis is not fitted"):
        build_scorer("mahalanobis").score(as_set(torch.zeros(1, 3)))


def test_without_labels_it_says_so() -> None:
    with pytest.raises(ValueError, match="needs the training labels"):
        build_scorer("mahalanobis").fit(as_set(torch.rand(5, 3)))


def test_an_unknown_space_is_a_wrong_request() -> None:
    with pytest.raises(RequestError, match="space='logits': expected one of method, penultimate, projection"):
        build_scorer("mahalanobis", space="logits")

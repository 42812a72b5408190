"""GReg's regularisation among features: a linear head in loops, what is trained, and points without a graph."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ood_lab.network import Network
from ood_lab.parts import Dimensions, Rows, View
from ood_lab.regularizer.feature_gradient import FeatureGradient
from tests.cases import each
from tests.views import assert_close, differences, dot, normal

C, D, ROWS, K = 3, 5, 6, 4
LABELS = torch.zeros(ROWS, dtype=torch.int64)
OUTPUTS = [C, C + 1]


def unused(*_: Any) -> Any:
    raise AssertionError("features ask for no pass of images")


def classifier(outputs: int = C) -> nn.Linear:
    fc = nn.Linear(D, outputs).double()
    for number, parameter in enumerate(fc.parameters()):
        parameter.data.copy_(normal(*parameter.shape, seed=5 + number))
    return fc


def points() -> tuple[Tensor, Tensor]:
    return normal(ROWS, D), normal(K, D, seed=1)


def term(m_in: float | None = None, m_out: float | None = None) -> FeatureGradient:
    return FeatureGradient(Dimensions(C, D, 4), m_in=m_in, m_out=m_out)


def rows(features: Tensor) -> Rows:
    """With outputs of the step that are of no use."""
    return Rows(features=features, logits=torch.full((len(features), C), torch.nan)).of_classes(C)


def loss(
    fc: nn.Module, features: Tensor, outliers: Tensor, m_in: float | None = None, m_out: float | None = None
) -> Tensor:
    made, network = term(m_in, m_out), Network(fc, unused, fc)
    return made.loss(View(rows(features), LABELS, {}, rows(outliers), network=network).of(made))


def energy_and_slope(row: list, weight: list, bias: list) -> tuple[float, list[float]]:
    """S and grad S = -sum_c p_c w_c of the first C outputs."""
    shares = [math.exp(dot(row, weight[c]) + bias[c]) for c in range(C)]
    total = sum(shares)
    slope = [-sum(shares[c] / total * weight[c][d] for c in range(C)) for d in range(len(row))]
    return -math.log(total), slope


def naive(
    features: list, outliers: list, weight: list, bias: list, m_in: float = math.inf, m_out: float = -math.inf
) -> float:
    """Equation 3, one row after the other."""
    total = 0.0
    for row in features:
        s, slope = energy_and_slope(row, weight, bias)
        total += math.sqrt(dot(slope, slope)) / len(features) if s <= m_in else 0.0
    for row in outliers:
        s, slope = energy_and_slope(row, weight, bias)
        total += math.sqrt(dot(slope, slope)) / len(outliers) if s >= m_out else 0.0
    return total


def margins(fc: nn.Linear) -> tuple[float, float]:
    """Between the energies, so that some rows of each side count and some don't."""
    given = fc.weight.tolist(), fc.bias.tolist()
    ids, outliers = (sorted(energy_and_slope(row, *given)[0] for row in side.tolist()) for side in points())
    return (ids[2] + ids[3]) / 2, (outliers[1] + outliers[2]) / 2


@each("outputs", OUTPUTS)
@each("graph", [True, False])
@each("some", [True, False])
def test_it_is_equation_3_with_the_gradient_of_a_linear_head(some: bool, graph: bool, outputs: int) -> None:
    fc, (features, outliers) = classifier(outputs), points()
    bounds = margins(fc) if some else (math.inf, -math.inf)
    expected = naive(features.tolist(), outliers.tolist(), fc.weight.tolist(), fc.bias.tolist(), *bounds)
    assert expected > 0.1
    found = loss(fc, features.requires_grad_(graph), outliers, *bounds)
    assert found.item() == pytest.approx(expected, abs=1e-12)


@each("rows", [1, 3])
def test_each_side_is_a_mean_by_itself(rows: int) -> None:
    fc, (features, outliers) = classifier(), points()
    expected = naive(features[:rows].tolist(), outliers.tolist(), fc.weight.tolist(), fc.bias.tolist())
    assert loss(fc, features[:rows], outliers).item() == pytest.approx(expected, abs=1e-12)


def test_the_gradient_of_the_score_is_that_by_finite_differences() -> None:
    fc, (features, _) = classifier(), points()
    given = fc.weight.tolist(), fc.bias.tolist()
    for row in features:
        _, slope = energy_and_slope(row.tolist(), *given)
        by_differences = differences(lambda x: energy_and_slope(x, *given)[0], row)
        assert_close(torch.tensor(slope, dtype=torch.float64), by_differences)


def test_without_a_margin_all_rows_of_its_side_count() -> None:
    fc, (features, outliers) = classifier(), points()
    m_in, m_out = margins(fc)
    found = [loss(fc, features, outliers, *bounds).item() for bounds in ((None, None), (None, m_out), (m_in, None))]
    given = features.tolist(), outliers.tolist(), fc.weight.tolist(), fc.bias.tolist()
    expected = [naive(*given), naive(*given, m_out=m_out), naive(*given, m_in=m_in)]
    assert found == pytest.approx(expected, abs=1e-12)
    assert len(set(found)) == 3


def trained(fc: nn.Linear, bounds: tuple[float, float]) -> None:
    """The head has the gradient of the loops."""
    features, outliers = (side.tolist() for side in points())
    weight, bias = fc.weight.tolist(), fc.bias.tolist()
    assert_close(fc.weight.grad, differences(lambda w: naive(features, outliers, w, bias, *bounds), fc.weight))
    assert_close(fc.bias.grad, differences(lambda b: naive(features, outliers, weight, b, *bounds), fc.bias))


@each("outputs", OUTPUTS)
@each("some", [True, False])
def test_it_trains_the_head_and_rows_with_a_graph(some: bool, outputs: int) -> None:
    fc, (features, outliers) = classifier(outputs), points()
    bounds = margins(fc) if some else (math.inf, -math.inf)
    features.requires_grad_()
    loss(fc, features, outliers, *bounds).backward()
    trained(fc, bounds)
    others, weight, bias = outliers.tolist(), fc.weight.tolist(), fc.bias.tolist()
    assert_close(features.grad, differences(lambda x: naive(x, others, weight, bias, *bounds), features))
    assert outliers.grad is None


def test_the_network_behind_the_features_is_trained_too() -> None:
    fc, (features, outliers), below = classifier(), points(), normal(D, D, seed=8).requires_grad_()
    loss(fc, features @ below, outliers).backward()
    others, weight, bias = outliers.tolist(), fc.weight.tolist(), fc.bias.tolist()

    def at(matrix: list) -> float:
        passed = [[dot(row, column) for column in zip(*matrix, strict=True)] for row in features.tolist()]
        return naive(passed, others, weight, bias)

    assert_close(below.grad, differences(at, below))


@each("outputs", OUTPUTS)
@each("some", [True, False])
def test_points_without_a_graph_train_the_head_alone(some: bool, outputs: int) -> None:
    fc, (features, outliers) = classifier(outputs), points()
    bounds = margins(fc) if some else (math.inf, -math.inf)
    before = features.clone(), outliers.clone()
    loss(fc, features, outliers, *bounds).backward()
    trained(fc, bounds)
    for given, kept in zip((features, outliers), before, strict=True):
        assert torch.equal(given, kept)
        assert not given.requires_grad
        assert given.grad is None


def test_outlier_features_with_a_graph_are_trained_as_well() -> None:
    fc, (features, outliers) = classifier(), points()
    outliers.requires_grad_()
    loss(fc, features, outliers).backward()
    ids, weight, bias = features.tolist(), fc.weight.tolist(), fc.bias.tolist()
    assert_close(outliers.grad, differences(lambda x: naive(ids, x, weight, bias), outliers))


def test_a_gradient_of_zero_trains_nothing_and_gives_no_nan() -> None:
    fc, (features, outliers) = classifier(), points()
    nn.init.zeros_(fc.weight)
    found = loss(fc, features.requires_grad_(), outliers)
    found.backward()
    assert found.item() == 0
    for values in (fc.weight, fc.bias, features):
        assert values.grad is not None
        assert values.grad.abs().max() == 0


def test_descent_makes_the_score_flat() -> None:
    fc, (features, outliers) = classifier(), points()
    before = loss(fc, features, outliers).item()
    for _ in range(40):
        fc.zero_grad()
        loss(fc, features, outliers).backward()
        with torch.no_grad():
            fc.weight -= 0.2 * fc.weight.grad
    assert loss(fc, features, outliers).item() < 0.2 * before


def test_it_declares_features_and_that_the_head_is_trained_and_counts_all_rows_by_default() -> None:
    assert FeatureGradient.reads == FeatureGradient.reads_outliers == ("features", "logits")
    assert FeatureGradient.at_most == (("m_in", "m_out"),)
    made = FeatureGradient(Dimensions(C, D, 4), weight=0.5)
    made.name = "feature_gradient"
    assert (made.m_in, made.m_out) == (math.inf, -math.inf)
    assert (made.keeps(), made.weights()) == ({}, {"feature_gradient": 0.5})

"""The linear head: all outputs are classes, and projections lie on the sphere."""

from __future__ import annotations

import math

import pytest
import torch

from ood_lab.head.linear import Linear
from tests.views import dot, normalise

WIDTH, D, C, ROWS = 6, 4, 3, 5


def features() -> torch.Tensor:
    return torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(1))


def head(projects: bool = True) -> Linear:
    torch.manual_seed(0)
    return Linear(WIDTH, projects, projection_dim=D)


def outputs() -> torch.Tensor:
    return torch.randn(ROWS, C, generator=torch.Generator().manual_seed(2))


def test_detectors_are_given_all_outputs_as_logits_and_nothing_else() -> None:
    seen = head().tested(features(), outputs())
    assert set(seen) == {"logits"}
    assert torch.equal(seen["logits"], outputs())
    assert torch.equal(Linear.class_logits(outputs()), outputs())
    assert (Linear.gives, Linear.EXTRA) == ((), 0)


def test_the_classifier_is_the_last_layer() -> None:
    weight, bias = torch.randn(C, WIDTH), torch.randn(C)
    other = {"backbone.stem.weight": torch.zeros(1), "head.projector.0.weight": torch.zeros(1)}
    found = Linear.classifier({"backbone.fc.weight": weight, "backbone.fc.bias": bias, **other})
    assert torch.equal(found.weight, weight)
    assert torch.equal(found.bias, bias)


def test_a_projection_is_two_layers_with_a_relu_between_at_unit_norm() -> None:
    made = head()
    (first, first_bias), (last, last_bias) = (
        (layer.weight.tolist(), layer.bias.tolist()) for layer in (made.projector[0], made.projector[2])
    )
    assert (len(first), len(first[0]), len(last), len(last[0])) == (WIDTH, WIDTH, D, WIDTH)
    got = made.project(features())
    for row, projected in zip(features().tolist(), got.tolist(), strict=True):
        hidden = [max(0.0, dot(row, w) + b) for w, b in zip(first, first_bias, strict=True)]
        expected = normalise([dot(hidden, w) + b for w, b in zip(last, last_bias, strict=True)])
        assert projected == pytest.approx(expected, abs=1e-6)
        assert math.sqrt(dot(projected, projected)) == pytest.approx(1, abs=1e-6)


def test_projections_train_the_projector_and_the_features() -> None:
    made, given = head(), features().requires_grad_()
    made.project(given)[:, 0].sum().backward()
    assert given.grad.abs().max() > 0
    assert all(p.grad.abs().max() > 0 for p in made.parameters())


def test_there_is_no_projector_where_nothing_reads_projections() -> None:
    made = head(projects=False)
    assert made.projector is None
    assert list(made.parameters()) == []
    assert torch.equal(made.tested(features(), outputs())["logits"], outputs())

"""Cross-entropy against a loop over rows, its gradient against finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ood_lab.id_loss.ce import CE
from ood_lab.parts import Dimensions, Rows, View
from tests.cases import each
from tests.views import assert_close, assert_reads_exactly, differences, log_softmax, normal

LABELS = torch.tensor([0, 2, 1, 2, 0, 1])


def ce(**options: float) -> CE:
    return CE(Dimensions(3, 8, 4), **options)


def view(logits: Tensor, labels: Tensor = LABELS) -> View:
    return View(id=Rows(logits=logits), labels=labels, kept={})


def naive(logits: list[list[float]]) -> float:
    total = 0.0
    for row, label in zip(logits, LABELS.tolist(), strict=True):
        total -= log_softmax(row)[label]
    return total / len(logits)


@each("outputs", [3, 4])
def test_it_is_the_mean_negative_log_softmax_over_all_outputs(outputs: int) -> None:
    logits = 3 * normal(6, outputs)
    assert float(ce().loss(view(logits))) == pytest.approx(naive(logits.tolist()), abs=1e-10)


def test_its_gradient_on_the_logits_matches_finite_differences() -> None:
    logits = normal(6, 3).requires_grad_()
    ce().loss(view(logits)).backward()
    assert_close(logits.grad, differences(naive, logits))


def test_it_is_exact_for_huge_logits() -> None:
    logits = torch.tensor([[1e4, 0.0, -1e4], [1e4, 0.0, -1e4]])
    assert float(ce().loss(view(logits, torch.tensor([0, 2])))) == pytest.approx(1e4)


def test_it_reads_the_logits_alone_and_takes_one_view() -> None:
    assert_reads_exactly(ce(), LABELS, {"logits": normal(6, 3)}, {}, {})
    assert (CE.reads, CE.reads_outliers, CE.waits_for_outliers, CE.views) == (("logits",), (), False, 1)
    assert ce().keeps() == {}


@each("name", ["features", "z", "images"])
def test_what_is_not_declared_is_not_there(name: str) -> None:
    with pytest.raises(LookupError, match=rf"a term reads '{name}' and declares logits"):
        getattr(view(normal(6, 3)).id, name)


def test_it_is_logged_by_its_name_and_weighed_apart() -> None:
    term, logits = ce(weight=0.3), normal(6, 3)
    term.name = "mine"
    assert set(term.losses(view(logits))) == {"mine"}
    assert float(term.losses(view(logits))["mine"]) == pytest.approx(naive(logits.tolist()), abs=1e-10)
    assert term.weights() == {"mine": 0.3}

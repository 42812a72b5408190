"""The watched norm is what the penalty without margins has, and a step with it trains the same weights."""

from __future__ import annotations

import pytest
import torch

from ood_lab.moment import Progress
from ood_lab.parts import Dimensions, Term
from ood_lab.regularizer.gradient_norm import GradientNorm
from tests.cases import each
from tests.regularizer.test_gradient import EVERYTHING, LABELS, NORMS, Norm, images, naive, network, penalty, view
from tests.small import at, batch, images_of, method, terms
from tests.views import assert_reads_exactly


def watch() -> GradientNorm:
    made = GradientNorm(Dimensions(3, 36, 5))
    made.group, made.name = "regularizer", "gradient_norm"
    return made


@each("norm", NORMS)
def test_both_sides_together_are_the_penalty_of_all_images(norm: Norm) -> None:
    net, made = network(norm), watch()
    found = made.losses(view(net, *images()).of(made))
    assert list(found) == ["gradient_norm_id", "gradient_norm_outliers"]
    assert all(value > 0.01 and not value.requires_grad for value in found.values())
    assert sum(found.values()).item() == pytest.approx(penalty(net, None, None).item(), abs=1e-12)


def test_each_side_is_the_mean_of_its_own_norms() -> None:
    net, made = network("group"), watch()
    found = made.losses(view(net, *images()).of(made))
    m_in, m_out = EVERYTHING
    assert found["gradient_norm_id"].item() == pytest.approx(naive(net, m_in, float("inf")), abs=1e-9)
    assert found["gradient_norm_outliers"].item() == pytest.approx(naive(net, float("-inf"), m_out), abs=1e-9)


def test_it_reads_what_it_declares() -> None:
    found = view(network(), *images())
    rows, outliers = ({"images": side.images, "logits": side.logits} for side in (found.id, found.outlier_rows))
    assert_reads_exactly(watch(), LABELS, rows, outliers, {})


def test_what_it_alone_reads_counts_as_unused() -> None:
    module = method([*terms(cider=False), watch()])
    assert module._used(module._terms) == module._used({"ce": module._terms["ce"]})


@each("norm", NORMS)
def test_a_step_with_it_logs_it_and_has_the_same_gradient_to_the_last_bit(norm: Norm) -> None:
    gradients = []
    for watched in ([], [watch()]):
        torch.manual_seed(0)
        made: list[Term] = [*terms(cider=False, outlier_loss="outlier_exposure"), *watched]
        module, data = at(method(made, norm=norm)), batch(outliers=6)
        progress = Progress(0, 100, 10)
        output = module._forward_pass(data.images, data.auxiliary, module.running(progress))
        found, _ = module.losses(data, output, progress, images_of(data))
        assert ("gradient_norm_id" in found) == bool(watched)
        found["total"].backward()
        torch.testing.assert_close(found["total"], found["ce"] + found["outlier_exposure"], atol=0, rtol=0)
        gradients.append(torch.cat([p.grad.flatten() for p in module.backbone.parameters() if p.grad is not None]))
    assert torch.equal(*gradients)

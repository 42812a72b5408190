"""What a method measures of itself: how often outliers took part, and what their term does to the features."""

from __future__ import annotations

import pytest
import torch

from ood_lab.moment import Progress
from tests.cases import each
from tests.small import OUTLIER_LOSSES, D, Fixed, at, batch, fill, losses, method, terms, unit

ONE = unit(5, D, seed=10)


@each("form", OUTLIER_LOSSES)
def test_the_count_and_the_norm_of_outlier_steps_are_kept(form: str) -> None:
    images = form == "outlier_exposure"
    module = method(terms(outlier_loss=form)) if images else fill(method(terms(outlier_loss=form), Fixed(ONE)))
    for seed in range(3):
        losses(module, batch(seed=seed, outliers=5 if images else 0))
    assert int(module.outlier_steps) == 3
    assert float(module.outlier_gradient) > 0


def test_the_norm_is_that_of_the_weighted_term_on_the_features() -> None:
    module, data = fill(method(terms(outlier_loss="equidistant", weight=0.3), Fixed(ONE))), batch()
    output = module(data.images)
    found, _ = module.losses(data, output, Progress(0, 100, 10))
    (expected,) = torch.autograd.grad(0.3 * found["equidistant"], output.features, retain_graph=True)
    assert float(module.outlier_gradient) == pytest.approx(float(expected.norm()), rel=1e-5)


def test_the_gradient_of_a_term_on_logits_is_seen_in_mixed_precision() -> None:
    module = method(terms(cider=False, outlier_loss="outlier_exposure"))
    at(module)
    with torch.autocast("cpu", torch.bfloat16):
        module.training_step(batch(outliers=5), 0)
    assert module.outlier_gradient > 0

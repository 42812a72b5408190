"""Generalized ODIN's head: the quotient against loops, what is trained, and what detectors are given."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import ood_lab
from ood_lab.config import RequestError, prepare
from ood_lab.head.quotient import Numerator, Quotient
from ood_lab.parts import Dimensions
from ood_lab.runs.claim import claim
from ood_lab.task.build import build_method
from ood_lab.task.train import fit
from tests.cases import each
from tests.views import dot, normal

WIDTH, C, ROWS = 6, 3, 5
KINDS: list[Numerator] = ["cosine", "inner", "euclidean"]


def head(kind: Numerator) -> Quotient:
    torch.manual_seed(0)
    made = Quotient(WIDTH, False, C, numerator=kind, projection_dim=4)
    if kind == "inner":
        with torch.no_grad():
            made.numerator.bias.copy_(torch.tensor([0.3, -0.2, 0.5]))
    return made


def naive_h(kind: str, rows: list, weights: list, bias: list | None) -> list[list[float]]:
    found = []
    for z in rows:
        row = []
        for c, w in enumerate(weights):
            if kind == "cosine":
                row.append(dot(z, w) / ((math.sqrt(dot(z, z)) + 1e-4) * (math.sqrt(dot(w, w)) + 1e-4)))
            elif kind == "inner":
                assert bias is not None
                row.append(dot(z, w) + bias[c])
            else:
                row.append(-sum((a - b) ** 2 for a, b in zip(z, w, strict=True)) / WIDTH)
        found.append(row)
    return found


def naive(made: Quotient, features: Tensor) -> tuple[list[list[float]], list[list[float]]]:
    """h, and h / g with the batch's own statistics in the normalisation of g."""
    linear, norm = made.denominator[0], made.denominator[1]
    bias = None if made.numerator.bias is None else made.numerator.bias.tolist()
    h = naive_h(made.kind, features.tolist(), made.numerator.weight.tolist(), bias)
    raw = [dot(z, linear.weight[0].tolist()) + linear.bias.item() for z in features.tolist()]
    mean = sum(raw) / len(raw)
    variance = sum((x - mean) ** 2 for x in raw) / len(raw)
    g = [1 / (1 + math.exp(-(x - mean) / math.sqrt(variance + norm.eps))) for x in raw]
    return h, [[value / divisor for value in row] for row, divisor in zip(h, g, strict=True)]


@each("kind", KINDS)
def test_logits_are_the_quotient_of_numerator_and_denominator(kind: Numerator) -> None:
    made, features = head(kind), normal(ROWS, WIDTH).float()
    h, quotient = naive(made, features)
    torch.testing.assert_close(made.h(features), torch.tensor(h), atol=1e-5, rtol=1e-5)
    found = made.outputs(features, torch.zeros(ROWS, C))
    torch.testing.assert_close(found, torch.tensor(quotient), atol=1e-5, rtol=1e-5)


@each("kind", KINDS)
def test_features_of_zero_give_finite_numbers(kind: Numerator) -> None:
    assert head(kind).eval().outputs(torch.zeros(2, WIDTH), torch.zeros(2, C)).isfinite().all()


def test_detectors_are_given_the_numerators_beside_the_logits() -> None:
    made, features = head("cosine"), normal(ROWS, WIDTH).float()
    outputs = torch.ones(ROWS, C)
    seen = made.tested(features, outputs)
    assert set(seen) == {"logits", *Quotient.gives}
    assert seen["logits"] is outputs
    assert torch.equal(seen["numerator"], made.h(features))


def test_the_cosine_is_between_minus_one_and_one_and_bfloat16_features_lose_no_more_than_their_own_digits() -> None:
    made, features = head("cosine"), 50 * normal(ROWS, WIDTH).float()
    assert made.h(features).abs().max() <= 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert made.h(features.bfloat16()).dtype == torch.float32
        torch.testing.assert_close(made.h(features.bfloat16()), made.h(features.bfloat16().float()))


SMALL = ["method=godin", "backbone.width=4", "trainer.max_epochs=2", "trainer.threads=1", "figure=[]"]


def test_the_numerator_has_no_weight_decay_and_the_backbones_last_layer_idles(tmp_path: Path) -> None:
    experiment = prepare([*SMALL, f"paths.output={tmp_path}"])
    method = build_method(experiment)
    groups = method.parameter_groups()
    assert [(group.rate, group.decay) for group in groups] == [(1.0, 1.0), (1.0, 0.0)]
    assert groups[1].parameters == [method.head.numerator.weight]
    before = method.backbone.fc.weight.detach().clone()
    fit(claim(experiment))
    from safetensors.torch import load_file

    trained = load_file(experiment.run_dir / "checkpoints/final.safetensors")
    assert torch.equal(trained["backbone.fc.weight"], before)
    assert not torch.equal(trained["head.numerator.weight"], method.head.numerator.weight)
    assert not torch.equal(trained["head.denominator.0.weight"], method.head.denominator[0].weight)


def test_a_run_is_scored_by_godin_and_by_what_reads_logits(tmp_path: Path) -> None:
    words = [*SMALL, "scorer=[godin,msp,energy,knn]", f"paths.output={tmp_path}"]
    results = ood_lab.run(words)
    rows = {row["scorer"] for row in results.rows if row["metric"] == "auroc"}
    assert rows == {"godin", "msp", "energy", "knn"}


@each("scorer", ["react", "dice", "vim"])
def test_detectors_that_need_a_linear_classifier_are_refused(scorer: str) -> None:
    with pytest.raises(RequestError, match=rf"scorer={scorer} passes features through a linear classifier"):
        prepare(["method=godin", f"scorer=[{scorer}]"])


def test_it_is_built_for_the_dimensions_of_the_network() -> None:
    method = build_method(prepare(SMALL))
    dims: Dimensions = method.parts.dims
    assert method.head.numerator.weight.shape == (dims.classes, dims.features)

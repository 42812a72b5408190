"""What all sources of points have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import ood_lab.sampling.chain
from ood_lab.config.compose import compose
from ood_lab.config.groups import groups
from ood_lab.errors import RunError
from ood_lab.parts import Dimensions, Synthesizer
from ood_lab.sampling.oodness import gathered_search
from ood_lab.task.build import build
from tests.cases import each
from tests.method.test_base import NoWaiting

C, N, D = 5, 30, 8
DIMS = Dimensions(C, D, D)
SIZES = {
    "neighbor": 7, "per_class": 6, "boundary": 10, "candidates": 12, "per_anchor": 4, "bank_size": N, "pool": 40,
    "take": 6,
}  # fmt: skip
SOURCES = [name for name in groups()["synthesizer"] if name != "gan"]  # which makes images


def source(name: str) -> Synthesizer:
    node = compose(["method=hamos", f"synthesizer={name}"]).plain("synthesizer")
    made: Synthesizer = build({**node, **{key: value for key, value in SIZES.items() if key in node}})
    return made


def kept(made: Synthesizer) -> Mapping[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    centres = F.normalize(torch.randn(C, 1, D, generator=draw), dim=-1)
    rows = F.normalize(centres + 0.2 * torch.randn(C, N, D, generator=draw), dim=-1)
    rows = rows if made.space == "projection" else 3 + rows
    return {name: rows.flatten(0, 1) if name == "feature_queue" else rows for name in made.keeps()}  # all classes'


def drawn(name: str, seed: int = 0) -> tuple[Synthesizer, Tensor, Tensor]:
    made = source(name)
    rows = {key: bank.requires_grad_() for key, bank in kept(made).items()}
    outliers = made.sample(rows, DIMS, torch.Generator().manual_seed(seed))
    return made, outliers.values, outliers.source_class


@each("name", SOURCES)
def test_points_are_finite_carry_no_gradient_and_depend_on_the_generator_alone(name: str) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    made, values, classes = drawn(name)
    assert torch.equal(torch.rand(3), expected), "the global generator is left alone"
    assert values.dtype == torch.float32
    assert values.isfinite().all()
    assert not values.requires_grad
    assert values.shape == (len(classes), D)
    assert torch.equal(values, drawn(name)[1])
    if name != "midpoints":
        assert not torch.equal(values, drawn(name, seed=1)[1])
    if made.space == "projection":
        torch.testing.assert_close(values.norm(dim=1), torch.ones(len(values)), atol=1e-5, rtol=0)


@each("name", SOURCES)
def test_nothing_waits_for_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ood_lab.sampling.chain, "neighbour_search", gathered_search)  # as on a GPU
    made = source(name)
    rows, draw = kept(made), torch.Generator().manual_seed(0)
    with NoWaiting():
        made.sample(rows, DIMS, draw)


@each("name", SOURCES)
def test_a_single_class_is_drawn_from_or_refused(name: str) -> None:
    made = source(name)
    rows = {key: value if key == "feature_queue" else value[:1] for key, value in kept(made).items()}
    between = name not in ("random_sphere", "gaussian_tail", "knn_boundary", "range_expansion")
    with pytest.raises(RunError, match="the ID set has one") if between else nullcontext():
        values = made.sample(rows, Dimensions(1, D, D), torch.Generator().manual_seed(0)).values
        assert values.isfinite().all()


@each("name", [n for n in SOURCES if n in ("hmc", "hmc_released", "mala", "mmala", "rmhmc")])
def test_what_a_chain_reports_is_finite(name: str) -> None:
    made = source(name)
    info = made.sample(kept(made), DIMS, torch.Generator().manual_seed(0)).info
    assert {"acceptance", "blocked", "oodness", "round_0/oodness", "round_1/metropolis"} <= set(info)
    assert all(math.isfinite(float(value)) for value in info.values())

"""CIDER as a method: its sum of terms, its prototypes and what they train."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.backbone.base import Backbone
from ood_lab.backbone.resnet import ResNet
from ood_lab.config import RequestError, RunError
from ood_lab.method.cider import CIDER
from ood_lab.optimizer import SGD
from ood_lab.types import Batch

M, TAU = 0.9, 0.2


def cider(**changes: Any) -> CIDER:
    torch.manual_seed(0)
    options: dict[str, Any] = {"w_ce": 1.0, "w_comp": 0.5, "w_disp": 2.0, "trainable": "whole", **changes}
    method = CIDER(
        ResNet(3, block="basic", depths=[1, 1, 1, 1], width=8, stem="cifar", norm="batch"),
        3,
        7,
        stage="finetune",
        projection_dim=6,
        prototype_momentum=M,
        temperature=TAU,
        optimizer=SGD(lr=0.1, momentum=0.9, weight_decay=0.0, warmup=0.0),
        **options,
    )
    method.prototypes.copy_(F.normalize(torch.randn(3, 6), dim=1))
    return method


def batch(rows: int = 8, seed: int = 0) -> Batch:
    """Two views of each image, the labels repeated."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (rows,), generator=draw)
    return Batch(torch.randn(2 * rows, 3, 8, 8, generator=draw), labels.repeat(2))


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def normalise(a: list[float]) -> list[float]:
    return [x / math.sqrt(dot(a, a)) for x in a]


def terms_naive(method: CIDER, data: Batch) -> tuple[dict[str, float], list[list[float]]]:
    """Equation 22 with the prototypes moved sample by sample, and cross-entropy."""
    features, logits = method.backbone(data.images)
    z = [normalise(row) for row in method.projector(features).double().tolist()]
    labels, mu = data.labels.tolist(), method.prototypes.double().tolist()
    for row, c in zip(z, labels, strict=True):
        mu[c] = normalise([M * a + (1 - M) * b for a, b in zip(mu[c], row, strict=True)])
    ce = comp = disp = 0.0
    for row, scores, c in zip(z, logits.double().tolist(), labels, strict=True):
        ce -= math.log(math.exp(scores[c]) / sum(math.exp(s) for s in scores)) / len(z)
        weights = [math.exp(dot(row, other) / TAU) for other in mu]
        comp -= math.log(weights[c] / sum(weights)) / len(z)
    for i in range(3):
        disp += math.log(sum(math.exp(dot(mu[i], mu[j]) / TAU) for j in range(3) if j != i) / 2) / 3
    return {"ce": ce, "comp": comp, "disp": disp}, mu


def gradient(method: CIDER, data: Batch, term: str = "total") -> Tensor:
    """Of one term, with respect to the backbone's weights but its head."""
    method.zero_grad()
    method.loss(data, method.backbone(data.images))[term].backward()
    grads = [p.grad for n, p in method.backbone.named_parameters() if not n.startswith("fc.")]
    return torch.cat([g.flatten() for g in grads if g is not None])


def test_terms_and_their_weighted_sum_match_the_loops() -> None:
    method, data = cider(), batch()
    expected, _ = terms_naive(method, data)
    losses = method.loss(data, method.backbone(data.images))
    for name, value in expected.items():
        assert float(losses[name]) == pytest.approx(value, abs=1e-5)
    total = expected["ce"] + 0.5 * expected["comp"] + 2.0 * expected["disp"]
    assert float(losses["total"]) == pytest.approx(total, abs=1e-5)


def test_cider_takes_two_views_and_returns_the_losses_it_names() -> None:
    method = cider()
    assert method.views == 2
    assert set(method.loss(batch(), method.backbone(batch().images))) == {"ce", "comp", "disp", "total"}
    assert set(method.training_step(batch(), 0)) == {"loss", "ce", "comp", "disp", "total"}


def test_prototypes_are_moved_sample_by_sample_and_stay_detached_unit_vectors() -> None:
    method, data = cider(), batch()
    _, expected = terms_naive(method, data)
    method.training_step(data, 0)["loss"].backward()
    torch.testing.assert_close(method.prototypes, torch.tensor(expected, dtype=torch.float32), atol=1e-5, rtol=0)
    torch.testing.assert_close(method.prototypes.norm(dim=1), torch.ones(3))
    assert not method.prototypes.requires_grad
    method.training_step(data, 1)["loss"].backward()  # the next step's graph does not reach into this one


@pytest.mark.parametrize("term", ["ce", "comp", "disp"])
def test_each_term_alone_trains_the_backbone(term: str) -> None:
    assert gradient(cider(), batch(), term).abs().max() > 1e-7


def test_compactness_takes_the_prototypes_detached() -> None:
    method, data = cider(w_ce=0.0, w_disp=0.0, w_comp=1.0), batch()
    got = gradient(method, data)
    method = cider()
    features = method.backbone(data.images).features
    z = F.normalize(method.projector(features), dim=1)
    mu = method.prototypes.clone()
    for row, c in zip(z.detach(), data.labels.tolist(), strict=True):
        mu[c] = F.normalize(M * mu[c] + (1 - M) * row, dim=0)
    F.cross_entropy(z @ mu.T / TAU, data.labels).backward()
    grads = [p.grad for n, p in method.backbone.named_parameters() if not n.startswith("fc.")]
    torch.testing.assert_close(got, torch.cat([g.flatten() for g in grads if g is not None]), atol=1e-6, rtol=1e-4)


def test_a_weight_of_zero_takes_its_term_out_of_the_gradient() -> None:
    whole, data = gradient(cider(), batch()), batch()
    parts = sum(w * gradient(cider(), data, term) for term, w in (("ce", 1.0), ("comp", 0.5), ("disp", 2.0)))
    torch.testing.assert_close(whole, parts, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        gradient(cider(w_comp=0.0, w_disp=0.0), data), gradient(cider(), data, "ce"), atol=1e-6, rtol=1e-5
    )


def test_extract_adds_unit_norm_projections() -> None:
    method = cider().eval()
    out = method.extract(batch().images)
    assert set(out) == {"features", "logits", "projection"}
    torch.testing.assert_close(out["projection"], F.normalize(method.projector(out["features"]), dim=1))


def test_prototypes_begin_as_class_means_in_evaluation_mode_and_only_once() -> None:
    method, asked = cider(), []

    def train_sample(per_class: int) -> Iterator[Batch]:
        asked.append((per_class, method.training))
        for seed in range(2):
            yield batch(seed=seed)

    method._trainer = SimpleNamespace(datamodule=SimpleNamespace(train_sample=train_sample))
    state = {name: value.clone() for name, value in method.backbone.state_dict().items()}
    method.on_train_start()
    assert asked == [(100, False)]
    assert method.training
    for name, value in method.backbone.state_dict().items():
        assert torch.equal(value, state[name]), name  # batch statistics too

    with torch.no_grad():
        z = torch.cat([method.eval().extract(batch(seed=seed).images)["projection"] for seed in range(2)])
    labels = torch.cat([batch(seed=seed).labels for seed in range(2)])
    for c in range(3):
        torch.testing.assert_close(method.prototypes[c], F.normalize(z[labels == c].mean(0), dim=0))

    method.prototypes.zero_()
    method.on_train_start()
    assert len(asked) == 1


def test_prototypes_survive_a_checkpoint_and_are_not_made_again() -> None:
    first, second = cider(), cider()
    first.has_prototypes.fill_(True)
    first.training_step(batch(), 0)
    second.on_load_checkpoint({"state_dict": first.state_dict()})
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.prototypes, first.prototypes)
    second.on_train_start()  # has no trainer to ask
    assert torch.equal(second.prototypes, first.prototypes)


def test_a_non_finite_loss_is_a_run_error_that_names_step_and_all_terms() -> None:
    method = cider()
    method._trainer = SimpleNamespace(current_epoch=1, global_step=23, world_size=1)
    with torch.no_grad():
        method.projector[0].weight.fill_(math.nan)
    with pytest.raises(RunError, match=r"step 23 \(epoch 1\): ce = \d.*, comp = nan, disp = nan, total = nan"):
        method.training_step(batch(), 0)


@pytest.mark.parametrize("trainable", ["whole", "layer4_mlp"])
def test_what_is_frozen_stays_and_the_rest_trains(trainable: str) -> None:
    method = cider(trainable=trainable)
    before = {name: value.clone() for name, value in method.named_parameters()}
    settings = method.settings.configure(method.parameters(), 10)
    data = batch()
    method.loss(data, method(data.images))["total"].backward()
    settings["optimizer"].step()
    moved = {name for name, value in method.named_parameters() if not torch.equal(value, before[name])}
    below = {
        name for name in before if name.startswith(("backbone.stem", *(f"backbone.stages.{i}." for i in range(3))))
    }
    assert below
    assert moved == (set(before) if trainable == "whole" else set(before) - below)


def test_a_network_without_stages_refuses_to_be_frozen() -> None:
    with pytest.raises(RequestError, match=r"method\.trainable=layer4_mlp: Backbone has no such stage; use a ResNet"):
        Backbone().freeze_below_last_stage()

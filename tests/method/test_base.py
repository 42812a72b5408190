"""The module that runs the parts: the sum, what outliers train, memories, schedules, and no waiting for the device."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from ood_lab.backbone.base import Backbone
from ood_lab.config import RequestError, RunError
from ood_lab.id_loss.ce import CE
from ood_lab.loss.cider import update_prototypes
from ood_lab.method.base import Method
from ood_lab.moment import Progress
from ood_lab.parts import Dimensions, Parts, View
from ood_lab.synthesizer.midpoints import Midpoints
from ood_lab.synthesizer.random_sphere import RandomSphere
from ood_lab.types import Batch
from tests.cases import each
from tests.small import (
    OUTLIER_LOSSES,
    SIZE,
    TAU,
    C,
    D,
    Fixed,
    M,
    at,
    batch,
    fill,
    gradient,
    losses,
    method,
    terms,
    unit,
)

POINTS = ["equidistant", "paper_eq7", "negatives", "logistic"]
ONE, OTHER = unit(5, D, seed=10), unit(5, D, seed=11)


def hamos(values: Tensor = ONE, form: str = "equidistant", weight: float = 1.0, filled: bool = True) -> Method:
    module = method(terms(outlier_loss=form, weight=weight), Fixed(values))
    return fill(module) if filled else module


def relative_difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


# The sum.


def test_the_total_is_the_weighted_sum_of_all_terms() -> None:
    module = hamos(weight=0.3)
    found = losses(module, batch())
    assert set(found) == {"ce", "compactness", "dispersion", "equidistant", "total"}
    total = found["ce"] + 0.5 * found["compactness"] + 2.0 * found["dispersion"] + 0.3 * found["equidistant"]
    assert float(found["total"]) == pytest.approx(float(total), rel=1e-6)


def test_a_classifier_is_cross_entropy_alone_and_has_no_projector() -> None:
    module, data = method(terms(cider=False)), batch()
    found = losses(module, data)
    assert found["total"] is not None
    assert float(found["total"]) == float(F.cross_entropy(module(data.images).logits, data.labels))
    assert module.head.projector is None
    assert set(module.extract(data.images)) == {"features", "logits"}
    assert module.views == 1


def test_projections_are_given_to_detectors_at_unit_norm() -> None:
    module = hamos().eval()
    assert module.views == 2
    projection = module.extract(batch().images)["projection"]
    torch.testing.assert_close(projection.norm(dim=1), torch.ones(len(projection)))


@each("form", POINTS)
def test_weight_zero_is_the_same_without_the_term(form: str) -> None:
    module, plain, data = hamos(form=form, weight=0.0), method(terms()), batch()
    plain.load_state_dict({k: v for k, v in module.state_dict().items() if k in plain.state_dict()}, strict=False)
    assert torch.equal(gradient(module, data), gradient(plain, data))
    assert "equidistant" not in losses(module, data)


# What outliers train.


@each("form", ["equidistant", "paper_eq7", "negatives"])
def test_outliers_change_the_gradient_of_the_backbone(form: str) -> None:
    one, again, other = (gradient(hamos(values, form), batch()) for values in (ONE, ONE, OTHER))
    assert torch.equal(one, again)
    assert relative_difference(one, other) > 1e-3


def test_outliers_reach_the_backbone_under_logistic_through_its_head_alone() -> None:
    modules = [hamos(values, "logistic") for values in (ONE, OTHER)]
    assert torch.equal(*(gradient(module, batch()) for module in modules))
    heads = [module.terms["logistic"].head.weight.grad for module in modules]
    assert relative_difference(*heads) > 1e-2
    assert relative_difference(gradient(modules[0], batch()), gradient(hamos(weight=0.0), batch())) > 1e-3


def test_in_the_released_form_outliers_have_no_effect_and_are_not_even_drawn() -> None:
    modules = [hamos(values, "released") for values in (ONE, OTHER)]
    one, other = (gradient(module, batch()) for module in modules)
    assert torch.equal(one, other)
    assert modules[0].parts.synthesizer.banks == []
    assert relative_difference(one, gradient(hamos(form="released", weight=0.0), batch())) > 1e-3


def test_images_are_outliers_with_features_logits_and_projections() -> None:
    module, data = method(terms(outlier_loss="equidistant")), batch(outliers=5)
    found = losses(module, data)
    z = module.head.project(module(torch.cat([data.images, data.auxiliary])).features)[16:]
    mu = update_prototypes(unit(C, D, seed=1), _id_z(module, data), data.labels, M)
    expected = -(-z @ mu.T / TAU).log_softmax(1).mean()
    assert float(found["equidistant"]) == pytest.approx(float(expected), abs=1e-5)


def _id_z(module: Method, data: Batch) -> Tensor:
    inputs = data.images if data.auxiliary is None else torch.cat([data.images, data.auxiliary])
    return module.head.project(module(inputs).features)[: len(data.labels)]


# Memories.


def test_before_the_bank_is_full_the_term_is_left_out_and_nothing_is_drawn() -> None:
    module = hamos(filled=False)
    found = losses(module, batch(rows=3))
    assert "equidistant" not in found
    assert module.parts.synthesizer.banks == []
    assert module.outliers() is None
    assert int(module.outlier_steps) == 0


def test_the_term_starts_in_the_step_after_every_class_is_full() -> None:
    module, rows, started = hamos(filled=False), torch.zeros(C, dtype=torch.int64), []
    for seed in range(8):
        data = batch(rows=3, seed=seed)
        was_full = bool((rows >= SIZE).all())
        assert ("equidistant" in losses(module, data)) == was_full
        rows += data.labels.bincount(minlength=C)
        started.append(was_full)
    assert any(started)
    assert not all(started)


def test_classes_of_which_no_row_came_are_named() -> None:
    module, data = hamos(filled=False), batch()
    assert module.classes_without_rows() == list(range(C))
    seen = torch.tensor([1, 1, 2, 2])
    losses(module, data._replace(images=data.images[:4], labels=seen))
    assert module.classes_without_rows() == [c for c in range(C) if c not in (1, 2)]
    assert fill(module).classes_without_rows() == []


def test_the_source_sees_the_bank_of_the_steps_before_and_the_bank_takes_this_step_last() -> None:
    module, data = hamos(), batch()
    before = module.memories["bank"].values.clone()
    z = _id_z(module, data).detach()
    losses(module, data)
    assert torch.equal(module.parts.synthesizer.banks[0], before)
    for c in range(C):
        for row in z[data.labels == c][-SIZE:]:
            assert (module.memories["bank"].values[c] - row).norm(dim=1).min() < 1e-6


def test_terms_that_read_prototypes_share_one_memory() -> None:
    assert set(hamos().memories) == {"bank", "prototypes"}
    alone = method(terms(cider=False, outlier_loss="equidistant"), Fixed(ONE))
    assert set(alone.memories) == {"bank", "prototypes"}, "declared by the term on outliers itself"
    assert set(method(terms(cider=False)).memories) == set()


def test_prototypes_stay_detached_unit_vectors_and_move() -> None:
    module = hamos()
    before = module.memories["prototypes"].values.clone()
    for seed in range(3):
        gradient(module, batch(seed=seed))
    now = module.memories["prototypes"].values
    assert not now.requires_grad
    torch.testing.assert_close(now.norm(dim=1), torch.ones(C))
    assert (now - before).abs().max() > 1e-3


def test_prototypes_begin_as_class_means_in_evaluation_mode_and_only_once() -> None:
    module, asked = method(terms()), []

    def train_sample(per_class: int) -> Any:
        asked.append((per_class, module.training))
        return [batch(seed=seed) for seed in range(2)]

    at(module, train_sample=train_sample)
    state = {name: value.clone() for name, value in module.backbone.state_dict().items()}
    module.on_train_start()
    assert asked == [(100, False)]
    assert module.training
    assert all(torch.equal(value, state[name]) for name, value in module.backbone.state_dict().items())
    with torch.no_grad():
        z = torch.cat([module.eval().extract(batch(seed=seed).images)["projection"] for seed in range(2)])
    labels = torch.cat([batch(seed=seed).labels for seed in range(2)])
    for c in range(C):
        expected = F.normalize(z[labels == c].mean(0), dim=0)
        torch.testing.assert_close(module.memories["prototypes"].values[c], expected)
    module.on_train_start()
    assert len(asked) == 1


def test_a_checkpoint_holds_memories_and_whether_they_are_full() -> None:
    first, second = hamos(), hamos(filled=False)
    gradient(first, batch())
    second.on_load_checkpoint({"state_dict": first.state_dict()})
    second.load_state_dict(first.state_dict())
    assert torch.equal(gradient(second, batch(seed=1)), gradient(first, batch(seed=1)))
    assert int(second.outlier_steps) == int(first.outlier_steps) == 2


def test_two_memories_of_one_name_with_different_options_are_refused() -> None:
    made = terms(outlier_loss="equidistant")
    made[-1].momentum = 0.5
    with pytest.raises(RequestError, match="memory 'prototypes' with different options"):
        method(made, Fixed(ONE))


def test_a_non_finite_step_leaves_the_memories_as_they_were() -> None:
    module = at(hamos())
    with torch.no_grad():
        module.head.projector[0].weight.fill_(math.nan)
    before = {name: memory.values.clone() for name, memory in module.memories.items()}
    with pytest.raises(RunError, match="non-finite"):
        module.training_step(batch(), 0)
    assert all(torch.equal(memory.values, before[name]) for name, memory in module.memories.items())


def test_a_term_that_reads_what_it_does_not_declare_is_named() -> None:
    class Careless(CE):
        reads = ("logits",)

        def loss(self, view: View) -> Tensor:
            return view.id.z.mean()

    made = terms()
    made[0] = Careless(Dimensions(C, 64, D))
    made[0].group, made[0].name = "id_loss", "ce"
    with pytest.raises(RunError, match="id_loss=ce reads 'z' and declares logits"):
        losses(method(made), batch())


def test_auxiliary_images_stay_out_of_the_pass_while_no_term_reads_them() -> None:
    made = terms(outlier_loss="outlier_exposure")
    made[-1].start = 5
    module, plain = at(method(made)), at(method(terms()))
    data = batch(outliers=5)
    one, other = module.training_step(data, 0), plain.training_step(data._replace(auxiliary=None), 0)
    assert float(one["loss"]) == float(other["loss"])


# Schedules.


@each(
    ("schedule", "steps"),
    [
        ({}, range(40)),
        ({"start": 1}, range(10, 40)),
        ({"end": 2}, range(20)),
        ({"start": 0.3, "end": 0.5}, range(12, 20)),
    ],
)
def test_a_term_takes_part_from_its_start_to_its_end(schedule: dict[str, Any], steps: range) -> None:
    made = terms()
    made[1].start, made[1].end = schedule.get("start", 0), schedule.get("end")
    module = method(made)
    ran = [step for step in range(40) if "cider" in module.running(Progress(step, 40, 10))]
    assert ran == list(steps)
    found = losses(module, batch(), step=15)
    assert ("compactness" in found) == ("cider" in module.running(Progress(15, 100, 10)))


def test_a_step_without_any_term_says_so() -> None:
    module = method(terms(cider=False, start=1))
    with pytest.raises(RunError, match="no term takes part in step 0"):
        losses(module, batch())


def test_parts_that_idle_are_left_without_a_gradient() -> None:
    module = hamos(form="logistic", filled=False)
    gradient(module, batch(rows=2))
    assert module._idle == list(module.terms["logistic"].parameters())
    module._idle[0].grad = torch.zeros_like(module._idle[0])
    module.on_after_backward()
    assert module._idle[0].grad is None
    gradient(fill(module), batch())
    assert module._idle == []


def test_the_projector_idles_while_only_cross_entropy_runs_and_the_classifier_without_it() -> None:
    made = terms()
    made[1].start = 5
    module = method(made)
    gradient(module, batch())
    assert module._idle == list(module.head.parameters())
    module = method(terms()[1:])
    gradient(module, batch())
    assert module._idle == list(module.backbone.fc.parameters())


# Stepping.


def test_a_step_returns_the_losses_and_keeps_what_the_source_reports() -> None:
    module = at(hamos())
    found = module.training_step(batch(), 0)
    assert set(found) == {"loss", "ce", "compactness", "dispersion", "equidistant", "total"}
    assert float(module.info["marker"]) == 3.5
    summary = module.epoch_summary()
    assert summary["equidistant_mean"] == pytest.approx(float(found["equidistant"]))
    assert module.epoch_summary() == {}


def test_draws_are_a_function_of_seed_epoch_and_step() -> None:
    module, drawn = hamos(), {}
    for seed, epoch, step in [(7, 0, 0), (7, 0, 1), (7, 1, 0), (8, 0, 0), (7, 0, 0)]:
        module.parts = Parts(**{**vars(module.parts), "seed": seed})
        at(module, step, epoch).training_step(batch(), step)
        draw = module.parts.synthesizer.draws[-1]
        assert drawn.setdefault((seed, epoch, step), draw) == draw
    assert len(set(drawn.values())) == 4


def test_outliers_after_training_are_drawn_from_the_bank_and_repeatable() -> None:
    module = hamos()
    assert torch.equal(module.outliers().values, ONE)
    at(module, 9, 5).outliers()
    source = module.parts.synthesizer
    assert source.draws[0] == source.draws[1]
    assert torch.equal(source.banks[0], module.memories["bank"].values)


def test_a_non_finite_loss_is_a_run_error_that_names_step_and_all_terms() -> None:
    module = at(method(terms()), 3, 2)
    with torch.no_grad():
        module.head.projector[0].weight.fill_(math.nan)
    with pytest.raises(
        RunError, match=r"step 23 \(epoch 3\): ce = \d.*, compactness = nan, dispersion = nan, total = nan"
    ):
        module.training_step(batch(), 3)


WAITS = {"_local_scalar_dense", "nonzero", "unique", "_unique2", "unique_consecutive", "masked_select", "item"}


class NoWaiting(TorchDispatchMode):
    """Fails on what would make the host wait for a device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in WAITS, f"{name} waits for the device"
        if name in ("index", "index_put", "index_put_"):
            masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
            assert not masks, f"{name} with a mask waits for the device"
        return func(*args, **(kwargs or {}))


@each("form", [None, *OUTLIER_LOSSES])
@each("source", [Midpoints(adjacent=2, bank_size=SIZE), RandomSphere(per_class=3), None])
def test_nothing_in_a_step_waits_for_the_device(form: str | None, source: Any) -> None:
    images = source is None or form == "outlier_exposure"
    module = method(terms(outlier_loss=form), None if images or form is None else source)
    if "bank" in module.memories:
        fill(module)
    at(module)
    data = batch(outliers=5 if images and form else 0)
    data = data._replace(counts=np.bincount(data.labels.numpy(), minlength=C))
    with NoWaiting():
        for step in range(3):
            module.training_step(data, step)["loss"].backward()
            module.on_after_backward()
    assert form is None or int(module.outlier_steps) == 3


def test_the_watch_notices_what_waits() -> None:
    values = torch.arange(4.0)
    for waiting in (values.sum().item, values.nonzero, values.unique, lambda: values[values > 1]):
        with pytest.raises(AssertionError, match="waits for the device"), NoWaiting():
            waiting()


# What is trained.


@each("trainable", ["whole", "layer4_mlp"])
def test_what_is_frozen_stays_and_the_rest_trains(trainable: str) -> None:
    module = method(terms(), trainable=trainable)
    before = {name: value.clone() for name, value in module.named_parameters()}
    optimizer = module.optimizer_settings.configure(module.parameter_groups(), 10, 1)["optimizer"]
    losses(module, batch())["total"].backward()
    optimizer.step()
    moved = {name for name, value in module.named_parameters() if not torch.equal(value, before[name])}
    frozen = {n for n in before if n.startswith(("backbone.stem", *(f"backbone.stages.{i}." for i in range(3))))}
    assert frozen
    assert moved == (set(before) if trainable == "whole" else set(before) - frozen)


def test_a_network_without_stages_refuses_to_be_frozen() -> None:
    with pytest.raises(RequestError, match=r"method\.trainable=layer4_mlp: Backbone has no such stage; use a ResNet"):
        Backbone().freeze_below_last_stage()


def test_a_part_has_its_own_learning_rate() -> None:
    made = terms(outlier_loss="logistic")
    made[-1].lr_factor = 0.1
    module = method(made, Fixed(ONE))
    groups = module.optimizer_settings.configure(module.parameter_groups(), 10, 1)["optimizer"].param_groups
    assert [group["lr"] for group in groups] == [pytest.approx(0.1), pytest.approx(0.01)]
    assert groups[1]["params"] == list(made[-1].parameters())
    assert sum(len(group["params"]) for group in groups) == len(list(module.parameters()))
    assert isinstance(made[-1].head, nn.Linear)

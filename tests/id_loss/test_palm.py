"""PALM as a term: both scalars against loops, what each trains, and two devices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ood_lab.id_loss.palm import PALM
from ood_lab.memory import Mixture
from ood_lab.parts import Dimensions, Rows, View, WholeBatch
from tests.cases import each
from tests.views import MixtureLoops, assert_close, assert_reads_exactly, differences, supcon, unit, unlikelihood

C, PER_CLASS, D, M, TAU, CONTRAST_TAU, EPSILON, TOP = 3, 3, 5, 0.7, 0.2, 0.4, 0.1, 2
P, DIMS = C * PER_CLASS, Dimensions(C, 8, D)
LABELS = torch.tensor([0, 2, 1, 2]).repeat(2)
ROWS = len(LABELS)
ALL = torch.arange(ROWS)
DEVICES = (ALL[::2], ALL[1::2])
LOOPS = MixtureLoops(C, M, EPSILON, TOP)


def palm(**options: Any) -> PALM:
    given = {
        "temperature": TAU,
        "contrast_temperature": CONTRAST_TAU,
        "per_class": PER_CLASS,
        "top_k": TOP,
        "mixture_momentum": M,
        "epsilon": EPSILON,
        "w_likelihood": 0.5,
        "w_prototype_contrast": 2.0,
    }
    return PALM(DIMS, **given | options)


def mixture(term: PALM) -> Mixture:
    """What the term keeps, in float64 at random unit vectors."""
    memory = term.keeps()["mixture"](DIMS).double()
    assert isinstance(memory, Mixture)
    memory.values.copy_(unit(len(memory.values), D, seed=1))
    return memory


def losses(term: PALM, z: Tensor, offered: Tensor, own: Tensor = ALL) -> dict[str, Tensor]:
    whole = WholeBatch(Rows(z=z), LABELS, own, 2)
    return term.losses(View(id=Rows(), labels=LABELS[own], kept={"mixture": offered}, whole=whole))


def offered_of(memory: Mixture, z: Tensor) -> Tensor:
    return memory.offer(z, LABELS, np.bincount(LABELS.numpy(), minlength=C))


def step(z: Tensor, own: Tensor = ALL, **options: Any) -> dict[str, Tensor]:
    """Both scalars with the prototypes that the rows move."""
    term = palm(**options)
    return losses(term, z, offered_of(mixture(term), z), own)


def naive_likelihood(z: list, before: list, after: list, own: list, temperature: float = TAU) -> float:
    weights = LOOPS.weights(z, LABELS.tolist(), before, after)
    rows = unlikelihood(z, after, weights, temperature)
    return sum(rows[i] for i in own) / len(own)


def naive_contrast(mu: list, temperature: float = CONTRAST_TAU) -> float:
    return supcon(mu, [p % C for p in range(len(mu))], temperature)


@each("own", [ALL, *DEVICES, torch.tensor([6, 1, 3])])
@each("temperatures", [(0.1, 0.5), (0.5, 0.1)])
def test_both_scalars_match_the_loops(temperatures: tuple[float, float], own: Tensor) -> None:
    z, before, after = unit(ROWS, D), unit(P, D, seed=1), unit(P, D, seed=2)
    term = palm(temperature=temperatures[0], contrast_temperature=temperatures[1])
    found = losses(term, z, torch.stack([before, after]), own)
    assert set(found) == {"likelihood", "prototype_contrast"}
    expected = naive_likelihood(z.tolist(), before.tolist(), after.tolist(), own.tolist(), temperatures[0])
    assert found["likelihood"].item() == pytest.approx(expected, abs=1e-10)
    contrast = naive_contrast(after.tolist(), temperatures[1])
    assert found["prototype_contrast"].item() == pytest.approx(contrast, abs=1e-10)


def test_both_scalars_match_the_loops_of_a_whole_step() -> None:
    z, mu = unit(ROWS, D), unit(P, D, seed=1).tolist()
    found, after = step(z), LOOPS.moved(z.tolist(), LABELS.tolist(), mu)
    expected = naive_likelihood(z.tolist(), mu, after, ALL.tolist())
    assert found["likelihood"].item() == pytest.approx(expected, abs=1e-10)
    assert found["prototype_contrast"].item() == pytest.approx(naive_contrast(after), abs=1e-10)


@each("own", [ALL, *DEVICES])
def test_the_likelihood_trains_the_rows_and_takes_weights_and_prototypes_detached(own: Tensor) -> None:
    z, mu = unit(ROWS, D).requires_grad_(), unit(P, D, seed=1).tolist()
    step(z, own)["likelihood"].backward()
    after = LOOPS.moved(z.tolist(), LABELS.tolist(), mu)
    weights = LOOPS.weights(z.tolist(), LABELS.tolist(), mu, after)

    def naive(rows: list) -> float:
        found = unlikelihood(rows, after, weights, TAU)
        return sum(found[i] for i in own.tolist()) / len(own)

    assert_close(z.grad, differences(naive, z))


def test_the_contrast_trains_the_rows_through_the_prototypes_that_they_move() -> None:
    z, mu = unit(ROWS, D).requires_grad_(), unit(P, D, seed=1).tolist()
    step(z)["prototype_contrast"].backward()
    pulls = LOOPS.pulls(z.tolist(), LABELS.tolist(), mu)
    expected = differences(lambda rows: naive_contrast(LOOPS.moved(rows, LABELS.tolist(), mu, pulls)), z)
    assert_close(z.grad, expected)


@each("name", ["likelihood", "prototype_contrast"])
def test_two_devices_have_the_mean_and_the_gradient_of_one(name: str) -> None:
    z, apart = unit(ROWS, D).requires_grad_(), unit(ROWS, D).requires_grad_()
    one, two = step(z)[name], torch.stack([step(apart, own)[name] for own in DEVICES]).mean()
    torch.testing.assert_close(two, one, atol=1e-12, rtol=0)
    one.backward()
    two.backward()
    assert_close(apart.grad, z.grad, 1e-12)


def test_names_of_classes_change_nothing() -> None:
    z, before, after = unit(ROWS, D), unit(P, D, seed=1), unit(P, D, seed=2)
    found = losses(palm(), z, torch.stack([before, after]))
    renamed = torch.tensor([2, 0, 1])
    places = torch.cat([renamed.argsort() + C * k for k in range(PER_CLASS)])
    whole = WholeBatch(Rows(z=z), renamed[LABELS], ALL, 2)
    kept = {"mixture": torch.stack([before, after])[:, places]}
    other = palm().losses(View(id=Rows(), labels=renamed[LABELS], kept=kept, whole=whole))
    for name, value in found.items():
        torch.testing.assert_close(other[name], value, atol=1e-12, rtol=0)


@each("top_k", [3, 4, 30])
def test_more_prototypes_than_a_class_has_count_as_all_of_it(top_k: int) -> None:
    z = unit(ROWS, D)
    found, expected, fewer = step(z, top_k=top_k), step(z, top_k=PER_CLASS), step(z, top_k=2)
    assert {name: value.item() for name, value in found.items()} == {n: v.item() for n, v in expected.items()}
    assert abs(found["likelihood"].item() - fewer["likelihood"].item()) > 1e-3


def test_gradients_are_those_of_the_step_when_its_prototypes_are_stored_before() -> None:
    z, late = unit(ROWS, D).requires_grad_(), unit(ROWS, D).requires_grad_()
    sum(step(z).values(), torch.zeros(())).backward()
    term = palm()
    memory = mixture(term)
    offered = offered_of(memory, late)
    found = losses(term, late, offered)
    memory.store(late.detach(), LABELS, np.bincount(LABELS.numpy(), minlength=C), offered.detach())
    sum(found.values(), torch.zeros(())).backward()
    assert_close(late.grad, z.grad, 1e-12)


def test_the_weights_are_those_of_the_scalars_times_that_of_the_term() -> None:
    assert palm().weights() == {"likelihood": 0.5, "prototype_contrast": 2.0}
    assert palm(weight=3.0).weights() == {"likelihood": 1.5, "prototype_contrast": 6.0}


def test_it_reads_rows_of_all_devices_and_its_mixture_and_takes_two_views() -> None:
    kept = {"mixture": torch.stack([unit(P, D, seed=1), unit(P, D, seed=2)])}
    assert_reads_exactly(palm(), LABELS, {"z": unit(ROWS, D)}, {}, kept)
    assert (PALM.reads_outliers, PALM.waits_for_outliers, PALM.views) == ((), False, 2)


def test_it_keeps_a_mixture_of_the_projections_with_its_options() -> None:
    term = palm(per_class=4, top_k=3, mixture_momentum=0.6, epsilon=0.2)
    assert set(term.keeps()) == {"mixture"}
    memory, z = mixture(term), unit(ROWS, D)
    assert (memory.space, tuple(memory.values.shape)) == ("z", (4 * C, D))
    expected = MixtureLoops(C, 0.6, 0.2, 3).moved(z.tolist(), LABELS.tolist(), memory.values.tolist())
    found = offered_of(memory, z)[1]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=0)

"""PALM's mixture against loops: assignments, the prototypes that count, their move, likelihood and contrast."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ood_lab.loss.palm import likelihood, log_assignments, move_prototypes, own_class, prototype_contrast, strongest
from tests.cases import each
from tests.views import MixtureLoops, assert_close, differences, dot, supcon, unit, unlikelihood

C, PER_CLASS, D, M, TAU = 3, 3, 5, 0.7, 0.2
P = C * PER_CLASS
LABELS = torch.tensor([0, 2, 1, 2, 0, 0, 2, 2])
N = len(LABELS)
EPSILONS = [0.05, 0.5]
TOP = [1, 2, 3]


def loops(epsilon: float = 0.05, top_k: int = 2) -> MixtureLoops:
    return MixtureLoops(C, M, epsilon, top_k)


def tensor(rows: list) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def moved(mu: Tensor, z: Tensor, epsilon: float = 0.05, top_k: int = 2, labels: Tensor = LABELS) -> Tensor:
    return move_prototypes(mu, z, labels, C, momentum=M, epsilon=epsilon, top_k=top_k)


def of_rows(z: Tensor, before: Tensor, after: Tensor, epsilon: float = 0.05, top_k: int = 2) -> Tensor:
    return likelihood(z, LABELS, before, after, C, temperature=TAU, epsilon=epsilon, top_k=top_k)


@each("epsilon", EPSILONS)
@each("rows", [1, 4, 20])
def test_assignments_match_the_loop_and_have_sum_1_for_each_row(rows: int, epsilon: float) -> None:
    z, mu = unit(rows, D), unit(P, D, seed=1)
    found = log_assignments(z @ mu.T, epsilon).exp()
    torch.testing.assert_close(found, tensor(loops(epsilon).assignments(z.tolist(), mu.tolist())), atol=1e-12, rtol=0)
    torch.testing.assert_close(found.sum(1), torch.ones(rows, dtype=torch.float64), atol=1e-12, rtol=0)


def test_assignments_match_the_loop_where_similarities_are_many_epsilons_apart() -> None:
    z, mu = unit(N, D), unit(P, D, seed=1)
    found = log_assignments(z @ mu.T, 0.01).exp()
    torch.testing.assert_close(found, tensor(loops(0.01).assignments(z.tolist(), mu.tolist())), atol=1e-9, rtol=0)


def test_after_many_rounds_all_prototypes_have_the_same_share_of_the_rows() -> None:
    similarity = unit(20, D) @ unit(P, D, seed=1).T
    shares = log_assignments(similarity, 0.5, 200).exp().sum(0)
    torch.testing.assert_close(shares, torch.full((P,), 20 / P, dtype=torch.float64), atol=1e-9, rtol=0)
    assert (log_assignments(similarity, 0.05).exp().sum(0) - 20 / P).abs().max() > 1e-2


def test_assignments_do_not_change_when_all_similarities_grow_alike() -> None:
    similarity = unit(N, D) @ unit(P, D, seed=1).T
    moved = log_assignments(similarity + 0.5, 0.05)
    torch.testing.assert_close(moved, log_assignments(similarity, 0.05), atol=1e-12, rtol=0)


def test_a_prototype_belongs_to_the_class_of_its_number_modulo_the_classes() -> None:
    expected = [[p % C == label for p in range(P)] for label in LABELS.tolist()]
    assert own_class(LABELS, P, C).tolist() == expected


@each("top_k", TOP)
def test_the_strongest_are_those_of_the_class_with_the_largest_assignments(top_k: int) -> None:
    q = torch.rand(N, P, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    chosen = loops(top_k=top_k).strongest(q.tolist(), LABELS.tolist())
    found = strongest(q.log(), own_class(LABELS, P, C), top_k)
    assert found.tolist() == [[p in kept for p in range(P)] for kept in chosen]


@each("epsilon", EPSILONS)
@each("top_k", TOP)
def test_prototypes_move_as_in_the_loop_and_keep_unit_norm(top_k: int, epsilon: float) -> None:
    z, mu = unit(N, D), unit(P, D, seed=1)
    found = moved(mu, z, epsilon, top_k)
    expected = loops(epsilon, top_k).moved(z.tolist(), LABELS.tolist(), mu.tolist())
    torch.testing.assert_close(found, tensor(expected), atol=1e-12, rtol=0)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(P, dtype=torch.float64), atol=1e-12, rtol=0)


def test_prototypes_without_rows_stay_where_they_are() -> None:
    labels = torch.tensor([2])
    z, mu = unit(1, D), unit(P, D, seed=1)
    found = moved(mu, z, top_k=2, labels=labels)
    changed = [bool((a - b).abs().max() > 1e-9) for a, b in zip(found, mu, strict=True)]
    assert sum(changed) == 2
    assert {p % C for p in range(P) if changed[p]} == {2}


def test_a_row_far_from_the_prototypes_of_its_class_moves_them_as_much_as_a_near_one() -> None:
    mu, z = tensor([[-1, 0], [1, 0], [0, 1]]), tensor([[1, 0], [1, 0], [-0.6, 0.8]])
    labels = torch.tensor([0, 1, 0])
    expected = loops(top_k=1).moved(z.tolist(), labels.tolist(), mu.tolist())
    torch.testing.assert_close(moved(mu, z, top_k=1, labels=labels), tensor(expected), atol=1e-9, rtol=0)


@each("top_k", TOP)
def test_the_move_trains_the_rows_with_assignments_held_fixed(top_k: int) -> None:
    z, mu, towards = unit(N, D).requires_grad_(), unit(P, D, seed=1), unit(P, D, seed=2)
    (moved(mu, z, 0.5, top_k) * towards).sum().backward()
    mixture, labels = loops(0.5, top_k), LABELS.tolist()
    pulls = mixture.pulls(z.tolist(), labels, mu.tolist())

    def naive(rows: list) -> float:
        after = mixture.moved(rows, labels, mu.tolist(), pulls)
        return sum(dot(a, b) for a, b in zip(after, towards.tolist(), strict=True))

    assert_close(z.grad, differences(naive, z))


@each("epsilon", EPSILONS)
@each("top_k", TOP)
def test_the_likelihood_of_each_row_matches_the_loop(top_k: int, epsilon: float) -> None:
    z, before, after = unit(N, D), unit(P, D, seed=1), unit(P, D, seed=2)
    weights = loops(epsilon, top_k).weights(z.tolist(), LABELS.tolist(), before.tolist(), after.tolist())
    expected = unlikelihood(z.tolist(), after.tolist(), weights, TAU)
    torch.testing.assert_close(of_rows(z, before, after, epsilon, top_k), tensor(expected), atol=1e-10, rtol=0)


@each("top_k", TOP)
def test_the_likelihood_trains_the_rows_with_weights_held_fixed(top_k: int) -> None:
    z, before, after = unit(N, D).requires_grad_(), unit(P, D, seed=1), unit(P, D, seed=2)
    of_rows(z, before, after, 0.5, top_k).mean().backward()
    weights = loops(0.5, top_k).weights(z.tolist(), LABELS.tolist(), before.tolist(), after.tolist())
    expected = differences(lambda rows: sum(unlikelihood(rows, after.tolist(), weights, TAU)) / N, z)
    assert_close(z.grad, expected)


def test_with_one_prototype_a_class_the_likelihood_is_cross_entropy() -> None:
    z, mu = unit(N, D), unit(C, D, seed=1)
    found = likelihood(z, LABELS, mu, mu, C, temperature=TAU, epsilon=0.05, top_k=1)
    expected = torch.nn.functional.cross_entropy(z @ mu.T / TAU, LABELS, reduction="none")
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


@each("temperature", [0.1, 0.5])
def test_the_contrast_is_supcon_among_prototypes_and_trains_them(temperature: float) -> None:
    mu, groups = unit(P, D).requires_grad_(), [p % C for p in range(P)]
    found = prototype_contrast(mu, C, temperature)
    assert found.item() == pytest.approx(supcon(mu.tolist(), groups, temperature), abs=1e-10)
    found.backward()
    assert_close(mu.grad, differences(lambda rows: supcon(rows, groups, temperature), mu))


def test_one_prototype_a_class_has_no_contrast() -> None:
    assert prototype_contrast(unit(C, D), C, 0.5).item() == 0

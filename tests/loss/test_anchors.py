"""Logits by anchors against loops, and the direction of ascent against what autograd finds."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.loss.anchors import anchor_logits, ascent_direction
from tests.cases import each
from tests.views import dot, normal, normalise

ROWS, C, D = 40, 7, 12


def anchors(unit: bool) -> Tensor:
    """Of norms between 0.1 and 3, or of norm 1."""
    drawn = F.normalize(normal(C, D, seed=1), dim=1)
    return drawn if unit else drawn * torch.linspace(0.1, 3, C, dtype=torch.float64)[:, None]


def naive(h: Tensor, gamma: Tensor, temperature: float, unit: bool) -> Tensor:
    compared = [normalise(row) if unit else row for row in gamma.tolist()]
    return torch.tensor(
        [[dot(normalise(row), anchor) / temperature for anchor in compared] for row in h.tolist()], dtype=torch.float64
    )


def gradient(h: Tensor, labels: Tensor, gamma: Tensor, temperature: float) -> Tensor:
    """d/dh of -log softmax_y, anchors as they are, by autograd."""
    at = h.clone().requires_grad_()
    logits = (at / at.square().sum(1, keepdim=True).sqrt()) @ gamma.T / temperature
    loss = (logits.logsumexp(1) - logits[torch.arange(len(h)), labels]).sum()
    return torch.autograd.grad(loss, at)[0]


def direction(h: Tensor, labels: Tensor, gamma: Tensor, temperature: float) -> Tensor:
    logits = (F.normalize(h, dim=1) @ gamma.T) / temperature
    return ascent_direction(h, h.norm(dim=1), logits, labels, gamma, temperature)


@each(("temperature", "unit"), [(1.0, True), (0.1, True), (0.1, False), (2.5, False)])
def test_logits_are_inner_products_of_the_embeddings_direction(temperature: float, unit: bool) -> None:
    h, gamma = 30 * normal(ROWS, D), anchors(unit=False)
    found = anchor_logits(h, gamma, temperature, unit)
    torch.testing.assert_close(found, naive(h, gamma, temperature, unit), atol=1e-12, rtol=0)


def test_a_cosine_is_what_is_taken_unless_otherwise_said_and_the_length_of_an_embedding_is_without_effect() -> None:
    h, gamma = normal(ROWS, D), anchors(unit=False)
    found = anchor_logits(h, gamma, 0.5)
    torch.testing.assert_close(found, naive(h, gamma, 0.5, True), atol=1e-12, rtol=0)
    assert found.abs().max() <= 2
    torch.testing.assert_close(anchor_logits(1e-3 * h, gamma, 0.5), found, atol=1e-12, rtol=0)


def test_an_embedding_of_zero_has_finite_logits_and_gradients() -> None:
    h = torch.zeros(2, D, requires_grad=True)
    found = anchor_logits(h, anchors(unit=False).float(), 0.1)
    assert found.isfinite().all()
    F.cross_entropy(found, torch.tensor([0, 1])).backward()
    assert h.grad is not None
    assert h.grad.isfinite().all()


def test_bfloat16_embeddings_lose_no_more_than_their_own_digits() -> None:
    h, gamma = normal(ROWS, D).bfloat16(), anchors(unit=False).float()
    expected = naive(h.double(), gamma.double(), 0.1, True).float()
    found = anchor_logits(h, gamma, 0.1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_logits_are_in_float32_where_autocast_lowers_what_is_around_them() -> None:
    h, gamma = normal(ROWS, D).float(), anchors(unit=False).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = anchor_logits(h, gamma, 0.1)
        of_lower = anchor_logits(h.bfloat16(), gamma, 0.1)
    assert (found.dtype, of_lower.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(found, naive(h.double(), gamma.double(), 0.1, True).float(), atol=1e-5, rtol=1e-5)


@each(("temperature", "unit", "length"), [(1.0, True, 1), (0.1, True, 5), (0.1, False, 0.2), (1.0, False, 40)])
def test_ascent_is_a_positive_multiple_of_the_gradient(temperature: float, unit: bool, length: float) -> None:
    h, labels, gamma = length * normal(ROWS, D), torch.arange(ROWS) % C, anchors(unit)
    expected, found = gradient(h, labels, gamma, temperature), direction(h, labels, gamma, temperature)
    assert torch.equal(found.sign(), expected.sign())
    torch.testing.assert_close(F.normalize(found, dim=1), F.normalize(expected, dim=1), atol=1e-9, rtol=0)


def test_ascent_is_along_the_sphere_and_away_from_the_own_anchor() -> None:
    h, labels, gamma = normal(ROWS, D), torch.arange(ROWS) % C, anchors(unit=True)
    found = F.normalize(direction(h, labels, gamma, 0.3), dim=1)
    assert (found * F.normalize(h, dim=1)).sum(1).abs().max() < 1e-9
    before, after = (naive(at, gamma, 0.3, True) for at in (h, h + 1e-4 * found))
    assert (F.cross_entropy(after, labels, reduction="none") > F.cross_entropy(before, labels, reduction="none")).all()


def test_ascent_leaves_what_it_is_given() -> None:
    h, labels, gamma = normal(ROWS, D), torch.arange(ROWS) % C, anchors(unit=True)
    logits, norms = naive(h, gamma, 0.3, True), h.norm(dim=1)
    given = (h, norms, logits, labels, gamma)
    kept = [tensor.clone() for tensor in given]
    ascent_direction(*given, 0.3)
    assert all(map(torch.equal, given, kept))


def test_float32_has_the_signs_of_float64_where_an_embedding_is_classified_with_confidence() -> None:
    """Beside its own anchor all others have a probability of 1e-4 together, as after training with t = 0.1."""
    labels, gamma = torch.arange(ROWS) % C, anchors(unit=True)
    h = 20 * (gamma[labels] + 0.05 * normal(ROWS, D))
    exact, found = gradient(h, labels, gamma, 0.1), direction(h.float(), labels, gamma.float(), 0.1)
    clear = exact.abs() > 1e-3 * exact.abs().amax(1, keepdim=True)
    assert clear.double().mean() > 0.95
    assert torch.equal(found.sign()[clear], exact.float().sign()[clear])

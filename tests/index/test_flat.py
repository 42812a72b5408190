"""Exact neighbour distances against sorting all distances, whatever the block size."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ood_lab.index import flat
from ood_lab.index.flat import FlatIndex, kth_largest
from tests.cases import each


def unit(rows: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, 6, generator=draw, dtype=torch.float64), dim=1).to(dtype)


@each("k", [1, 2, 17, 40])
def test_the_kth_distance_is_that_of_sorting(k: int) -> None:
    bank, queries = unit(40, 0), unit(25, 1)
    expected = (queries[:, None] - bank[None]).norm(dim=2).sort(1).values[:, k - 1]
    torch.testing.assert_close(FlatIndex(bank).kth_distance(queries, k), expected, rtol=1e-12, atol=0)


@each("block", [1, 40, 41, 85, 10**6])
def test_the_block_size_changes_nothing(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bank, queries = unit(40, 0), unit(25, 1)
    whole = FlatIndex(bank).kth_distance(queries, 3)
    monkeypatch.setattr(flat, "BLOCK", block)
    torch.testing.assert_close(FlatIndex(bank).kth_distance(queries, 3), whole, rtol=1e-12, atol=0)


def test_k_is_clipped_to_the_bank() -> None:
    bank, queries = unit(4, 0), unit(3, 1)
    assert torch.equal(FlatIndex(bank).kth_distance(queries, 9), FlatIndex(bank).kth_distance(queries, 4))


def test_a_small_distance_keeps_its_digits_in_float32() -> None:
    angle = 1e-4
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    query = torch.tensor([[1.0, angle]])
    assert FlatIndex(bank).kth_distance(query, 1).item() == pytest.approx(angle, rel=1e-5)


def test_no_query_gives_no_distance() -> None:
    assert FlatIndex(unit(4, 0)).kth_distance(torch.empty(0, 6, dtype=torch.float64), 1).shape == (0,)


def test_bank_and_queries_are_left_as_they_were() -> None:
    bank, queries = unit(4, 0), unit(3, 1)
    before = bank.clone(), queries.clone()
    FlatIndex(bank).kth_distance(queries, 2)
    assert torch.equal(bank, before[0])
    assert torch.equal(queries, before[1])


@each("count", [1, 7, 64, 1000, 1003])
@each("k", [1, 2, 10, 60])
@each("ties", [False, True])
def test_the_kth_largest_is_that_of_sorting(count: int, k: int, ties: bool) -> None:
    draw = torch.Generator().manual_seed(count + k)
    values = torch.randint(0, 5, (9, count), generator=draw).double() if ties else torch.randn(9, count, generator=draw)
    k = min(k, count)
    found = values.gather(1, kth_largest(values, k)[:, None]).squeeze(1)
    assert torch.equal(found, values.sort(1, descending=True).values[:, k - 1])

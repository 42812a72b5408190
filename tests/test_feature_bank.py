"""The feature bank against one Python deque for each class."""

from __future__ import annotations

from collections import deque

import pytest
import torch
from torch import Tensor

from ood_lab.feature_bank import FeatureBank, rank_within_class

Rows = list[deque[tuple[float, ...]]]


def batch(rows: int, classes: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(rows, dim, generator=draw), torch.randint(classes, (rows,), generator=draw)


def push_naive(rows: Rows, z: Tensor, labels: Tensor) -> None:
    for row, label in zip(z.tolist(), labels.tolist(), strict=True):
        rows[label].append(tuple(row))


def assert_same_rows(bank: FeatureBank, rows: Rows) -> None:
    for values, expected in zip(bank.values, rows, strict=True):
        written = [tuple(row) for row in values.tolist() if any(row)]
        assert sorted(written) == sorted(expected)


@pytest.mark.parametrize(("classes", "size", "rows"), [(3, 4, 5), (3, 4, 1), (5, 7, 16), (2, 3, 40), (4, 1, 9)])
def test_bank_holds_the_newest_rows_of_each_class(classes: int, size: int, rows: int) -> None:
    bank = FeatureBank(classes, size, 3)
    expected: Rows = [deque(maxlen=size) for _ in range(classes)]
    for step in range(25):
        z, labels = batch(rows, classes, 3, seed=step)
        bank.push(z, labels)
        push_naive(expected, z, labels)
        assert_same_rows(bank, expected)
        assert bank.full == all(len(rows_c) == size for rows_c in expected)


def test_of_more_rows_of_a_class_than_fit_the_last_stay() -> None:
    bank = FeatureBank(2, 3, 1)
    bank.push(torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0], [6.0]]), torch.tensor([0, 0, 1, 0, 0, 0]))
    assert sorted(bank.values[0].flatten().tolist()) == [4.0, 5.0, 6.0]
    assert sorted(bank.values[1].flatten().tolist()) == [0.0, 0.0, 3.0]
    bank.push(torch.tensor([[7.0], [8.0]]), torch.tensor([0, 1]))
    assert sorted(bank.values[0].flatten().tolist()) == [5.0, 6.0, 7.0]
    assert sorted(bank.values[1].flatten().tolist()) == [0.0, 3.0, 8.0]


def test_an_empty_batch_changes_nothing() -> None:
    bank = FeatureBank(2, 3, 1)
    bank.push(torch.ones(2, 1), torch.tensor([0, 1]))
    before = bank.values.clone()
    bank.push(torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64))
    assert torch.equal(bank.values, before)


def test_full_needs_every_row_of_every_class() -> None:
    bank = FeatureBank(2, 2, 1)
    assert not bank.full
    bank.push(torch.ones(5, 1), torch.zeros(5, dtype=torch.int64))
    assert not bank.full
    bank.push(torch.ones(1, 1), torch.ones(1, dtype=torch.int64))
    assert not bank.full
    bank.push(torch.ones(1, 1), torch.ones(1, dtype=torch.int64))
    assert bank.full


def test_bank_keeps_its_shape_and_its_storage_when_rows_are_pushed() -> None:
    bank = FeatureBank(3, 4, 2)
    place = bank.values.data_ptr()
    for step in range(5):
        bank.push(*batch(11, 3, 2, seed=step))
    assert bank.values.shape == (3, 4, 2)
    assert bank.values.data_ptr() == place


def test_rows_are_stored_without_their_graph() -> None:
    bank = FeatureBank(1, 2, 2)
    bank.push(torch.ones(2, 2, requires_grad=True) * 2, torch.zeros(2, dtype=torch.int64))
    assert not bank.values.requires_grad


def test_state_dict_round_trip_goes_on_as_if_never_interrupted() -> None:
    first, second = FeatureBank(3, 4, 2), FeatureBank(3, 4, 2)
    for step in range(6):
        first.push(*batch(5, 3, 2, seed=step))
    assert first.full
    second.load_state_dict(first.state_dict())
    assert second.full
    for step in range(6, 9):
        first.push(*batch(5, 3, 2, seed=step))
        second.push(*batch(5, 3, 2, seed=step))
        assert torch.equal(first.values, second.values)


def test_full_follows_a_loaded_state_that_is_not_full() -> None:
    bank = FeatureBank(1, 2, 1)
    empty = {name: value.clone() for name, value in bank.state_dict().items()}
    bank.push(torch.ones(2, 1), torch.zeros(2, dtype=torch.int64))
    assert bank.full
    bank.load_state_dict(empty)
    assert not bank.full


def test_rank_within_class_counts_earlier_rows_of_the_same_label() -> None:
    for seed in range(5):
        _, labels = batch(30, 6, 1, seed)
        expected = [sum(labels[j] == labels[i] for j in range(i)) for i in range(30)]
        assert rank_within_class(labels, labels.bincount(minlength=8)).tolist() == [int(x) for x in expected]

"""Banks and the queue against Python deques, prototypes and mixtures against loops over rows."""

from __future__ import annotations

from collections import deque

import numpy as np
import torch
from torch import Tensor

from ood_lab.loss.cider import rank_within_class
from ood_lab.memory import Bank, FeatureQueue, Mixture, Prototypes
from ood_lab.parts import Dimensions
from tests.cases import each
from tests.views import MixtureLoops, assert_close, differences, dot, moved, unit

Rows = list[deque[tuple[float, ...]]]


def batch(rows: int, classes: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(rows, dim, generator=draw), torch.randint(classes, (rows,), generator=draw)


def bank_of(classes: int, size: int, dim: int) -> Bank:
    return Bank(Dimensions(classes, dim, dim), size)


def push(bank: Bank, z: Tensor, labels: Tensor) -> None:
    counts = np.bincount(labels.numpy(), minlength=len(bank.written))
    bank.store(z, labels, counts, bank.offer(z, labels, counts))


def push_naive(rows: Rows, z: Tensor, labels: Tensor) -> None:
    for row, label in zip(z.tolist(), labels.tolist(), strict=True):
        rows[label].append(tuple(row))


def assert_same_rows(bank: Bank, rows: Rows) -> None:
    for values, expected in zip(bank.values, rows, strict=True):
        written = [tuple(row) for row in values.tolist() if any(row)]
        assert sorted(written) == sorted(expected)


@each(("classes", "size", "rows"), [(3, 4, 5), (3, 4, 1), (5, 7, 16), (2, 3, 40), (4, 1, 9)])
def test_bank_holds_the_newest_rows_of_each_class(classes: int, size: int, rows: int) -> None:
    bank = bank_of(classes, size, 3)
    expected: Rows = [deque(maxlen=size) for _ in range(classes)]
    for step in range(25):
        z, labels = batch(rows, classes, 3, seed=step)
        push(bank, z, labels)
        push_naive(expected, z, labels)
        assert_same_rows(bank, expected)
        assert bank.ready == all(len(rows_c) == size for rows_c in expected)


def test_of_more_rows_of_a_class_than_fit_the_last_stay() -> None:
    bank = bank_of(2, 3, 1)
    push(bank, torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0], [6.0]]), torch.tensor([0, 0, 1, 0, 0, 0]))
    assert sorted(bank.values[0].flatten().tolist()) == [4.0, 5.0, 6.0]
    assert sorted(bank.values[1].flatten().tolist()) == [0.0, 0.0, 3.0]
    push(bank, torch.tensor([[7.0], [8.0]]), torch.tensor([0, 1]))
    assert sorted(bank.values[0].flatten().tolist()) == [5.0, 6.0, 7.0]
    assert sorted(bank.values[1].flatten().tolist()) == [0.0, 3.0, 8.0]


def test_an_empty_batch_changes_nothing() -> None:
    bank = bank_of(2, 3, 1)
    push(bank, torch.ones(2, 1), torch.tensor([0, 1]))
    before = bank.values.clone()
    push(bank, torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64))
    assert torch.equal(bank.values, before)


def test_full_needs_every_row_of_every_class() -> None:
    bank = bank_of(2, 2, 1)
    assert not bank.ready
    push(bank, torch.ones(5, 1), torch.zeros(5, dtype=torch.int64))
    assert not bank.ready
    push(bank, torch.ones(1, 1), torch.ones(1, dtype=torch.int64))
    assert not bank.ready
    push(bank, torch.ones(1, 1), torch.ones(1, dtype=torch.int64))
    assert bank.ready


def test_bank_keeps_its_shape_and_its_storage_when_rows_are_pushed() -> None:
    bank = bank_of(3, 4, 2)
    place = bank.values.data_ptr()
    for step in range(5):
        push(bank, *batch(11, 3, 2, seed=step))
    assert bank.values.shape == (3, 4, 2)
    assert bank.values.data_ptr() == place


def test_rows_are_stored_without_their_graph() -> None:
    bank = bank_of(1, 2, 2)
    push(bank, torch.ones(2, 2, requires_grad=True) * 2, torch.zeros(2, dtype=torch.int64))
    assert not bank.values.requires_grad


def test_state_dict_round_trip_goes_on_as_if_never_interrupted() -> None:
    first, second = bank_of(3, 4, 2), bank_of(3, 4, 2)
    for step in range(6):
        push(first, *batch(5, 3, 2, seed=step))
    assert first.ready
    second.load_state_dict(first.state_dict())
    assert second.ready
    for step in range(6, 9):
        push(first, *batch(5, 3, 2, seed=step))
        push(second, *batch(5, 3, 2, seed=step))
        assert torch.equal(first.values, second.values)


def test_full_follows_a_loaded_state_that_is_not_full() -> None:
    bank = bank_of(1, 2, 1)
    empty = {name: value.clone() for name, value in bank.state_dict().items()}
    push(bank, torch.ones(2, 1), torch.zeros(2, dtype=torch.int64))
    assert bank.ready
    bank.load_state_dict(empty)
    assert not bank.ready


def test_rank_within_class_counts_earlier_rows_of_the_same_label() -> None:
    for seed in range(5):
        _, labels = batch(30, 6, 1, seed)
        expected = [sum(labels[j] == labels[i] for j in range(i)) for i in range(30)]
        assert rank_within_class(labels, labels.bincount(minlength=8)).tolist() == [int(x) for x in expected]


# A queue of all classes.


def queue_of(size: int, width: int = 3) -> FeatureQueue:
    """Of features that are wider than projections."""
    return FeatureQueue(Dimensions(4, width, 1), size)


def enqueue(queue: FeatureQueue, rows: Tensor) -> None:
    labels = torch.zeros(len(rows), dtype=torch.int64)
    queue.store(rows, labels, np.array([len(rows), 0, 0, 0]), queue.values)


def in_order(queue: FeatureQueue) -> list[list[float]]:
    """What was written, the oldest first."""
    written, size = int(queue.written), len(queue.values)
    return [queue.values[place % size].tolist() for place in range(max(0, written - size), written)]


@each(("size", "counts"), [
    (5, [2] * 9), (4, [4] * 3), (7, [3, 0, 5, 7, 1, 20, 2, 14, 6]), (3, [10, 1, 1]), (1, [1, 4, 2]), (6, [6, 12, 13]),
])  # fmt: skip
def test_the_queue_holds_the_newest_rows_of_all_classes_first_in_first_out(size: int, counts: list[int]) -> None:
    queue, expected = queue_of(size), deque(maxlen=size)
    for step, count in enumerate(counts):
        rows = batch(count, 4, 3, seed=step)[0]
        enqueue(queue, rows)
        expected.extend(rows.tolist())
        assert in_order(queue) == list(expected)
        assert queue.ready == (len(expected) == size)
        assert int(queue.written) == sum(counts[: step + 1])


def test_a_queue_that_is_not_full_has_zeros_behind_its_rows_and_is_not_ready() -> None:
    queue, rows = queue_of(5), batch(4, 4, 3, seed=0)[0]
    enqueue(queue, rows)
    assert torch.equal(queue.values, torch.cat([rows, torch.zeros(1, 3)]))
    assert not queue.ready
    enqueue(queue, rows[:1])
    assert queue.ready


def test_a_queue_is_of_features_keeps_its_storage_and_stores_no_graph() -> None:
    queue = queue_of(5, width=7)
    assert (queue.space, queue.values.shape, queue.values.dtype) == ("features", (5, 7), torch.float32)
    place = queue.values.data_ptr()
    for step in range(4):
        rows = batch(3, 4, 7, seed=step)[0].double().requires_grad_()
        assert queue.offer(rows, torch.zeros(3), np.zeros(4)) is queue.values
        enqueue(queue, 2 * rows)
        assert torch.equal(queue.values[(3 * step) % 5], (2 * rows[0]).float())
    assert not queue.values.requires_grad
    assert queue.values.data_ptr() == place


def test_after_a_checkpoint_a_queue_goes_on_as_if_never_interrupted() -> None:
    first, second = queue_of(7), queue_of(7)
    for step in range(4):
        enqueue(first, batch(5, 4, 3, seed=step)[0])
    state = {name: value.clone() for name, value in first.state_dict().items()}
    assert set(state) == {"values", "written"}
    second.load_state_dict(state)
    assert second.ready
    for step in range(4, 7):
        for queue in (first, second):
            enqueue(queue, batch(5, 4, 3, seed=step)[0])
        assert torch.equal(first.values, second.values)
        assert first.written == second.written
    first.load_state_dict(queue_of(7).state_dict())
    assert not first.ready


# Prototypes.


def prototypes_of(classes: int, dim: int, momentum: float = 0.8) -> Prototypes:
    """In float64, at random unit vectors."""
    memory = Prototypes(Dimensions(classes, 2 * dim, dim), momentum).double()
    memory.values.copy_(unit(classes, dim, seed=1))
    return memory


def offered_of(memory: Prototypes, z: Tensor, labels: Tensor) -> Tensor:
    return memory.offer(z, labels, np.bincount(labels.numpy(), minlength=len(memory.values)))


def store_in(memory: Prototypes, z: Tensor, labels: Tensor, offered: Tensor) -> None:
    memory.store(z, labels, np.bincount(labels.numpy(), minlength=len(memory.values)), offered)


@each("momentum", [0.0, 0.5, 0.95])
@each("rows", [1, 9, 40])
def test_prototypes_are_moved_row_by_row_in_batch_order(momentum: float, rows: int) -> None:
    memory = prototypes_of(4, 5, momentum)
    for step in range(3):
        z, labels = unit(rows, 5, seed=10 + step), batch(rows, 4, 1, seed=step)[1]
        expected = moved(memory.values.tolist(), z.tolist(), labels.tolist(), momentum)
        offered = offered_of(memory, z, labels)
        torch.testing.assert_close(offered, torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=0)
        store_in(memory, z, labels, offered)


def test_the_order_of_rows_of_a_class_matters_and_that_of_classes_does_not() -> None:
    memory, z = prototypes_of(2, 3), unit(4, 3)
    labels = torch.tensor([0, 1, 0, 1])
    found = offered_of(memory, z, labels)
    swapped = torch.tensor([1, 0, 3, 2])
    assert torch.equal(offered_of(memory, z[swapped], labels[swapped]), found)
    assert (offered_of(memory, z.flip(0), labels.flip(0)) - found).abs().max() > 1e-3


def test_a_class_without_rows_keeps_its_prototype() -> None:
    memory = prototypes_of(4, 5)
    found = offered_of(memory, unit(3, 5), torch.tensor([2, 0, 2]))
    assert [torch.equal(a, b) for a, b in zip(found, memory.values, strict=True)] == [False, True, False, True]


def test_an_offer_has_its_graph_and_writes_nothing() -> None:
    memory, z, labels = prototypes_of(3, 4), unit(7, 4).requires_grad_(), batch(7, 3, 1, seed=0)[1]
    before = {name: value.clone() for name, value in memory.state_dict().items()}
    offered = offered_of(memory, z, labels)
    (offered * unit(3, 4, seed=2)).sum().backward()
    for name, value in memory.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert (offered - memory.values).abs().max() > 1e-3

    def naive(rows: list) -> float:
        after = moved(before["values"].tolist(), rows, labels.tolist(), 0.8)
        return sum(dot(a, b) for a, b in zip(after, unit(3, 4, seed=2).tolist(), strict=True))

    assert_close(z.grad, differences(naive, z))


def test_what_was_offered_is_stored_by_value_and_without_its_graph() -> None:
    memory, z, labels = prototypes_of(3, 4), unit(7, 4).requires_grad_(), batch(7, 3, 1, seed=0)[1]
    place, offered = memory.values.data_ptr(), offered_of(memory, z, labels)
    wanted = offered.detach().clone()
    store_in(memory, z.detach(), labels, offered)
    assert torch.equal(memory.values, wanted)
    assert not memory.values.requires_grad
    with torch.no_grad():
        offered.zero_()
    assert torch.equal(memory.values, wanted)
    assert memory.values.data_ptr() == place
    made_up = unit(3, 4, seed=5)
    store_in(memory, z.detach(), labels, made_up)
    assert torch.equal(memory.values, made_up)


class Sums:
    """Sums of class rows; counts how often it is asked, and for how many images."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, images: int) -> Tensor:
        self.asked.append(images)
        return torch.tensor([[3.0, 4.0], [0.0, -7.0], [-60.0, 80.0]])


def test_prototypes_begin_as_class_means_at_unit_norm_and_once() -> None:
    memory, sums = Prototypes(Dimensions(3, 9, 2), 0.8), Sums()
    memory.begin(sums)
    expected = torch.tensor([[0.6, 0.8], [0.0, -1.0], [-0.6, 0.8]])
    torch.testing.assert_close(memory.values, expected)
    assert sums.asked == [100]
    memory.values.copy_(-expected)
    memory.begin(sums)
    assert sums.asked == [100]
    torch.testing.assert_close(memory.values, -expected)


@each("begun", [True, False])
def test_after_a_checkpoint_prototypes_begin_only_where_they_had_not(begun: bool) -> None:
    first, second, sums = Prototypes(Dimensions(3, 9, 2), 0.8), Prototypes(Dimensions(3, 9, 2), 0.8), Sums()
    if begun:
        first.begin(Sums())
        first.values.copy_(torch.eye(3, 2))
    second.load_state_dict(first.state_dict())
    second.begin(sums)
    assert sums.asked == ([] if begun else [100])
    if begun:
        assert torch.equal(second.values, torch.eye(3, 2))


def test_prototypes_are_of_the_projections_and_always_ready() -> None:
    memory = Prototypes(Dimensions(3, 9, 2), 0.8)
    assert memory.values.shape == (3, 2)
    assert memory.ready
    assert memory.space == "z"


# Mixtures.


def mixture_of(classes: int, per_class: int, dim: int, momentum: float = 0.8, top_k: int = 2) -> Mixture:
    """In float64, at random unit vectors."""
    memory = Mixture(Dimensions(classes, 2 * dim, dim), per_class, momentum, 0.1, top_k).double()
    memory.values.copy_(unit(classes * per_class, dim, seed=1))
    return memory


def mix(memory: Mixture, z: Tensor, labels: Tensor, classes: int) -> Tensor:
    """One step: what is offered, after it was stored."""
    counts = np.bincount(labels.numpy(), minlength=classes)
    offered = memory.offer(z, labels, counts)
    memory.store(z.detach(), labels, counts, offered.detach())
    return offered


@each("momentum", [0.5, 0.999])
@each("rows", [2, 9, 40])
def test_a_mixture_offers_the_prototypes_before_the_step_and_moved_by_it(momentum: float, rows: int) -> None:
    memory, loops = mixture_of(4, 3, 5, momentum), MixtureLoops(4, momentum, 0.1, 2)
    for step in range(3):
        z, labels = unit(rows, 5, seed=10 + step), batch(rows, 4, 1, seed=step)[1]
        before = memory.values.clone()
        expected = loops.moved(z.tolist(), labels.tolist(), before.tolist())
        offered = mix(memory, z, labels, 4)
        assert offered.shape == (2, 12, 5)
        torch.testing.assert_close(offered[0], before, atol=0, rtol=0)
        torch.testing.assert_close(offered[1], torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=0)
        assert torch.equal(memory.values, offered[1])


def test_what_a_mixture_offers_has_its_graph_and_writes_nothing() -> None:
    memory, z, labels = mixture_of(3, 3, 4), unit(7, 4).requires_grad_(), batch(7, 3, 1, seed=0)[1]
    before, towards = memory.values.clone(), unit(9, 4, seed=2)
    offered = memory.offer(z, labels, np.bincount(labels.numpy(), minlength=3))
    assert torch.equal(memory.values, before)
    (offered[1] * towards).sum().backward()
    loops = MixtureLoops(3, 0.8, 0.1, 2)
    pulls = loops.pulls(z.tolist(), labels.tolist(), before.tolist())

    def naive(rows: list) -> float:
        after = loops.moved(rows, labels.tolist(), before.tolist(), pulls)
        return sum(dot(a, b) for a, b in zip(after, towards.tolist(), strict=True))

    assert_close(z.grad, differences(naive, z))


def test_a_mixture_stores_what_was_offered_by_value_and_leaves_the_offer_as_it_is() -> None:
    memory, z, labels = mixture_of(3, 3, 4), unit(7, 4).requires_grad_(), batch(7, 3, 1, seed=0)[1]
    counts, place, before = np.bincount(labels.numpy(), minlength=3), memory.values.data_ptr(), memory.values.clone()
    offered = memory.offer(z, labels, counts)
    wanted = offered.detach().clone()
    memory.store(z.detach(), labels, counts, offered.detach())
    assert torch.equal(memory.values, wanted[1])
    assert torch.equal(offered, wanted)
    assert (wanted[1] - before).abs().max() > 1e-3
    assert not memory.values.requires_grad
    with torch.no_grad():
        offered.zero_()
    assert torch.equal(memory.values, wanted[1])
    assert memory.values.data_ptr() == place


def test_a_mixture_begins_at_different_unit_vectors_of_non_negative_coordinates() -> None:
    torch.manual_seed(0)
    memory = Mixture(Dimensions(4, 20, 10), 3, 0.999, 0.05, 2)
    assert memory.values.shape == (12, 10)
    torch.testing.assert_close(memory.values.norm(dim=1), torch.ones(12))
    assert memory.values.min() >= 0
    cosines = memory.values @ memory.values.T
    assert cosines.masked_fill(torch.eye(12, dtype=torch.bool), 0).max() < 0.999


def test_a_mixture_begins_where_the_seed_says() -> None:
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        made.append(Mixture(Dimensions(4, 20, 10), 3, 0.999, 0.05, 2).values)
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_after_a_checkpoint_a_mixture_goes_on_as_if_never_interrupted() -> None:
    first, second = mixture_of(3, 2, 4), Mixture(Dimensions(3, 8, 4), 2, 0.8, 0.1, 2).double()
    for step in range(3):
        mix(first, unit(6, 4, seed=step), batch(6, 3, 1, seed=step)[1], 3)
    second.load_state_dict(first.state_dict())
    for memory in (first, second):
        memory.begin(Sums())
    assert torch.equal(first.values, second.values)
    for step in range(3, 6):
        z, labels = unit(6, 4, seed=step), batch(6, 3, 1, seed=step)[1]
        assert torch.equal(mix(first, z, labels, 3), mix(second, z, labels, 3))
    assert torch.equal(first.values, second.values)


def test_a_mixture_is_of_the_projections_and_always_ready() -> None:
    memory = Mixture(Dimensions(3, 9, 2), 6, 0.999, 0.05, 5)
    assert memory.values.shape == (18, 2)
    assert memory.ready
    assert memory.space == "z"

"""The column of each row's k-th largest value, against sorting."""

from __future__ import annotations

import torch

from ood_lab.geometry.kth import kth_largest_column
from tests.cases import each
from tests.sampling.test_oodness import normal


@each("k", [1, 3, 20])
def test_kth_largest_column_points_to_the_kth_largest_value(k: int) -> None:
    rows = normal(30, 20)
    columns = kth_largest_column(rows, k)
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        assert row[column] == sorted(row, reverse=True)[k - 1]


def test_kth_largest_column_counts_ties_as_separate_entries() -> None:
    rows = torch.tensor([[5.0, 1, 5, 3], [2, 2, 2, 2]])
    for k, values in {1: (5, 2), 2: (5, 2), 3: (3, 2), 4: (1, 2)}.items():
        columns = kth_largest_column(rows, k)
        assert rows[torch.arange(2), columns].tolist() == list(values)

"""CSI's score against a plain loop over shifts and training images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ood_lab.scorer import build_scorer
from tests.cases import each
from tests.scorer.case import TEST, TRAIN, as_given

# Away from zero, where the cosine has no value.
BANK, DATA = (as_given("csi", s._replace(features=s.features + 0.1)) for s in (TRAIN, TEST))


def naive(shifts: range) -> list[float]:
    train = BANK.features.numpy()
    weight = [1 / np.mean([np.linalg.norm(row[s]) for row in train]) for s in shifts]
    expected = []
    for z in DATA.features.numpy():
        total = 0.0
        for s in shifts:
            cosines = [row[s] @ z[s] / np.linalg.norm(row[s]) / np.linalg.norm(z[s]) for row in train]
            total += weight[s] * max(cosines) * np.linalg.norm(z[s])
        expected.append(-total)
    return expected


@each("options", [{}, {"shifts": "all"}])
def test_it_is_the_likeness_to_the_nearest_image_times_the_norm_summed_over_shifts(options: dict[str, Any]) -> None:
    scores = build_scorer("csi", **options).fit(BANK).score(DATA).tolist()
    assert scores == pytest.approx(naive(range(2)), rel=1e-6)


def test_the_first_shift_alone_is_the_loop_over_it() -> None:
    scores = build_scorer("csi", shifts="first").fit(BANK).score(DATA).tolist()
    assert scores == pytest.approx(naive(range(1)), rel=1e-6)
    assert scores != pytest.approx(naive(range(2)), rel=1e-2)


def test_the_first_shift_alone_does_not_look_at_the_others() -> None:
    changed = []
    for s in (BANK, DATA):
        features = s.features.clone()
        features[:, 1:] = features[:, 1:].flip(0) * 3 + 1
        changed.append(s._replace(features=features))
    plain, other = (
        build_scorer("csi", shifts="first").fit(bank).score(data).tolist() for bank, data in ((BANK, DATA), changed)
    )
    assert plain == other


def test_with_one_shift_the_order_is_that_of_hamos_eq_20() -> None:
    bank, data = (s._replace(features=s.features[:, :1]) for s in (BANK, DATA))
    scores = build_scorer("csi").fit(bank).score(data).numpy()
    train, z = (s.features[:, 0].numpy() for s in (bank, data))
    cosine = (z @ (train / np.linalg.norm(train, axis=1, keepdims=True)).T).max(1)
    assert (np.argsort(scores) == np.argsort(-cosine)).all()  # z's norm is part of the product


def test_features_without_a_dimension_of_shifts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"features of \[N, shifts, D\]; got \(200, 16\)"):
        build_scorer("csi").fit(TRAIN)


def test_the_first_shift_alone_is_the_image_as_it_is() -> None:
    first, both = (build_scorer("csi", shifts=which).fit(BANK).score(DATA) for which in ("first", "all"))
    alone = [s._replace(features=s.features[:, :1]) for s in (BANK, DATA)]
    assert first.tolist() == pytest.approx(build_scorer("csi").fit(alone[0]).score(alone[1]).tolist())
    assert first.tolist() != pytest.approx(both.tolist())

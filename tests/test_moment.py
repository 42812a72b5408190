"""Moments of a run, in exact fractions, and the schedule of a term."""

from __future__ import annotations

from fractions import Fraction

from ood_lab.id_loss.ce import CE
from ood_lab.moment import Progress, first_step
from ood_lab.parts import Dimensions
from tests.cases import each

RUNS = [(40, 10), (7, 7), (100, 1), (391 * 3, 391), (391 * 100, 391)]  # steps in all, steps an epoch


def has_come(moment: str, step: int, steps: int, per_epoch: int) -> bool:
    """Epochs that are over, or the share of the steps that is done."""
    if "." in moment:
        return Fraction(step, steps) >= Fraction(moment)
    return step // per_epoch >= int(moment)


def parsed(moment: str) -> float:
    return float(moment) if "." in moment else int(moment)


@each(("steps", "per_epoch"), RUNS)
@each("moment", ["0", "1", "2", "3", "50", "0.07", "0.1", "0.25", "0.3", "0.5", "0.57", "0.999"])
def test_a_moment_comes_in_its_step_and_not_before(moment: str, steps: int, per_epoch: int) -> None:
    first = first_step(parsed(moment), steps, per_epoch)
    for step in {0, 1, max(0, first - 1), first, first + 1, steps - 1, steps}:
        expected = has_come(moment, step, steps, per_epoch)
        assert Progress(step, steps, per_epoch).reached(parsed(moment)) == expected, step
    assert has_come(moment, first, steps, per_epoch)
    assert first == 0 or not has_come(moment, first - 1, steps, per_epoch)


@each(("share", "steps", "first"), [(0.07, 100, 7), (0.29, 100, 29), (0.1, 30, 3), (0.7, 10, 7)])
def test_rounding_of_a_share_does_not_cost_a_step(share: float, steps: int, first: int) -> None:
    assert first_step(share, steps, 1) == first


def test_a_share_between_two_steps_comes_with_the_later_one() -> None:
    assert first_step(0.25, 10, 5) == 3
    assert first_step(0.001, 10, 5) == 1


def ran(**schedule: float | None) -> list[int]:
    term = CE(Dimensions(2, 2, 2), **schedule)
    return [step for step in range(20) if term.runs(Progress(step, 20, 5))]


@each(
    ("schedule", "expected"),
    [
        ({}, range(20)),
        ({"start": 2}, range(10, 20)),
        ({"end": 1}, range(5)),
        ({"start": 0.3, "end": 3}, range(6, 15)),
        ({"start": 1, "end": 0.5}, range(5, 10)),
        ({"end": None}, range(20)),
        ({"end": 4}, range(20)),
        ({"weight": 0.0}, []),
        ({"weight": 1e-9}, range(20)),
    ],
)
def test_a_term_takes_part_from_its_start_up_to_its_end(schedule: dict[str, float | None], expected: range) -> None:
    assert ran(**schedule) == list(expected)


def test_a_term_that_ends_with_epoch_zero_never_takes_part() -> None:
    assert ran(end=0) == []

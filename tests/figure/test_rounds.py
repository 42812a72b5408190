"""Chains round by round: what each panel shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from ood_lab.figure.base import files_of, values_of
from ood_lab.figure.rounds import Rounds
from ood_lab.results.material import Array, Material
from tests.figure.material import material

ROUNDS, CHAINS = 3, 20


def columns(shift: float = 0.0) -> dict[str, Array]:
    random = np.random.default_rng(0)
    numbers = np.repeat(np.arange(ROUNDS + 1), CHAINS)
    fates = np.where(numbers == 0, 0, 1 + (np.arange(len(numbers)) % 4 == 0) + (np.arange(len(numbers)) % 10 == 0))
    return {"round": numbers, "oodness": numbers + shift + 0.1 * random.random(len(numbers)), "fate": fates}


def shown(**changes: Any) -> Material:
    base = material()
    curves = [{"step": s, "info/round_0/oodness": 0.5, "info/round_1/oodness": 1.5} for s in (10, 20)]
    run = base.runs[-1]._replace(columns=columns(), curves=curves, **changes)
    return base._replace(runs=[run])


def rounds(**options: Any) -> Rounds:
    return Rounds(**{"leapfrog_steps": [], "step_size": [], **options})


def test_the_runs_own_chains_have_medians_fates_and_their_course() -> None:
    figure = rounds().draw(shown())
    assert figure is not None
    left, middle, right = figure.axes
    medians = left.lines[-1].get_ydata()
    for number in range(ROUNDS + 1):
        assert medians[number] == pytest.approx(np.median(columns()["oodness"][columns()["round"] == number]))
    shares = [sum(bar.get_height() for bar in bars) for bars in zip(*middle.containers, strict=True)]
    assert shares == pytest.approx([1.0] * ROUNDS)
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["round 0", "round 1"]


def test_a_grid_has_a_panel_for_each_setting_drawn_with_it() -> None:
    asked: list[Mapping[str, Any]] = []

    def redraw(changes: Mapping[str, Any]) -> dict[str, Array]:
        asked.append(changes)
        return columns(shift=changes["step_size"])

    figure = rounds(leapfrog_steps=[1, 3], step_size=[0.1, 0.5]).draw(shown(redraw=redraw))
    assert figure is not None
    assert asked == [{"leapfrog_steps": steps, "step_size": size} for steps in (1, 3) for size in (0.1, 0.5)]
    assert [axes.get_title() for axes in figure.axes] == [
        "L 1, step 0.1",
        "L 1, step 0.5",
        "L 3, step 0.1",
        "L 3, step 0.5",
    ]
    first, second = (axes.lines[-1].get_ydata()[0] for axes in figure.axes[:2])
    assert second - first == pytest.approx(0.4)


def test_nothing_to_draw_without_chains() -> None:
    assert rounds().draw(material()) is None


def test_a_picture_is_also_a_table_of_its_numbers() -> None:
    figure = rounds().draw(shown())
    assert figure is not None
    rows = values_of(figure)
    medians = [row["y"] for row in rows if row["series"] == "median OOD-ness"]
    assert len(medians) == ROUNDS + 1
    assert {row["series"] for row in rows if row["panel"] == "proposals"} == {
        "accepted",
        "refused by the margin",
        "refused by Metropolis",
    }
    files = files_of(figure)
    assert files["png"].startswith(b"\x89PNG")
    assert files["pdf"].startswith(b"%PDF")
    assert files["csv"].decode().splitlines()[0] == "panel,series,x,y"

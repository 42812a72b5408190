"""A command that does not say what is trained on what is about the first run; it says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from ood_lab.command import carry_out
from ood_lab.config.first_run import FIRST_RUN, with_first_run
from tests.cases import each


@each(
    "overrides",
    [
        [],
        ["seed=3"],
        ["trainer.max_epochs=1", "paths.output=x"],
        ["task=evaluate", "scorer=[knn,vim]", "scorer.knn.k=3"],
    ],
)
def test_it_is_the_first_run_where_nothing_else_is_named(
    overrides: list[str],
) -> None:
    assert with_first_run(overrides) == [FIRST_RUN, *overrides]


@each(
    "overrides",
    [
        ["method=ce"],
        ["synthesizer=midpoints"],
        ["synthesizer.bank_size=9", "seed=1"],
        ["dataset.recipe.epochs.finetune=1"],
        ["backbone.width=4"],
        ["experiment=hamos"],
        ["table=hamos_t17"],
        ["task=synthesize", "producer=fractals"],
        ["task=data"],
        ["auxiliary=fractals"],
    ],
)
def test_any_part_of_an_experiment_begins_from_the_defaults(
    overrides: list[str],
) -> None:
    assert with_first_run(overrides) == overrides


def test_a_command_says_that_it_is_the_first_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("ood_lab.task.execute", lambda experiment: experiment.choices)
    chosen = carry_out([f"paths.output={tmp_path}"])
    assert chosen["method"] == "energy"
    assert FIRST_RUN in capsys.readouterr().out

"""The lines below a table."""

from __future__ import annotations

from pathlib import Path

import pytest

from ood_lab.config import prepare
from ood_lab.results.caption import accuracy_lines, outlier_lines, training_lines

LOGGED = {"step", "epoch", "loss/total", "val/msp/auroc/uniform_noise"}


def test_what_was_looked_at_while_training_is_what_the_curves_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OOD_LAB_OUTPUT", str(tmp_path))
    plain = prepare(["method=ce"])
    asking = prepare(["method=ce", "trainer.evaluate_every=1", "trainer.evaluate_test=true"])
    for experiment in (plain, asking):  # what today's command says counts for nothing
        assert training_lines(experiment, LOGGED) == training_lines(experiment, ()) == []
        (line,) = training_lines(experiment, LOGGED | {"test/msp/auroc/letters"})
        assert line.startswith("OOD test sets were scored while training, too")
    chosen = prepare(["method=ce", "trainer.select=best_val_accuracy"])
    assert training_lines(chosen, LOGGED) == ["weights of the epoch with the best accuracy on ID validation images"]


def test_an_accuracy_at_chance_and_one_that_fine_tuning_lost_are_said() -> None:
    assert "at chance for 10 classes" in accuracy_lines(0.11, 10)[0]
    assert "at chance" in accuracy_lines(0.11, 10, 0.98)[0]
    assert accuracy_lines(0.74, 2) == accuracy_lines(0.49, 3) == []
    assert "at chance for 2 classes" in accuracy_lines(0.51, 2)[0]
    assert accuracy_lines(0.98, 10, 0.938 + 0.05) == []
    assert accuracy_lines(0.938, 10, 0.984) == ["fine-tuning lost ID accuracy: 98.4 before, 93.8 after"]
    assert accuracy_lines(0.9, None) == accuracy_lines(float("nan"), 10, 0.9) == []


def test_a_term_on_outliers_that_took_part_in_no_step_is_said() -> None:
    def rows(steps: float) -> list[dict[str, object]]:
        return [{"metric": "accuracy", "value": 0.9}, {"metric": "outlier_steps", "value": steps}]

    hamos, energy = prepare(["method=hamos"]), prepare(["method=energy", "auxiliary=fractals"])
    assert outlier_lines(hamos, rows(0)) == [
        "equidistant took part in no step: trained by the other terms alone; train longer, or lower "
        "synthesizer.bank_size, which every class has to fill"
    ]
    assert outlier_lines(energy, rows(0))[0].endswith("alone; train longer")
    late = prepare(["method=energy", "auxiliary=fractals", "outlier_loss.start=0.5"])
    assert outlier_lines(late, rows(0))[0].endswith("train longer, or lower outlier_loss.start")
    assert (
        outlier_lines(hamos, rows(3))
        == outlier_lines(hamos, [])
        == outlier_lines(prepare(["method=ce"]), rows(0))
        == []
    )
    assert outlier_lines(prepare(["method=hamos", "outlier_loss.weight=0"]), rows(0)) == []

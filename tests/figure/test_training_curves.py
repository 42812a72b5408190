"""Training curves show what the rows hold."""

from __future__ import annotations

from ood_lab.figure.training_curves import TrainingCurves
from tests.figure.material import material


def test_loss_and_accuracy_are_drawn_at_their_steps() -> None:
    figure = TrainingCurves().draw(material())
    assert figure is not None
    loss, accuracy = figure.axes[:2]
    assert loss.lines[0].get_xydata().tolist() == [[10, 0.1], [20, 0.05]]
    assert {line.get_label() for line in accuracy.lines} == {"train_accuracy", "val_accuracy"}
    assert accuracy.lines[0].get_xydata().tolist() == [[20, 0.5]]


def test_nothing_to_draw_without_curves() -> None:
    assert TrainingCurves().draw(material(curves=False)) is None


def test_what_no_run_has_logged_takes_no_room() -> None:
    curves = [{"step": 1, "loss/ce": 1.0, "info/round_1_oodness": 0.5}]
    runs = [run._replace(curves=curves) for run in material().runs]
    figure = TrainingCurves().draw(material()._replace(runs=runs))
    assert figure is not None
    assert {axes.get_title() for axes in figure.axes} == {"loss"}

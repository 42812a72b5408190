"""Checking how a run trains, and what it looks at between its epochs."""

from __future__ import annotations

from ood_lab.config.experiment import Experiment
from ood_lab.config.identity import read_by
from ood_lab.config.suggest import nearest
from ood_lab.errors import RequestError


def check_during_training(experiment: Experiment) -> None:
    """Refuse options of the trainer that exclude each other, an evaluation that has nothing to score, and a selection
    by test data.

    Raises:
        RequestError: see above.
    """
    trainer, protocol = experiment.trainer, experiment.protocol
    if trainer.select == "best_val_accuracy" and not protocol.id_val:
        raise RequestError(
            "trainer.select=best_val_accuracy: protocol.id_val=0 keeps no ID images for validation, so that it would "
            "select by test images; give protocol.id_val a number, or leave select out"
        )
    if trainer.ema is not None and trainer.select != "last":
        raise RequestError(
            f"trainer.ema={trainer.ema} ends with averaged weights, and trainer.select={trainer.select} with those of "
            "an epoch; choose one"
        )
    if trainer.accumulate > 1 and experiment.makes_outlier_images:
        raise RequestError(
            f"trainer.accumulate={trainer.accumulate}: {experiment.method.choice} trains a GAN beside the classifier "
            "in every batch; use 1"
        )
    if trainer.compile and (twice := [part.path for part in experiment.parts if "images" in read_by(part.target)]):
        raise RequestError(
            f"trainer.compile=true: {', '.join(twice)} differentiates gradients, which compiled networks can't; use "
            "false"
        )
    if not trainer.evaluate_every:
        for name, given in (("evaluate_scorers", trainer.evaluate_scorers), ("evaluate_test", trainer.evaluate_test)):
            if given:
                raise RequestError(f"trainer.{name}: nothing is evaluated while training; add trainer.evaluate_every=1")
        return
    if not trainer.evaluate_test and not (protocol.validation and protocol.id_val):
        missing = "OOD validation set (protocol.validation)" if protocol.id_val else "ID validation image"
        raise RequestError(
            f"trainer.evaluate_every={trainer.evaluate_every}: protocol={experiment.choices['protocol']} declares no "
            f"{missing}; add trainer.evaluate_test=true to look at the test sets, and choose nothing by them"
        )
    if trainer.evaluate_every > trainer.max_epochs > 0:
        raise RequestError(
            f"trainer.evaluate_every={trainer.evaluate_every}: nothing would be evaluated in the run's "
            f"{trainer.max_epochs} epochs; give at most that many"
        )
    detectors = experiment.detectors
    if trainer.evaluate_scorers is not None and not trainer.evaluate_scorers:
        raise RequestError("trainer.evaluate_scorers=[]: names no detector; leave it out, or name some of scorer=[...]")
    for name in trainer.evaluate_scorers or ():
        if name not in detectors:
            raise RequestError(
                f"trainer.evaluate_scorers: {name!r} is none of the run's detectors.{nearest(name, detectors)}"
            )
        if detectors[name].get("epsilon"):
            raise RequestError(
                f"trainer.evaluate_scorers: {name} needs a pass over changed images; leave it out, or give it epsilon=0"
            )

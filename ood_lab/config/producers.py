"""Checking a command that makes a set: it must name a producer, and nothing that the set does not depend on."""

from __future__ import annotations

from collections.abc import Collection

from ood_lab.config.experiment import Experiment
from ood_lab.config.groups import groups, nearest
from ood_lab.errors import RequestError

# What is about the command, whatever is made.
ANY = ("task", "producer", "paths", "trainer", "experiment", "hydra")


def check_producer(experiment: Experiment, given: Collection[str]) -> None:
    """Refuse a task without its producer, a producer without its task, and options that count for nothing.

    Args:
        given: the keys that the command line states.

    Raises:
        RequestError: see above.
    """
    producer = experiment.producer
    if not experiment.produces:
        if producer is None:
            return
        raise RequestError(
            f"producer={producer.choice}: only task=synthesize makes a set; add it, or leave producer out"
        )
    if producer is None:
        known = groups(experiment.config_dir)["producer"]
        raise RequestError(f"task=synthesize: name what makes the set, producer=NAME.{nearest('', known)}")
    read = (*ANY, *producer.declared.get("inherits", ()))
    for key in given:
        if key.partition(".")[0] not in read:
            seed = f"; its draws have a seed of their own, producer.seed={experiment.seed}" if key == "seed" else ""
            raise RequestError(
                f"{key}: producer={producer.choice} does not depend on it, so that it would count for nothing{seed}. "
                "Leave it out"
            )

"""Whether a folder holds the run that an experiment means: compared before it is used, written where it is new."""

from __future__ import annotations

import json
from typing import Any

from omegaconf import OmegaConf

from ood_lab.config.experiment import Experiment
from ood_lab.config.identity import weight_values
from ood_lab.config.quoting import uninterpolated
from ood_lab.errors import RequestError
from ood_lab.files.storage import write_atomically
from ood_lab.runs.provenance import commit
from ood_lab.runs.run_folder import RunFolder
from ood_lab.runs.run_images import RunImages

READ_FIRST_GB = 2  # training images up to this are read for their digest before the run, which may be killed


def verify(experiment: Experiment) -> None:
    """Check that the folder holds the run that the experiment means.

    Raises:
        RequestError: the stored run was made with other values (a default has changed since), or with other images.
    """
    folder = RunFolder(experiment.run_dir)
    stored = folder.weight_values() or {}
    for key, value in weight_values(experiment).items():
        if key in stored and stored[key] != value:
            raise RequestError(
                f"{folder.path} was made with {key}={stored[key]}, but today's configuration says {value}. "
                f"To go on with the old run add {key}={stored[key]}; to make it anew, move the folder away."
            )
    if folder.has_begun:
        RunImages(experiment).check_training()


def enter_training_images(experiment: Experiment) -> None:
    """Record the images that a run is about to be trained on; one that has begun keeps what it began with."""
    images, folder = RunImages(experiment), RunFolder(experiment.run_dir)
    for name in images.trained_on:
        if not folder.has_begun:
            images.record.forget(name)
            folder.normalisation.unlink(missing_ok=True)
        images.enter(name)
        images.complete([name], READ_FIRST_GB)


def claim(experiment: Experiment) -> Experiment:
    """Verify the folder, or write the experiment into a new one.

    Returns:
        the experiment with the number of threads that a run began with: its bits depend on it.

    Raises:
        RequestError: see `verify`; or the run began on another kind of device.
    """
    code = commit()
    verify(experiment)
    folder = RunFolder(experiment.run_dir)
    if folder.identity.is_file() and folder.has_begun:
        began: Any = OmegaConf.load(folder.config).trainer
        if not folder.is_trained and began.accelerator != experiment.trainer.accelerator:
            raise RequestError(
                f"{experiment.run_id} began with trainer.accelerator={began.accelerator} and is not finished; "
                f"go on with that, or move {folder.path} away"
            )
        return experiment.with_threads(began.threads)
    if experiment.produces and folder.identity.is_file():
        return experiment
    config = OmegaConf.create(uninterpolated(experiment.values()))
    write_atomically(folder.config, OmegaConf.to_yaml(config).encode())
    about = {
        "run_id": experiment.run_id,
        "overrides": list(experiment.overrides),
        "needs": experiment.prerequisite_ids,
        "commit": code,
        "images": RunImages(experiment).record.path.is_file(),
        "leaves": weight_values(experiment),
    }
    write_atomically(folder.identity, json.dumps(about, indent=1).encode())
    return experiment


def with_stored_normalisation(experiment: Experiment) -> Experiment | None:
    """The experiment with the constants that its run has measured, if it states none; None where none are there yet."""
    if experiment.normalisation is not None:
        return experiment
    measured = RunFolder(experiment.run_dir).normalisation
    return experiment.normalised(**json.loads(measured.read_text())) if measured.is_file() else None

"""Train a network that makes images, exactly resumable; producers sample what is kept of it."""

from __future__ import annotations

import json
import time

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from ood_lab.augmentation.crop_flip import CropFlip
from ood_lab.config.experiment import Experiment
from ood_lab.files.storage import write_atomically
from ood_lab.generator.base import GeneratorTraining
from ood_lab.plural import counted
from ood_lab.progress import stdout
from ood_lab.results.store import Results
from ood_lab.runs.claim import claim, enter_training_images, verify
from ood_lab.runs.prerequisites import ensure
from ood_lab.runs.run_folder import RunFolder
from ood_lab.runs.run_weights import RunWeights
from ood_lab.task.build import build, build_part, build_reading, device
from ood_lab.task.callbacks import Curves
from ood_lab.task.trainer import announce_resumed, fit, trainer_of
from ood_lab.training.checkpoint import newest
from ood_lab.training.datamodule import DataModule, Sizes
from ood_lab.training.normalise import Normalise

HALF = [0.5, 0.5, 0.5]  # mean and deviation that bring [0, 1] to [-1, 1]


def run(experiment: Experiment) -> Results:
    """Bring the training to its end, whatever of it is already there, and say where the network lies.

    Raises:
        RunError: a loss became non-finite, or a prerequisite failed.
    """
    folder = RunFolder(experiment.run_dir)
    with folder.lock():
        began = None if folder.identity.is_file() else time.monotonic()
        verify(experiment)
        below = ensure(experiment)
        enter_training_images(experiment)
        experiment = claim(experiment)
        weights = GeneratorWeights(experiment)
        tensors = weights.read(load_file, (SafetensorError,))
        if not folder.done.is_file():
            folder.mark_done(None if began is None else time.monotonic() - began)
    count = sum(value.numel() for name, value in tensors.items() if not name.endswith("num_batches_tracked"))
    stdout.print(f"{experiment.run_id}: {count:,} numbers: {weights.path}", highlight=False, markup=False)
    return Results(experiment.run_id, folder.path, [], below)


class GeneratorWeights(RunWeights):
    """What is kept of a trained generator, with the names of its classes."""

    def make(self) -> None:
        experiment, folder = self.experiment, RunFolder(self.experiment.run_dir)
        assert experiment.generator is not None
        options = experiment.generator.options
        torch.set_num_threads(experiment.trainer.threads)
        data = DataModule(
            build(experiment.dataset),
            CropFlip(padding=0, flip=0.0),  # images as they are: what is changed here would be learned, too
            build_reading(experiment),
            normalise=Normalise(HALF, HALF),
            views=1,
            sizes=Sizes(options["images_per_step"], 0, experiment.trainer.eval_batch_size),
            stream=experiment.dataset.recipe.serve == "streaming",
            id_val=experiment.protocol.id_val or 0,
            seed=options["seed"],
            device=device(experiment),
        )
        classes = data.listing.classes or tuple(map(str, range(data.classes)))
        training: GeneratorTraining = build_part(experiment, experiment.generator, classes)
        resumed = newest(folder.checkpoints)
        steps = data.steps_per_epoch * training.epochs
        images = counted(data.batch_size, "image")
        print(f"{experiment.run_id}: {counted(steps, 'step')} of {images}", flush=True)
        announce_resumed(resumed, steps, data.steps_per_epoch)
        trainer = trainer_of(experiment, training.epochs, Curves(folder.curves, experiment.trainer.log_every_n_steps))
        fit(trainer, training, data, resumed, folder.path)
        weights = {name: value.contiguous() for name, value in training.averaged.state_dict().items()}
        write_atomically(self.path, save(weights, {"classes": json.dumps(classes), **training.about}))

"""Mean and standard deviation of a run's own training images, measured once and kept with its weights."""

from __future__ import annotations

import json

import numpy as np
import torch

from ood_lab.backbone.base import Backbone
from ood_lab.config.experiment import Experiment
from ood_lab.config.source import imported_class
from ood_lab.files.storage import write_atomically
from ood_lab.images.pixels import Decoded, Pixels
from ood_lab.progress import track
from ood_lab.random import generator
from ood_lab.runs.claim import with_stored_normalisation
from ood_lab.runs.run_folder import RunFolder
from ood_lab.task.build import build, build_reading

CHUNK = 500
SAMPLE = 20_000  # images of a set that is too large to be kept decoded


def with_normalisation(experiment: Experiment) -> Experiment:
    """The experiment with mean and standard deviation of its training images, where it states none; those of the
    network's own configuration where that asks for it."""
    found = with_stored_normalisation(experiment)
    if found is not None:
        return found
    if experiment.backbone.get("own_normalisation"):
        network: type[Backbone] = imported_class(experiment.backbone.target)
        return _stored(experiment, *network.channel_constants(experiment.backbone.options))
    listing = build(experiment.dataset).listing("train")
    reading, name = build_reading(experiment), f"{experiment.dataset.name} train"
    pixels = reading.open(listing, name)
    if not isinstance(pixels, Decoded) and len(listing) > SAMPLE:
        rows = torch.randperm(len(listing), generator=generator("normalisation"))[:SAMPLE].sort().values
        pixels = reading.open(listing.take(rows.numpy()), name)
    return _stored(experiment, *channel_statistics(pixels))


def _stored(experiment: Experiment, mean: list[float], std: list[float]) -> Experiment:
    path = RunFolder(experiment.run_dir).normalisation
    write_atomically(path, json.dumps({"mean": mean, "std": std}).encode())
    return experiment.normalised(mean, std)


def channel_statistics(pixels: Pixels) -> tuple[list[float], list[float]]:
    """Mean and population standard deviation of each channel over all pixels, on 0..1, to six digits; three each.

    Args:
        pixels: uint8 [N, 3, S, S], read in parts.

    A channel that is constant has nothing to be divided by: its deviation is given as 1.
    """
    counts = np.zeros((3, 256), np.int64)  # exact, whatever the order of the images
    for chunk in track(pixels.chunks(CHUNK), "measure mean and std", -(-len(pixels) // CHUNK)):
        for channel in range(3):
            counts[channel] += np.bincount(chunk[:, channel].numpy().ravel(), minlength=256)
    levels = np.arange(256) / 255
    total = counts.sum(1)
    mean = counts @ levels / total
    std = np.sqrt((counts * (levels - mean[:, None]) ** 2).sum(1) / total)
    return [round(float(m), 6) for m in mean], [round(float(s), 6) or 1.0 for s in std]

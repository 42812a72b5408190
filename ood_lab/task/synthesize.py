"""Make a set of images, or a tensor, as shards: killed at any moment it goes on, several processes share the work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ood_lab.config.experiment import Experiment
from ood_lab.errors import RunError
from ood_lab.files.shards import ShardedSet
from ood_lab.files.storage import atomic_file
from ood_lab.producer.base import Producer
from ood_lab.progress import stdout
from ood_lab.reader.shards import ShardedRows, load_manifest
from ood_lab.results.store import Results
from ood_lab.runs.claim import claim
from ood_lab.runs.prerequisites import ensure
from ood_lab.runs.run_folder import RunFolder
from ood_lab.task.build import build

PREVIEW = (8, 16)  # rows and columns of the picture of the first images


def run(experiment: Experiment) -> Results:
    """Bring the set to its end and say where it lies; a shard that was damaged since is made again.

    Raises:
        RunError: the disk is full, or a prerequisite failed; the shards that are there stay.
    """
    folder = RunFolder(experiment.run_dir)
    experiment = claim(experiment)
    assert experiment.producer is not None
    torch.set_num_threads(experiment.trainer.threads)
    below = ensure(experiment)
    shards = sharded(experiment, build(experiment.producer))
    helpers = _helpers(experiment) if not shards.is_complete() else []
    shards.verify()
    for helper in helpers:
        helper.wait()
    preview = _preview(shards, folder.path / "preview.png")
    if not folder.done.is_file():
        folder.mark_done()
    size = sum(shard.bytes for shard in load_manifest(shards.folder).shards) / 2**20
    pictures = f"; the first of them: {preview}" if preview is not None else ""
    stdout.print(
        f"{experiment.run_id}: {shards.items:,} items in {shards.shards} shards, {size:,.1f} MiB: {shards.folder}"
        f"{pictures}",
        highlight=False,
        markup=False,
    )
    return Results(experiment.run_id, folder.path, [], below)


def sharded(experiment: Experiment, producer: Producer) -> ShardedSet:
    """The set that an experiment makes."""
    assert experiment.producer is not None
    about = {"run_id": experiment.run_id, "producer": experiment.producer.node, "overrides": list(experiment.overrides)}
    return ShardedSet(
        experiment.product,
        experiment.run_id,
        producer.count,
        producer.shard_items,
        producer.produce,
        producer.classes,
        about,
    )


def _helpers(experiment: Experiment) -> list[subprocess.Popen[bytes]]:
    """With several devices, a process of the same command for each other device; shards are shared by their locks."""
    started = []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(experiment.trainer.devices)))
    names = visible.split(",")
    for number in range(1, experiment.trainer.devices):
        environment = dict(os.environ)
        if experiment.trainer.accelerator == "gpu":
            environment["CUDA_VISIBLE_DEVICES"] = names[number % len(names)]
        command = [sys.executable, "-m", "ood_lab", *experiment.overrides, "trainer.devices=1"]
        if experiment.config_dir is not None:
            command.append(f"--config-dir={experiment.config_dir}")
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
    return started


def _preview(shards: ShardedSet, path: Path) -> Path | None:
    """A picture of the first images; None where the set holds none."""
    if path.is_file():
        return path
    files = [shards.folder / shard.file for shard in load_manifest(shards.folder).shards]
    try:
        images = ShardedRows(files, "images")
    except RunError:  # a set of other tensors
        return None
    rows, columns = PREVIEW
    shown = images[: rows * columns]
    side = shown.shape[1]
    sheet = np.full((rows * (side + 1), columns * (side + 1), 3), 255, np.uint8)
    for number, image in enumerate(shown):
        top, left = (number // columns) * (side + 1), (number % columns) * (side + 1)
        sheet[top : top + side, left : left + side] = image
    with atomic_file(path) as temporary:
        Image.fromarray(sheet).save(temporary, "png")
    return path

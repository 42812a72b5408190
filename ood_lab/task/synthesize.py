"""Make a set of images, or a tensor, as shards: killed at any moment it goes on, several processes share the work."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ood_lab.config.experiment import Experiment
from ood_lab.errors import RunError
from ood_lab.files.shards import ShardedSet
from ood_lab.images.sheet import write_sheet
from ood_lab.producer.base import SetMaker
from ood_lab.progress import stdout
from ood_lab.reader.shards import load_manifest, rows_of
from ood_lab.results.store import Results
from ood_lab.runs.claim import claim
from ood_lab.runs.cost import add_seconds
from ood_lab.runs.prerequisites import ensure
from ood_lab.runs.run_folder import RunFolder
from ood_lab.task.build import build_part, class_names, device
from ood_lab.task.latent import latent_space


def run(experiment: Experiment) -> Results:
    """Bring the set to its end and say where it lies; a shard that was damaged since is made again.

    Raises:
        RunError: the disk is full, or a prerequisite failed; the shards that are there stay.
    """
    folder = RunFolder(experiment.run_dir)
    is_new = not folder.identity.is_file()
    experiment = claim(experiment)
    assert experiment.maker is not None
    torch.set_num_threads(experiment.trainer.threads)
    below = ensure(experiment)
    started = time.monotonic()
    producer = build_producer(experiment)
    producer.to(device(experiment))
    began = time.monotonic()  # embedding the training images is not part of the search
    shards = sharded(experiment, producer)  # which asks how many items there are: outliers are then searched for
    if not shards.is_complete():
        add_seconds(experiment.run_dir, "search", time.monotonic() - began)
    if producer.note and not shards.is_complete():
        print(f"note: {producer.note}", file=sys.stderr, flush=True)
    with _helped(experiment if not shards.is_complete() else None):
        shards.verify()
    preview = _preview(shards, folder.path / "preview.png")
    if not folder.done.is_file():
        folder.mark_done(time.monotonic() - started if is_new else None)
    size = sum(shard.bytes for shard in load_manifest(shards.folder).shards) / 2**20
    pictures = f"; the first of them: {preview}" if preview is not None else ""
    stdout.print(
        f"{experiment.run_id}: {shards.items:,} items in {shards.shards} shards, {size:,.1f} MiB: {shards.folder}"
        f"{pictures}",
        highlight=False,
        markup=False,
    )
    return Results(experiment.run_id, folder.path, [], below)


def build_producer(experiment: Experiment) -> SetMaker:
    """What makes the set, with what it reads of the ID set."""
    maker = experiment.maker
    assert maker is not None
    given: list[Any] = [class_names(experiment)] if maker.declared.get("reads_classes") else []
    if maker.declared.get("reads_latent"):
        given.append(latent_space(experiment.prerequisites[f"{maker.path}.encoder"]))
    producer: SetMaker = build_part(experiment, maker, *given)
    return producer


def sharded(experiment: Experiment, producer: SetMaker) -> ShardedSet:
    """The set that an experiment makes."""
    assert experiment.maker is not None
    made_by = {experiment.maker.group: experiment.maker.node}
    about = {"run_id": experiment.run_id, **made_by, **producer.about}  # the same, whoever makes the set
    return ShardedSet(
        experiment.product,
        experiment.run_id,
        producer.count,
        producer.shard_items,
        producer.produce,
        producer.classes,
        about,
        lambda number, seconds: add_seconds(experiment.run_dir, f"shard {number}", seconds),
    )


@contextmanager
def _helped(experiment: Experiment | None) -> Iterator[None]:
    """With helpers (see `_helpers`), which end with this process; one that fails is said, its shards are made here."""
    helpers: list[subprocess.Popen[bytes]] = []
    try:
        helpers.extend(() if experiment is None else _helpers(experiment))  # those that were started, if one fails
        yield
        for helper in helpers:
            if helper.wait() != 0:
                print(
                    f"note: a worker process ended with code {helper.returncode}; its work was done here",
                    file=sys.stderr,
                )
    finally:
        for helper in helpers:
            if helper.poll() is None:
                helper.terminate()
                helper.wait()


def _helpers(experiment: Experiment) -> Iterator[subprocess.Popen[bytes]]:
    """With several devices, a process of the same command for each other device; shards are shared by their locks."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(experiment.trainer.devices)))
    names = visible.split(",")
    for number in range(1, experiment.trainer.devices):
        environment = dict(os.environ)
        if experiment.trainer.accelerator == "gpu":
            environment["CUDA_VISIBLE_DEVICES"] = names[number % len(names)]
        command = [sys.executable, "-m", "ood_lab", *experiment.overrides, "trainer.devices=1"]
        if experiment.config_dir is not None:
            command.append(f"--config-dir={experiment.config_dir}")
        yield subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


def _preview(shards: ShardedSet, path: Path) -> Path | None:
    """A picture of the first images; None where the set holds none."""
    if path.is_file():
        return path
    manifest = load_manifest(shards.folder)
    try:
        images = rows_of(shards.folder, "images")
    except RunError:  # a set of other tensors
        return None
    write_sheet(path, images, None if manifest.classes is None else len(manifest.classes))
    return path

"""The set that an experiment with `task=synthesize` makes, as it lies on the disk; nothing is imported for it."""

from __future__ import annotations

from pathlib import Path

from ood_lab.config.experiment import Experiment
from ood_lab.errors import RunError
from ood_lab.reader.shards import digest, load_manifest, wrong_sizes


def is_made(experiment: Experiment) -> bool:
    """Whether the set is there, each shard with the bytes that its manifest names."""
    folder = experiment.product
    try:
        manifest = load_manifest(folder)
    except RunError:
        return False
    return manifest.key == experiment.run_id and not wrong_sizes(folder, manifest)


def damaged(experiment: Experiment) -> list[Path]:
    """The shards of a set that is there whose bytes are not those that its manifest names: all of them are read."""
    folder = experiment.product
    return [folder / s.file for s in load_manifest(folder).shards if digest(folder / s.file) != s.sha256]

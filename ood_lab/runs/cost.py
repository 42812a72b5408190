"""What the work of a run took: seconds of each piece, stored when it is done, and the bytes of what was made."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from ood_lab.config.experiment import Experiment
from ood_lab.errors import RunError
from ood_lab.reader.shards import load_manifest
from ood_lab.runs.run_folder import RunFolder

EMBEDDING = "features"  # the work of passing the training images through a trained network


def add_seconds(run_dir: Path, work: str, seconds: float) -> None:
    """Store what a piece of work took; several processes may do so at the same time."""
    path = _path(run_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    row = json.dumps({"work": work, "seconds": round(seconds, 4)}) + "\n"
    whole = not path.is_file() or path.read_bytes()[-1:] in (b"", b"\n")  # else a process was killed while writing
    with path.open("a") as file:
        file.write(row if whole else f"\n{row}")


@contextmanager
def timed(run_dir: Path, work: str) -> Iterator[None]:
    """Store what the block takes, where it comes to its end."""
    began = time.monotonic()
    yield
    add_seconds(run_dir, work, time.monotonic() - began)


def seconds_of(run_dir: Path, without: Collection[str] = ()) -> float | None:
    """The sum over all pieces of work but some; None where nothing is stored, as of runs of an earlier version.

    Of a piece that was done again the longest counts: a repetition may have found a part of it there.
    """
    longest: dict[str, float] = {}
    path = _path(run_dir)
    for line in path.read_bytes().decode(errors="replace").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
            if row["work"] not in without:
                longest[row["work"]] = max(row["seconds"], longest.get(row["work"], 0.0))
        except (ValueError, KeyError, TypeError):  # of a process that was killed while writing
            continue
    return sum(longest.values()) if longest else None


def bytes_of(experiment: Experiment) -> int | None:
    """The size of what a run has made for others: the shards of its set, or its final weights; None without these."""
    weights = RunFolder(experiment.run_dir).weights
    if not experiment.produces:
        return weights.stat().st_size if weights.is_file() else None
    try:
        return sum(shard.bytes for shard in load_manifest(experiment.product).shards)
    except RunError:
        return None


def stages_of(experiment: Experiment) -> dict[str, Experiment]:
    """The runs of a chain by what they make ("anchors", "encoder", "images", ...), each once; "training" is the last.

    "images" are the outlier images; those that are mixed into ID images are "pictures", made by a "pictures_generator",
    say. Empty where no set is
    made for it: a classifier that starts from another one is no chain.
    """
    found: dict[str, Experiment] = {}

    def walk(run: Experiment, of: str = "") -> None:
        for name, other in run.prerequisites.items():
            pictures = "pictures_" if name == "pictures.images" else of
            walk(other, pictures)
            if all(other.run_id != known.run_id for known in found.values()):
                found["pictures" if name == "pictures.images" else of + name.rpartition(".")[2]] = other

    walk(experiment)
    return {**found, "training": experiment} if any(run.produces for run in found.values()) else {}


def _path(run_dir: Path) -> Path:
    return run_dir / "cost.jsonl"

"""A run's directory: its lock, what is already done in it, and whether it is the run one thinks it is.

outputs/<run_id>/  config.yaml identity.json images.json normalisation.json
                   curves.jsonl results.jsonl thresholds.jsonl report.html DONE
                   checkpoints/ features/ scores/ tuning/ figures/; run.log where a sweep made it
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import OmegaConf

from ood_lab.config import Request, RequestError
from ood_lab.config.quoting import uninterpolated
from ood_lab.config.request import TUNED
from ood_lab.provenance import commit
from ood_lab.results.search import search_path
from ood_lab.results.store import options_text, radius_metric, read_rows, read_thresholds
from ood_lab.run_images import RunImages
from ood_lab.storage import write_atomically

FINAL = "checkpoints/final.safetensors"
OUTLIERS = "features/synthesized.safetensors"
NORMALISATION = "normalisation.json"
READ_FIRST_GB = 2  # training images up to this are read for their digest before the run, which may be killed


@contextmanager
def locked(request: Request) -> Iterator[None]:
    """Hold the run directory; a second process with the same run waits for the first."""
    request.run_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(request.run_dir / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        holder = request.run_dir / ".holder"
        pid = holder.read_text().strip() if holder.is_file() else "unknown"
        print(f"{request.run_id} is being made by process {pid}; waiting for it", flush=True)
        lock.acquire()
    try:
        (request.run_dir / ".holder").write_text(str(os.getpid()))
        yield
    finally:
        lock.release()


def is_trained(request: Request) -> bool:
    """Whether the final weights are there."""
    return (request.run_dir / FINAL).is_file()


def has_begun(request: Request) -> bool:
    """Whether some training is there, finished or not."""
    return is_trained(request) or any((request.run_dir / "checkpoints").glob("*"))


def enter_training_images(request: Request) -> None:
    """Record the images that a run is about to be trained on; one that has begun keeps what it began with."""
    images = RunImages(request)
    for name in ("train", "auxiliary"):
        if name in images.names:
            if not has_begun(request):
                images.record.forget(name)
                (request.run_dir / NORMALISATION).unlink(missing_ok=True)
            images.enter(name)
            images.complete([name], READ_FIRST_GB)


def unscored(request: Request) -> list[str]:
    """The requested detectors that lack a row on some set of the protocol, by its conventions, or their threshold.

    What was measured on other images than lie there today doesn't count.
    """
    images = RunImages(request)
    of_today = cache(images.are_of)
    stored = read_rows(request.run_dir)
    for metric in ("accuracy", "compactness"):
        tested = [r["features"] for r in stored if r["metric"] == metric and r["convention"] == request.convention()]
        if not any(of_today("test", key) for key in tested):
            return list(request.scorers)
    rows = {
        (r["scorer"], r["options"], r["ood_set"], r["convention"])
        for r in stored
        if r["ood_set"] in request.ood_sets and of_today(r["ood_set"], r["features"])
    }
    limits = {
        (r["scorer"], r["options"], r["id_rate"], r["convention"])
        for r in read_thresholds(request.run_dir)
        if of_today(images.source(r["held"]), r["features"])
    }
    if not all((None, None, s, request.convention(s)) in rows for s in request.ood_sets):  # its separation
        return list(request.scorers)
    metric = radius_metric(request.cfg.id_rate)
    radii = {
        (r["scorer"], r["options"], r["ood_set"], r["convention"])
        for r in stored
        if r["metric"] == metric
        and (r["ood_set"] is None or r["ood_set"] in request.ood_sets)
        and of_today(r["ood_set"] or "test", r["features"])
    }
    everything = [(s, request.convention(s)) for s in (None, *request.ood_sets)]
    missing = []
    for name, node in request.scorers.items():
        text = options_text(node)
        without_radius = not all((name, text, *where) in radii for where in everything)
        everywhere = all((name, text, s, request.convention(s)) in rows for s in request.ood_sets)
        if (
            not everywhere
            or not _tuned_on(request, name, node, of_today)
            or (name, text, request.cfg.id_rate, request.convention()) not in limits
            or (name in request.cfg.local_radius and without_radius)
        ):
            missing.append(name)
    return missing


def _tuned_on(request: Request, name: str, node: Mapping[str, Any], of_today: Callable[[str, str], bool]) -> bool:
    """Whether a detector's options were searched, if at all, on the validation images that lie there today."""
    if TUNED not in node:
        return True
    path = search_path(request, name)
    keys = json.loads(path.read_text())["features"] if path.is_file() else {}
    return all(ood_set in keys and of_today(ood_set, keys[ood_set]) for ood_set in node[TUNED]["sets"])


def outstanding(request: Request) -> bool:
    """Whether anything that the request asks of the run is still to be done."""
    return not (request.run_dir / "DONE").is_file() or bool(unscored(request))


def verify(request: Request) -> None:
    """Check that the directory holds the run that the request means.

    Raises:
        RequestError: the saved run was made with other values (a default has changed since), or with other images.
    """
    saved = saved_leaves(request.run_dir) or {}
    for key, value in request.leaves.items():
        if key in saved and saved[key] != value:
            raise RequestError(
                f"{request.run_dir} was made with {key}={saved[key]}, but today's configuration says {value}. "
                f"To go on with the old run add {key}={saved[key]}; to make it anew, move the folder away."
            )
    if has_begun(request):
        RunImages(request).check_training()


def saved_leaves(run_dir: Path) -> dict[str, Any] | None:
    """The leaves that a run was made with; None where none was begun.

    Raises:
        RequestError: something else changed the file.
    """
    identity = run_dir / "identity.json"
    if not identity.is_file():
        return None
    try:
        return dict(json.loads(identity.read_text())["leaves"])
    except (ValueError, KeyError, TypeError):
        raise RequestError(
            f"{identity} was changed by something else and can't be read; move the folder away"
        ) from None


def claim(request: Request) -> Any:
    """Verify the directory, or write the run's configuration into a new one.

    Returns:
        the configuration that training uses: today's, with the thread count and the device that a run began with
        (they belong to its bits).

    Raises:
        RequestError: see `verify`; or the run began on another kind of device.
    """
    here = commit()
    verify(request)
    config = OmegaConf.create(uninterpolated(OmegaConf.to_container(request.cfg, resolve=True)))
    saved_config = request.run_dir / "config.yaml"
    if (request.run_dir / "identity.json").is_file() and has_begun(request):
        began = OmegaConf.load(saved_config).trainer
        if not is_trained(request) and began.accelerator != config.trainer.accelerator:
            raise RequestError(
                f"{request.run_id} began with trainer.accelerator={began.accelerator} and is not finished; "
                f"go on with that, or move {request.run_dir} away"
            )
        config.trainer.threads = began.threads
        return config
    write_atomically(saved_config, OmegaConf.to_yaml(config).encode())
    about = {
        "run_id": request.run_id,
        "overrides": list(request.overrides),
        "needs": [need.run_id for need in request.needs],
        "commit": here,
        "images": RunImages(request).record.path.is_file(),
        "leaves": request.leaves,
    }
    write_atomically(request.run_dir / "identity.json", json.dumps(about, indent=1).encode())
    return config


def normalised(request: Request) -> Request | None:
    """The request with the constants that its run has measured, if it states none; None where none are measured yet."""
    if request.cfg.protocol.mean is not None and request.cfg.protocol.std is not None:
        return request
    measured = request.run_dir / NORMALISATION
    return request.normalised(**json.loads(measured.read_text())) if measured.is_file() else None


def mark_done(run_dir: Path, seconds: float | None = None) -> None:
    """The last file written: everything asked for is there.

    Args:
        seconds: how long the run took, where it was made in one go; what was known before is kept.
    """
    known = seconds if seconds is not None else seconds_of(run_dir)
    write_atomically(run_dir / "DONE", json.dumps({} if known is None else {"seconds": round(known, 1)}).encode())


def seconds_of(run_dir: Path) -> float | None:
    """How long a finished run took; None where that isn't known."""
    done = run_dir / "DONE"
    found = re.search(r'"seconds": ([\d.]+)', done.read_text() if done.is_file() else "")
    return float(found[1]) if found else None

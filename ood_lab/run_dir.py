"""A run's directory: its lock, what is already done in it, and whether it is the run one thinks it is.

outputs/<run_id>/  config.yaml identity.json curves.jsonl results.jsonl report.html DONE
                   checkpoints/ features/ scores/ figures/
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import OmegaConf

from ood_lab.config import Request, RequestError
from ood_lab.provenance import commit
from ood_lab.results.store import options_text, read_rows
from ood_lab.storage import write_atomically

FINAL = "checkpoints/final.safetensors"


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


def measured(request: Request) -> set[tuple[str | None, str, str | None]]:
    """(scorer, options, OOD set) of every stored row."""
    return {(row["scorer"], row["options"], row["ood_set"]) for row in read_rows(request.run_dir)}


def unscored(request: Request) -> list[str]:
    """The requested detectors that lack a row on some set of the protocol."""
    have = measured(request)
    missing = []
    for name, node in request.composed.plain("scorer").items():
        options = options_text(node, request.cfg.protocol.fpr_rule)
        if any((name, options, ood_set) not in have for ood_set in request.ood_sets):
            missing.append(name)
    return missing


def outstanding(request: Request) -> bool:
    """Whether anything that the request asks of the run is still to be done."""
    return not (request.run_dir / "DONE").is_file() or bool(unscored(request))


def claim(request: Request) -> Any:
    """Write the run's configuration, or check that the directory holds the same run.

    Returns:
        the configuration that training must use: today's, or the one a half-finished run began with (the thread
        count belongs to the run).

    Raises:
        RequestError: the saved run was made with other values (a default has changed since).
    """
    here = commit()
    identity = request.run_dir / "identity.json"
    if identity.is_file():
        saved = json.loads(identity.read_text())["leaves"]
        for key, value in request.leaves.items():
            if key in saved and saved[key] != value:
                raise RequestError(
                    f"{request.run_dir} was made with {key}={saved[key]}, but today's configuration says {value}. "
                    f"To go on with the old run add {key}={saved[key]}; to make it anew, move the folder away."
                )
        return OmegaConf.load(request.run_dir / "config.yaml")
    config = OmegaConf.to_yaml(request.cfg, resolve=True)
    write_atomically(request.run_dir / "config.yaml", config.encode())
    about = {
        "run_id": request.run_id,
        "overrides": list(request.overrides),
        "needs": [need.run_id for need in request.needs],
        "commit": here,
        "leaves": request.leaves,
    }
    write_atomically(identity, json.dumps(about, indent=1).encode())
    return OmegaConf.create(config)


def mark_done(run_dir: Path) -> None:
    """The last file written: everything asked for is there."""
    write_atomically(run_dir / "DONE", b"")

"""Train a run to its end, exactly resumable, then evaluate and report it."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ood_lab.checkpoint import NamedByDigest, newest
from ood_lab.config import Request, RequestError
from ood_lab.config.check import published_weights
from ood_lab.config.objective import objective
from ood_lab.method.base import Method
from ood_lab.method.measured import EPOCH_METRICS
from ood_lab.needs import ensure
from ood_lab.results.store import Results, read_rows
from ood_lab.run_dir import (
    FINAL,
    claim,
    enter_training_images,
    has_begun,
    is_trained,
    locked,
    mark_done,
    outstanding,
    verify,
)
from ood_lab.storage import write_atomically
from ood_lab.task import evaluate, report
from ood_lab.task.build import build_data, build_method
from ood_lab.task.callbacks import Bar, Checkpoints, Curves
from ood_lab.task.loggers import session
from ood_lab.task.normalisation import with_normalisation
from ood_lab.task.overlap import announce
from ood_lab.weights import fitted, keeps_order, read_weights


def run(request: Request) -> Results:
    """Bring the run to its end, whatever of it is already there, and show its table.

    With several devices this is called in one process for each; the first does all but the training alone.
    """
    if rank() > 0:
        request = with_normalisation(request)
        fit(request, claim(request))
        return Results(request.run_id, request.run_dir, [])
    with locked(request):
        began = None if (request.run_dir / "identity.json").is_file() else time.monotonic()
        verify(request)
        enter_training_images(request)
        request = with_normalisation(request)
        cfg = claim(request)
        needed = ensure(request)
        refused: dict[str, str] = {}
        if outstanding(request):
            for note in (note for use in request.image_sets for note in use.notes()):
                print(f"note: {note}", file=sys.stderr, flush=True)
            torch.set_num_threads(cfg.trainer.threads)
            with session(request) as log:
                if not is_trained(request):
                    announce(request)
                    with _nothing_left_of_a_refusal(request):
                        fit(request, cfg, log.loggers)
                refused = evaluate.measure(request)
                results = Results(request.run_id, request.run_dir, read_rows(request.run_dir), needed)
                log.publish(results, report.write(request, results))
            mark_done(request.run_dir, None if began is None else time.monotonic() - began)
        results = Results(request.run_id, request.run_dir, read_rows(request.run_dir), needed)
        report.show(request, results)
        evaluate.fail(refused)
        return results


@contextmanager
def _nothing_left_of_a_refusal(request: Request) -> Iterator[None]:
    """A request that turns out wrong before the first step leaves no folder behind."""
    began = has_begun(request)
    try:
        yield
    except RequestError:
        if not began and not has_begun(request):
            shutil.rmtree(request.run_dir, ignore_errors=True)
        raise


def rank() -> int:
    """This process's place among those that train one run; Lightning or the scheduler sets it for all but the first."""
    return int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_PROCID", 0)))


def fit(request: Request, cfg: Any, loggers: Sequence[Any] = ()) -> None:
    """Train from the last good checkpoint, or from the beginning, and write the final weights.

    Raises:
        RunError: a loss became non-finite.
    """
    _quiet_lightning()
    torch.set_num_threads(cfg.trainer.threads)
    method = build_method(cfg)
    load_initial(method, request)
    if cfg.trainer.max_epochs > 0:
        _train(request, cfg, method, loggers)
    if rank() == 0:
        weights = {k: v.contiguous() for k, v in method.state_dict().items() if not k.startswith(EPOCH_METRICS)}
        write_atomically(request.run_dir / FINAL, save(weights))


def _train(request: Request, cfg: Any, method: Method, loggers: Sequence[Any]) -> None:
    data = build_data(cfg, method.views)
    folder = request.run_dir / "checkpoints"
    resumed = newest(folder)
    devices = cfg.trainer.devices
    trainer = L.Trainer(
        accelerator=cfg.trainer.accelerator,
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        use_distributed_sampler=False,
        precision=cfg.trainer.precision,
        max_epochs=cfg.trainer.max_epochs,
        callbacks=[
            Bar(request.run_id),
            Curves(request.run_dir / "curves.jsonl", cfg.trainer.log_every_n_steps),
            Checkpoints(folder, cfg.trainer.checkpoint_minutes),
        ],
        logger=list(loggers),
        plugins=[NamedByDigest()],
        deterministic="warn",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=str(request.run_dir),
    )
    steps = data.steps_per_epoch * cfg.trainer.max_epochs
    if rank() == 0:
        length = "1 epoch" if cfg.trainer.max_epochs == 1 else f"{cfg.trainer.max_epochs} epochs"
        print(
            f"{request.run_id}: {length}, {steps} steps of {data.batch_size} images"
            + (f" x {method.views} views" if method.views > 1 else "")
            + (f" on {devices} devices" if devices > 1 else "")
            + (f", resuming {resumed.name}" if resumed else ""),
            flush=True,
        )
        print(f"minimises {objective(request.composed)}", flush=True)
    trainer.fit(method, datamodule=data, ckpt_path=str(resumed) if resumed else None)
    for term in method.parts.terms.values():
        if term.group == "outlier_loss" and rank() == 0:
            message = f"{term.name} took part in {int(method.outlier_steps)} of {steps} steps"
            late = method.parts.synthesizer is not None and int(method.outlier_steps) < steps / 2
            hint = " (a bank has to be filled first: lower synthesizer.bank_size, or train longer)"
            if lacking := method.classes_without_rows():
                absent = ", ".join(map(str, lacking))
                hint = f" (the bank needs rows of every class: class {absent} had no training image)"
            print(message + (hint if late and term.start == 0 else ""), flush=True)


def load_initial(method: Method, request: Request) -> None:
    """Load the backbone's weights: published ones, a given checkpoint, the needed run's, or none.

    The projector is taken over with `init.projector`; anything else that the method adds stays as initialised.

    Raises:
        RequestError: the file holds another network (a missing, unexpected or differently shaped tensor is named), or
            no projector of this shape.
    """
    published, backbone = published_weights(request.composed), method.backbone
    path = Path(published.file) if published is not None else initial_weights(request)
    if path is None:
        return
    theirs = read_weights(path, published.sha256 if published is not None else None, request.cfg.init.key)
    ours = backbone.state_dict()
    classes, outputs = method.parts.classes, method.parts.classes + method.head.EXTRA
    widths = {len(value) for value in theirs.values() if value.shape[1:] == ours["fc.weight"].shape[1:]}
    known = classes if outputs not in widths else outputs
    try:
        weights = fitted(theirs, _of_outputs(ours, known), backbone.public_names(), keeps_order(path))
    except RequestError as error:
        either = f" (of a head with {classes} or {outputs} outputs)" if outputs > classes else ""
        raise RequestError(f"{path} does not fit the chosen backbone{either}: {error}") from None
    # Of a classifier with fewer outputs the rows of the classes are taken over; the other rows stay as initialised.
    padded = {name: torch.cat([weights[name], ours[name][known:]]) for name in ("fc.weight", "fc.bias")}
    backbone.load_state_dict({**weights, **padded})
    if request.cfg.init.get("projector", False):
        _load_projector(method, path)


def _of_outputs(weights: Mapping[str, Tensor], outputs: int) -> dict[str, Tensor]:
    """A backbone's weights with the first so many rows of its last layer."""
    return {n: value[:outputs] if n.startswith("fc.") else value for n, value in weights.items()}


def _load_projector(method: Method, path: Path) -> None:
    projector, mark = method.head.projector, "head.projector."
    if projector is None:
        raise RequestError("init.projector=true: no part of this method uses the projector; set init.projector=false")
    found = load_file(path) if path.suffix == ".safetensors" else {}
    theirs = {name.removeprefix(mark): value for name, value in found.items() if name.startswith(mark)}
    shapes = {name: tuple(value.shape) for name, value in theirs.items()}
    wanted = {name: tuple(value.shape) for name, value in projector.state_dict().items()}
    if shapes != wanted:
        raise RequestError(
            f"init.projector=true: {path} has {shapes or 'no projector'}, this method's is {wanted}; start from the "
            "final weights (.safetensors) of a run that trained one (method=csi_contrast)"
        )
    projector.load_state_dict(theirs)


def initial_weights(request: Request) -> Path | None:
    """The run or checkpoint that the backbone starts from; None for random weights."""
    if request.cfg.init.checkpoint is not None:
        return Path(request.cfg.init.checkpoint)
    return request.needs[0].run_dir / FINAL if request.needs else None


def _quiet_lightning() -> None:
    """Lightning's notices about hardware and loaders are not about this run."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    for message in (".*does not have many workers.*", ".*dataloader is not resumable.*", ".*LeafSpec.*"):
        warnings.filterwarnings("ignore", message)

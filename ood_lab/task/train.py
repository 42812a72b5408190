"""Train a run to its end, exactly resumable, then evaluate and report it."""

from __future__ import annotations

import logging
import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ood_lab.checkpoint import NamedByDigest, newest
from ood_lab.config import Request, RequestError
from ood_lab.method.base import RUNNING, Method
from ood_lab.needs import ensure
from ood_lab.results.store import Results, read_rows
from ood_lab.run_dir import FINAL, claim, is_trained, locked, mark_done, outstanding
from ood_lab.storage import write_atomically
from ood_lab.task import evaluate, report
from ood_lab.task.build import build_data, build_method
from ood_lab.task.callbacks import Bar, Checkpoints, Curves
from ood_lab.task.loggers import session


def run(request: Request) -> Results:
    """Bring the run to its end, whatever of it is already there, and show its table."""
    with locked(request):
        cfg = claim(request)
        stands_on = ensure(request)
        if outstanding(request):
            torch.set_num_threads(cfg.trainer.threads)
            with session(request) as log:
                if not is_trained(request):
                    fit(request, cfg, log.loggers)
                evaluate.measure(request)
                results = Results(request.run_id, request.run_dir, read_rows(request.run_dir), stands_on)
                log.publish(results, report.write(request, results))
            mark_done(request.run_dir)
        results = Results(request.run_id, request.run_dir, read_rows(request.run_dir), stands_on)
        report.show(request, results)
        return results


def fit(request: Request, cfg: Any, loggers: Sequence[Any] = ()) -> None:
    """Train from the last good checkpoint, or from the beginning, and write the final weights.

    Raises:
        RunError: a loss became non-finite.
    """
    _quiet_lightning()
    method = build_method(cfg)
    data = build_data(cfg, method.views)
    load_initial(method, initial_weights(request))
    folder = request.run_dir / "checkpoints"
    resumed = newest(folder)
    trainer = L.Trainer(
        accelerator=cfg.trainer.accelerator,
        devices=1,
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
    print(
        f"{request.run_id}: {cfg.trainer.max_epochs} epochs, {steps} steps of {data.batch_size} images"
        + (f" x {method.views} views" if method.views > 1 else "")
        + (f", resuming {resumed.name}" if resumed else ""),
        flush=True,
    )
    trainer.fit(method, datamodule=data, ckpt_path=str(resumed) if resumed else None)
    weights = {k: v.contiguous() for k, v in method.state_dict().items() if not k.startswith(RUNNING)}
    write_atomically(request.run_dir / FINAL, save(weights))


def initial_weights(request: Request) -> Path | None:
    """The file that the backbone starts from: a given checkpoint, the needed run's weights, or none."""
    if request.cfg.init.checkpoint is not None:
        return Path(request.cfg.init.checkpoint)
    return request.needs[0].run_dir / FINAL if request.needs else None


def load_initial(method: Method, path: Path | None) -> None:
    """Load the backbone's weights; a projection or anything else that the method adds stays as initialised.

    Raises:
        RequestError: the file holds another network (a missing, unexpected or differently shaped tensor is named).
    """
    if path is None:
        return
    try:
        tensors = load_file(path) if path.suffix == ".safetensors" else _torch_weights(path)
    except (pickle.UnpicklingError, SafetensorError, EOFError, RuntimeError, AttributeError) as error:
        raise RequestError(f"{path} is no checkpoint of tensors: {' '.join(str(error).split())[:300]}") from None
    prefix = "backbone."
    part = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    try:
        method.backbone.load_state_dict(part)
    except RuntimeError as error:
        raise RequestError(f"{path} does not fit the chosen backbone: {' '.join(str(error).split())[:600]}") from None


def _torch_weights(path: Path) -> dict[str, Tensor]:
    state = torch.load(path, map_location="cpu", weights_only=True)
    tensors = state.get("state_dict", state)
    assert isinstance(tensors, dict)
    return tensors


def _quiet_lightning() -> None:
    """Lightning's notices about hardware and loaders are not about this run."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    for message in (".*does not have many workers.*", ".*dataloader is not resumable.*", ".*LeafSpec.*"):
        warnings.filterwarnings("ignore", message)

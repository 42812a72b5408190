"""Train a run to its end, exactly resumable, then evaluate and report it."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ood_lab.config.detectors import TUNED
from ood_lab.config.experiment import Experiment
from ood_lab.config.identity import run_id
from ood_lab.config.objective import objective
from ood_lab.config.prerequisites import INIT
from ood_lab.errors import RequestError
from ood_lab.files.storage import write_atomically
from ood_lab.method.base import Method
from ood_lab.plural import counted
from ood_lab.results.store import Results, read_rows
from ood_lab.runs.claim import claim, enter_training_images, verify
from ood_lab.runs.outstanding import outstanding
from ood_lab.runs.prerequisites import ensure
from ood_lab.runs.run_folder import RunFolder
from ood_lab.runs.run_weights import RunWeights
from ood_lab.scorer.base import Scorer
from ood_lab.task import evaluate, report
from ood_lab.task.averaged import AveragedWeights
from ood_lab.task.build import build, build_data, build_method
from ood_lab.task.callbacks import Curves
from ood_lab.task.during_training import BestWeights, Evaluation, final_weights
from ood_lab.task.features import check_weights
from ood_lab.task.loggers import session
from ood_lab.task.normalisation import with_normalisation
from ood_lab.task.overlap import announce
from ood_lab.task.trainer import announce_resumed, trainer_of
from ood_lab.task.trainer import fit as trainer_fit
from ood_lab.training.checkpoint import newest
from ood_lab.training.datamodule import DataModule
from ood_lab.training.weights import fitted, keeps_order, read_weights


def run(experiment: Experiment) -> Results:
    """Bring the run to its end, whatever of it is already there, and show its table.

    With several devices this is called in one process for each; the first does all but the training alone.
    """
    if rank() > 0:
        fit(claim(with_normalisation(experiment)))
        return Results(experiment.run_id, experiment.run_dir, [])
    folder = RunFolder(experiment.run_dir)
    with folder.lock():
        verify(experiment)
        below = ensure(experiment)
        _check_same(experiment)
        began = None if folder.identity.is_file() else time.monotonic()
        enter_training_images(experiment)
        experiment = claim(with_normalisation(experiment))
        refused = _finish(experiment, below, began) if outstanding(experiment) else {}
        results = Results(experiment.run_id, folder.path, read_rows(folder.path), below)
        report.show(experiment, results)
        evaluate.fail(refused)
        return results


def _check_same(experiment: Experiment) -> None:
    """The code of one's own classes must be what it was when the run was named: what it depends on may take hours.

    Raises:
        RequestError: it has changed.
    """
    now = run_id(experiment)
    if now != experiment.run_id:
        raise RequestError(
            f"{experiment.run_id} is another run by now, {now}: code or weights have changed since the command began; "
            "start it again"
        )


def _finish(experiment: Experiment, below: list[Results], began: float | None) -> dict[str, str]:
    """Train, evaluate and report what is missing.

    Returns:
        the detectors that can't work on the features, and why.
    """
    folder = RunFolder(experiment.run_dir)
    for note in (note for use in experiment.image_sets for note in use.notes()):
        print(f"note: {note}", file=sys.stderr, flush=True)
    if folder.is_trained:
        print(f"{experiment.run_id}: already trained; its evaluation is completed", flush=True)
    torch.set_num_threads(experiment.trainer.threads)
    with session(experiment) as log:
        with _nothing_left_of_a_refusal(folder):
            TrainedWeights(experiment, log.loggers).read(check_weights, (SafetensorError,))
        refused = evaluate.measure(experiment)
        results = Results(experiment.run_id, folder.path, read_rows(folder.path), below)
        seconds = None if began is None else time.monotonic() - began
        log.publish(results, report.write(experiment, results, seconds))
    folder.mark_done(None if began is None else time.monotonic() - began)
    return refused


@contextmanager
def _nothing_left_of_a_refusal(folder: RunFolder) -> Iterator[None]:
    """A request that turns out wrong before the first step leaves no folder behind."""
    began = folder.has_begun
    try:
        yield
    except RequestError:
        if not began and not folder.has_begun:
            shutil.rmtree(folder.path, ignore_errors=True)
        raise


@dataclass(frozen=True)
class TrainedWeights(RunWeights):
    """The final weights of a classifier.

    Args:
        loggers: where the curves go besides the run's folder.
    """

    loggers: Sequence[Any] = ()

    def make(self) -> None:
        announce(self.experiment)
        fit(self.experiment, self.loggers)


def rank() -> int:
    """This process's place among those that train one run; Lightning or the scheduler sets it for all but the first."""
    return int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_PROCID", 0)))


def fit(experiment: Experiment, loggers: Sequence[Any] = ()) -> None:
    """Train from the last good checkpoint, or from the beginning, and write the final weights.

    Raises:
        RunError: a loss became non-finite.
    """
    torch.set_num_threads(experiment.trainer.threads)
    method = build_method(experiment)
    load_initial(method, experiment)
    weights = _train(experiment, method, loggers) if experiment.trainer.max_epochs > 0 else final_weights(method)
    if rank() == 0:
        write_atomically(RunFolder(experiment.run_dir).weights, save(weights))


def _train(experiment: Experiment, method: Method, loggers: Sequence[Any]) -> dict[str, Tensor]:
    """Train; gives the final weights."""
    data, folder = build_data(experiment, method.views), RunFolder(experiment.run_dir)
    resumed = newest(folder.checkpoints)
    steps = data.steps_per_epoch * experiment.trainer.max_epochs
    if rank() == 0:
        _announce_training(experiment, method, data, resumed)
    best = BestWeights() if experiment.trainer.select == "best_val_accuracy" else None
    options, curves = experiment.trainer, Curves(folder.curves, experiment.trainer.log_every_n_steps)
    evaluation = _evaluation(experiment, curves) if options.evaluate_every else None
    averaged = None if options.ema is None else AveragedWeights(options.ema)
    callbacks = [callback for callback in (averaged, evaluation, best) if callback is not None]
    if options.compile:
        method.backbone.compile()
    trainer = trainer_of(experiment, options.max_epochs, curves, callbacks, loggers, options.precision)
    trainer_fit(trainer, method, data, resumed, folder.path)
    if rank() > 0:
        return {}
    _report_outlier_steps(method, steps, "batch" if options.accumulate > 1 else "step")
    if best is None:
        return final_weights(method) if averaged is None else averaged.applied(final_weights(method))
    right = f"{100 * best.accuracy:.1f} % of the ID validation images right"
    print(f"selected the weights of epoch {best.epoch + 1}, with {right}")
    return best.weights


def _evaluation(experiment: Experiment, curves: Curves) -> Evaluation:
    """The evaluation between epochs."""
    options, protocol = experiment.trainer, experiment.protocol
    nodes = {name: node for name, node in experiment.detectors.items() if not node.get("epsilon")}
    scorers: dict[str, Scorer] = {
        name: build({key: value for key, value in node.items() if key != TUNED}) for name, node in nodes.items()
    }
    names = options.evaluate_scorers
    if names is None:
        names = [name for name, scorer in scorers.items() if not scorer.learns]
        if not names:
            raise RequestError(
                f"trainer.evaluate_every={options.evaluate_every}: every one of scorer=[{','.join(experiment.scorer)}] "
                "learns from training features, or needs a pass of its own; name some in trainer.evaluate_scorers, for "
                "which the training features are then taken, too"
            )
    sets: dict[str, Sequence[str]] = {}
    if protocol.validation and protocol.id_val:
        sets["val"] = protocol.validation
    if options.evaluate_test:
        sets["test"] = experiment.ood_sets
    return Evaluation(
        options.evaluate_every,
        {name: scorers[name] for name in names},
        sets,
        options.eval_precision,
        protocol.fpr95,
        curves,
        bool(protocol.id_val),
    )


def _announce_training(experiment: Experiment, method: Method, data: DataModule, resumed: Path | None) -> None:
    epochs, devices, together = (getattr(experiment.trainer, key) for key in ("max_epochs", "devices", "accumulate"))
    steps = -(-data.steps_per_epoch // together) * epochs
    print(
        f"{experiment.run_id}: {counted(epochs, 'epoch')}, {counted(steps, 'step')} of "
        + (f"{together} x " if together > 1 else "")
        + counted(data.batch_size, "image")
        + (f" x {method.views} views" if method.views > 1 else "")
        + (f" on {devices} devices" if devices > 1 else ""),
        flush=True,
    )
    announce_resumed(resumed, steps, steps // max(1, epochs))
    print(f"minimises {objective(experiment)}", flush=True)


def _report_outlier_steps(method: Method, steps: int, unit: str) -> None:
    """In how many batches the term on outliers took part (a step each, unless they accumulate), and why not in more."""
    for term in method.parts.terms.values():
        if term.group != "outlier_loss":
            continue
        message = f"{term.name} took part in {int(method.outlier_steps)} of {counted(steps, unit)}"
        late = method.parts.synthesizer is not None and int(method.outlier_steps) < steps / 2
        hint = " (a bank has to be filled first: lower synthesizer.bank_size, or train longer)"
        if missing := method.classes_without_rows():
            absent = ", ".join(map(str, missing))
            hint = f" (the bank needs rows of every class: class {absent} had no training image)"
        print(message + (hint if late and term.start == 0 else ""), flush=True)
        if (remark := term.remark()) and int(method.outlier_steps):
            print(f"note: {remark}", file=sys.stderr, flush=True)


def load_initial(method: Method, experiment: Experiment) -> None:
    """Load the backbone's weights: published ones, a given checkpoint, the needed run's, or none.

    The projector is taken over with `init.projector`; anything else that the method adds stays as initialised.

    Raises:
        RequestError: the file holds another network (a missing, unexpected or differently shaped tensor is named), or
            no projector of this shape.
    """
    published, backbone = experiment.init.published(), method.backbone
    backbone.load_published()
    path = Path(published.file) if published is not None else initial_weights(experiment)
    if path is None:
        return
    theirs = read_weights(path, published.sha256 if published is not None else None, experiment.init.key)
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
    if experiment.init.projector:
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


def initial_weights(experiment: Experiment) -> Path | None:
    """The run or checkpoint that the backbone starts from; None for random weights."""
    if experiment.init.checkpoint is not None:
        return Path(experiment.init.checkpoint)
    below = experiment.prerequisites.get(INIT)
    return None if below is None else RunFolder(below.run_dir).weights

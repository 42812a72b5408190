"""A finished run as a detector for new images."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import Tensor

from ood_lab.config.detectors import TUNED
from ood_lab.config.experiment import Experiment
from ood_lab.errors import RequestError
from ood_lab.evaluation.evaluator import threshold
from ood_lab.evaluation.extract import (
    Extracted,
    Precision,
    about,
    features_path,
    load_features,
    outputs_of,
    perturbed,
)  # fmt: skip
from ood_lab.evaluation.scores import score
from ood_lab.images.transform import Transform
from ood_lab.method.base import Method
from ood_lab.reader.pictures import pictures
from ood_lab.results.store import options_of, read_asked, read_thresholds
from ood_lab.runs.run_folder import RunFolder
from ood_lab.scorer import build_scorer
from ood_lab.scorer.base import InputScorer, Scorer
from ood_lab.task.build import build_method, build_normalise, head_class
from ood_lab.training.normalise import Normalise


class Detector:
    """Scores images as the run's evaluation would; higher = more OOD.

    Args:
        method: the trained network, in eval mode.
        scorer: fitted on the training features.
        transform, normalise: as in the run.
        threshold: the score that the given share of ID validation images stays below.
        precision: in which the network runs, as in the run's evaluation.
        name: of the run.
    """

    def __init__(
        self,
        method: Method,
        scorer: Scorer,
        transform: Transform,
        normalise: Normalise,
        threshold: float,
        precision: Precision,
        name: str = "",
    ) -> None:
        self.name = name
        self.method, self.scorer, self.transform = method.eval(), scorer, transform
        self.normalise, self.threshold, self.precision = normalise, threshold, precision

    @torch.inference_mode()
    def score(self, images: Any, batch_size: int = 250) -> Tensor:
        """Scores [N] in float64 of pictures of any size: paths, PIL images, arrays, tensors, or a list of these (see
        `ood_lab.reader.pictures`).

        Raises:
            RunError: no picture, one that can't be read, or a 32-bit one; its place in `images` is named.
        """
        parts = []
        given = pictures(images)
        while chosen := list(islice(given, batch_size)):
            squares = [np.array(self.transform(picture)) for picture in chosen]
            pixels = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)
            x = self.normalise(pixels)
            if isinstance(self.scorer, InputScorer) and self.scorer.epsilon > 0:
                # What inference mode has made can't be differentiated.
                with torch.inference_mode(False):
                    x = perturbed(
                        self.method, x.clone(), self.scorer.objective, self.scorer.epsilon, self.normalise.std
                    )
            outputs = outputs_of(self.method, x, self.precision)
            labels = torch.full((len(squares),), -1)
            parts.append(score(self.scorer, Extracted({**outputs, "labels": labels}).features(self.scorer.space)))
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)

    def is_ood(self, images: Any) -> Tensor:
        """Whether each image scores above the threshold, bool [N]."""
        return self.score(images) > self.threshold

    def __repr__(self) -> str:
        """Such as `Detector(KNN on ce-digits-narrow-s0-de90e708, OOD above 0.41)`."""
        return f"Detector({type(self.scorer).__name__} on {self.name}, OOD above {self.threshold:.4g})"


def load_detector(
    run: str | Path,
    scorer: str = "knn",
    id_rate: float | None = None,
    config_dir: str | Path | None = None,
    **options: Any,
) -> Detector:
    """The detector of a finished run, as it was asked for last: options, tuned values, features, precision.

    Args:
        run: its directory, `outputs/<run_id>`.
        scorer: a detector's name, "pood.<name>" for pytorch-ood's; `options` change the values of the evaluation. One
            that was not evaluated has its defaults.
        id_rate: share of ID validation images that the threshold accepts (of ID test images, where the run's protocol
            keeps none for validation); None for that of the evaluation.
        config_dir: a folder of YAML files of your own, where the detector is described there.

    Raises:
        RequestError: no evaluated run, an unknown detector or option, one that the run can't feed, a rate outside 0..1.
    """
    folder = Path(run)
    stored = read_thresholds(folder)
    if not stored:
        raise RequestError(f"{folder} is no finished run; give the folder that a command has printed, outputs/<run_id>")
    own = [row for row in stored if row["scorer"] == scorer]
    asked = read_asked(folder).get(scorer)
    last = ([row for row in own if row["options"] == asked] or own or stored)[-1]
    rate = last["id_rate"] if id_rate is None else id_rate
    if not 0 < rate < 1:
        raise RequestError(f"id_rate={rate}: expected a share between 0 and 1")
    evaluated = {**options_of(last["options"]), **(last["tuned"] or {})} if own else {}
    evaluated.pop(TUNED, None)
    own_files = None if config_dir is None else Path(config_dir).expanduser().absolute()
    fitted = build_scorer(scorer, config_dir=own_files, **{**evaluated, **options})
    if isinstance(fitted, InputScorer) and not fitted.changes_id:
        raise RequestError(
            f"scorer={scorer} measures how robust a detector is and is no detector to use; take that detector"
        )
    if not RunFolder(folder).config.is_file():
        raise RequestError(f"{folder} holds results of given features and no network; give the folder of a run")
    config = OmegaConf.to_container(OmegaConf.load(RunFolder(folder).config), resolve=True)
    if not isinstance(config, dict) or "head" not in config:
        raise RequestError(f"{folder} was made before methods were rows of parts; make the run again with this version")
    experiment = Experiment.of({str(key): value for key, value in config.items()})
    if experiment.backbone.get("own_normalisation"):  # stored with the run where a protocol's would be
        assert experiment.protocol.mean is not None
        assert experiment.protocol.std is not None
        experiment = experiment.normalised(experiment.protocol.mean, experiment.protocol.std)
    weights = load_file(RunFolder(folder).weights)
    method = build_method(experiment)
    method.load_state_dict(weights, strict=False)
    head = head_class(experiment).classifier(weights)
    change = fitted.change() if isinstance(fitted, InputScorer) and fitted.epsilon > 0 else ""
    try:
        train = _features(folder, "train", last["train"]).features(fitted.space)
        held = _features(folder, last["held"], last["features"])
        fitted.fit(train, head=head, val=held.features(fitted.space) if last["held"] == "val" else None)
        if change:
            held = _changed(folder, last["held"], change)
        limit, _ = threshold({"test": score(fitted, held.features(fitted.space))}, rate)
    except ValueError as error:
        raise RequestError(f"scorer={scorer} on {folder}: {error}") from error
    recipe = experiment.dataset.recipe
    transform = Transform("short_side", recipe.resize, recipe.side)
    return Detector(method, fitted, transform, build_normalise(experiment), limit, last["precision"], folder.name)


def _features(folder: Path, split: str, key: str) -> Extracted:
    path = features_path(folder, split, key)
    if not path.is_file():
        raise RequestError(f"{path} is not there; score the run again with task=evaluate")
    return load_features(path)


def _changed(folder: Path, split: str, change: str) -> Extracted:
    """The features of images changed as a detector asks."""
    files = features_path(folder, split, "*", change)
    for path in sorted(files.parent.glob(files.name), key=lambda p: p.stat().st_mtime, reverse=True):
        if about(path).get("change") == change:
            return load_features(path)
    name, _, values = change.partition(" ")
    wanted = " ".join(f"scorer.{name}.{value}" for value in values.split())
    raise RequestError(
        f"{folder}/features holds no {split} images changed for {change}; score the run with "
        f"task=evaluate scorer=[{name}] {wanted}"
    )

"""A finished run as a detector for new images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from ood_lab.config import RequestError
from ood_lab.datamodule import Normalise
from ood_lab.evaluation.evaluator import score, threshold
from ood_lab.evaluation.extract import Extracted, about, features_path, load_features, perturbed
from ood_lab.method.base import Method
from ood_lab.run_dir import FINAL
from ood_lab.scorer import build_scorer
from ood_lab.scorer.base import InputScorer, Scorer
from ood_lab.task.build import build_method
from ood_lab.transform import Transform
from ood_lab.types import LinearHead


class Detector:
    """Scores images as the run's evaluation would; higher = more OOD.

    Args:
        method: the trained network, in eval mode.
        scorer: fitted on the training features.
        transform, normalise: as in the run.
        threshold: the score that the given share of ID validation images stays below.
    """

    def __init__(
        self, method: Method, scorer: Scorer, transform: Transform, normalise: Normalise, threshold: float
    ) -> None:
        self.method, self.scorer, self.transform = method.eval(), scorer, transform
        self.normalise, self.threshold = normalise, threshold

    @torch.inference_mode()
    def score(self, images: Iterable[Image.Image], batch_size: int = 250) -> Tensor:
        """Scores [N] in float64 of PIL images of any size and mode."""
        pictures = list(images)
        parts = []
        for start in range(0, len(pictures), batch_size):
            squares = [np.array(self.transform(p.convert("RGB"))) for p in pictures[start : start + batch_size]]
            pixels = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)
            x = self.normalise(pixels)
            if isinstance(self.scorer, InputScorer) and self.scorer.epsilon > 0:
                # What inference mode has made can't be differentiated.
                with torch.inference_mode(False):
                    x = perturbed(
                        self.method, x.clone(), self.scorer.objective, self.scorer.epsilon, self.normalise.std
                    )
            outputs = {key: value.float() for key, value in self.method.extract(x).items()}
            labels = torch.full((len(squares),), -1)
            parts.append(score(self.scorer, Extracted({**outputs, "labels": labels}).features(self.scorer.space)))
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)

    def is_ood(self, images: Iterable[Image.Image]) -> Tensor:
        """Whether each image scores above the threshold, bool [N]."""
        return self.score(images) > self.threshold


def load_detector(run: str | Path, scorer: str = "knn", id_rate: float | None = None, **options: Any) -> Detector:
    """The detector of a finished run.

    Args:
        run: its directory, `outputs/<run_id>`.
        scorer: a detector's name; `options` change its configured values.
        id_rate: share of ID validation images that the threshold accepts (of ID test images, where the run's protocol
            keeps none for validation); None for the run's own.

    Raises:
        RequestError: no finished run, no saved features, an unknown detector or option, a rate outside 0..1.
    """
    folder = Path(run)
    if not (folder / "DONE").is_file():
        raise RequestError(f"{folder} is no finished run; give the folder that a command has printed, outputs/<run_id>")
    cfg = OmegaConf.load(folder / "config.yaml")
    rate = cfg.id_rate if id_rate is None else id_rate
    if not 0 < rate < 1:
        raise RequestError(f"id_rate={rate}: expected a share between 0 and 1")
    configured = OmegaConf.to_container(cfg.scorer, resolve=True) if "scorer" in cfg else {}
    assert isinstance(configured, dict)
    of_run = {k: v for k, v in configured.get(scorer, {}).items() if k != "_target_"}
    fitted = build_scorer(scorer, **{**of_run, **options})
    weights = load_file(folder / FINAL)
    method = build_method(cfg)
    method.load_state_dict(weights, strict=False)
    head = LinearHead(weights["backbone.fc.weight"], weights["backbone.fc.bias"])
    held = "val" if cfg.protocol.id_val else "test"
    train, plain = (_features(folder, split).features(fitted.space) for split in ("train", held))
    fitted.fit(train, head=head, val=plain if held == "val" else None)
    change = fitted.change() if isinstance(fitted, InputScorer) and fitted.epsilon > 0 else ""
    known = _features(folder, held, change).features(fitted.space) if change else plain
    limit, _ = threshold({"test": score(fitted, known)}, rate)
    recipe = cfg.dataset.recipe
    transform = Transform("short_side", recipe.resize, recipe.side)
    normalise = Normalise(list(cfg.protocol.mean), list(cfg.protocol.std))
    return Detector(method, fitted, transform, normalise, limit)


def _features(folder: Path, split: str, change: str = "") -> Extracted:
    """The newest features of a split; with `change`, of images changed as a detector asks."""
    files = features_path(folder, split, "*", change)
    found = sorted(files.parent.glob(files.name), key=lambda p: p.stat().st_mtime, reverse=True)
    for path in found:
        if not change or about(path).get("change") == change:
            return load_features(path)
    what = f"{split} features" + (f" for {change}" if change else "")
    raise RequestError(f"{folder}/features holds no {what}; score the run again with task=evaluate")

"""Any detector of pytorch-ood that works on features or logits, by name (Kirchheim et al. 2022)."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ood_lab.scorer.base import Scorer
from ood_lab.types import FeatureSet


class PytorchOOD(Scorer):
    """score = what pytorch-ood's detector gives for the saved features: higher = more OOD there, too.

    Its detectors of logits are given the logits, those of features the penultimate features, and those of feature maps
    these features as 1x1 maps; where one asks for the head, its weights or a model, it is given the classifier's head.
    What needs more (images, whole feature maps, text) can't be used here. Needs the extra `ood-lab[pood]`.

    Args:
        detectors: class names in `pytorch_ood.detector`. In a request each is a detector of its own, "pood.<name>"; an
            object stands for one.
        options: name to arguments of its constructor, where they differ from pytorch-ood's defaults.
    """

    by_name_only = True
    requires = ("head", "labels")

    def __init__(self, *, detectors: list[str], options: dict[str, dict[str, Any]]) -> None:
        self.detectors, self.options = detectors, options

    def _fit(self, train: FeatureSet, val: FeatureSet | None) -> None:
        if len(self.detectors) != 1:
            raise ValueError(f"pood: one object scores with one detector; got {', '.join(self.detectors)}")
        with _named(self.detectors[0]):
            self._fit_peer(train)

    def _fit_peer(self, train: FeatureSet) -> None:
        from pytorch_ood import api

        # Some detectors optimise or call a network with gradients while they fit.
        with torch.inference_mode(False), torch.enable_grad():
            features, logits = train.features.float().clone(), train.logits.float().clone()
            classes, width = self.head.weight.shape
            self._linear = nn.Linear(width, classes)
            self._linear.load_state_dict({"weight": self.head.weight.clone(), "bias": self.head.bias.clone()})
            detector = self._detector = self._build()
            given = {
                api.LogitsDetector: ("logits", logits),
                api.FeaturesDetector: ("features", features),
                api.FeatureMapsDetector: ("feature_maps", as_maps(features)),
            }
            # What is none of them calls the head itself.
            self._kind, rows = next((v for base, v in given.items() if isinstance(detector, base)), ("", features))
            if detector.requires_fit:
                getattr(detector, f"fit_{self._kind}")(rows, train.labels)

    def _build(self) -> Any:
        from pytorch_ood import api, detector

        (name,) = self.detectors
        asked = self.options.get(name) or {}
        kind = getattr(detector, name)
        from_maps = issubclass(kind, api.FeatureMapsDetector)
        given = {
            "model": self._linear if name == "GradNorm" else None,
            "encoder": None,
            "backbone": as_maps,
            "head": nn.Sequential(nn.Flatten(), self._linear) if from_maps else self._linear,
            "w": self._linear.weight.detach(),
            "b": self._linear.bias.detach(),
        }
        parameters = inspect.signature(kind.__init__).parameters
        unknown = set(asked) - set(parameters)
        if unknown:
            raise ValueError(f"pood.{name} has no option {', '.join(sorted(unknown))}")
        arguments = {key: value for key, value in given.items() if key in parameters} | asked
        lacking = [
            key
            for key, parameter in parameters.items()
            if key != "self" and parameter.default is parameter.empty and key not in arguments
            and parameter.kind is not parameter.VAR_KEYWORD
        ]  # fmt: skip
        if lacking:
            example = f"scorer.pood.options.{name}={{{lacking[0]}: ...}}"
            raise ValueError(f"pood.{name} has no default for {', '.join(lacking)}; add {example}")
        return kind(**arguments)

    def _score(self, data: FeatureSet) -> Tensor:
        with _named(self.detectors[0]):
            return self._score_peer(data)

    def _score_peer(self, data: FeatureSet) -> Tensor:
        features = data.features.float()
        if not self._kind:
            with torch.inference_mode(False), torch.enable_grad():
                scores: Tensor = self._detector.predict(features.clone())
            return scores
        given = {"logits": data.logits.float(), "features": features, "feature_maps": as_maps(features)}
        predicted: Tensor = getattr(self._detector, f"predict_{self._kind}")(given[self._kind])
        return predicted


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Whatever pytorch-ood raises as one kind of error that names its detector: it asserts, and raises of all kinds."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith(f"pood.{name}"):
            raise
        raise ValueError(f"pood.{name}: {type(error).__name__} {error}".strip()) from error


def as_maps(features: Tensor) -> Tensor:
    """[N, D] as maps of one pixel [N, D, 1, 1]."""
    return features[:, :, None, None]

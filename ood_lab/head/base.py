"""What a head is: the logits, the projector beside them, and what detectors are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from ood_lab.config.ranges import PositiveInt
from ood_lab.types import LinearHead


class Head(nn.Module):
    """Turns features into what terms and detectors read. The last linear layer itself is the backbone's `fc`, as far as
    the head is `linear`; parameters whose names begin with one of `undecayed` have no weight decay.

    `gives` names the tensors that detectors may read besides features, logits and projection, `adds` those that terms
    may read; `trained_through` has pairs of what is given and what a term must read to train it. With
    `TURNS` above 1 detectors are given every image under that many shifts.

    Args:
        width: D of the features.
        projects: whether something reads projections; only then there is a projector.
        classes: of the ID set.
        projection_dim: of the sphere; the projector is a layer as wide as the features, ReLU, and a layer onto it.
    """

    gives: ClassVar[tuple[str, ...]] = ()
    adds: ClassVar[tuple[str, ...]] = ()
    trained_through: ClassVar[tuple[tuple[str, str], ...]] = ()
    TURNS: ClassVar[int] = 1
    EXTRA: ClassVar[int] = 0  # outputs besides the classes
    linear: ClassVar[bool] = True
    undecayed: ClassVar[tuple[str, ...]] = ()

    def __init__(self, width: int, projects: bool, classes: int = 0, *, projection_dim: PositiveInt) -> None:
        super().__init__()
        self.projector = (
            nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, projection_dim)) if projects else None
        )

    def project(self, features_BD: Tensor) -> Tensor:
        """Unit-norm projections."""
        assert self.projector is not None
        return F.normalize(self.projector(features_BD).float(), dim=1)

    def outputs(self, features_BD: Tensor, of_backbone: Tensor) -> Tensor:
        """The outputs of the last layer [B, C + EXTRA]; of a linear head those of the backbone."""
        return of_backbone

    @staticmethod
    def owner(parameter: str) -> str:
        """By what a term reads it trains this parameter of the head."""
        return "z" if parameter.startswith("projector.") else parameter.partition(".")[0]

    def added(self, features_BD: Tensor) -> dict[str, Tensor]:
        """The tensors of `adds`."""
        return {}

    def trained(self, features_BD: Tensor, outputs: Tensor) -> dict[str, Tensor]:
        """What terms may read of the outputs of the last layer: "logits", all that count in a cross-entropy."""
        return {"logits": outputs}

    def tested_turned(self, features_SBD: Tensor) -> dict[str, Tensor]:
        """What detectors are given besides for the features of each image under each of `TURNS` shifts."""
        return {}

    def tested(self, features_BD: Tensor, outputs: Tensor) -> dict[str, Tensor]:
        """What detectors are given for the outputs of the last layer: the logits of the K classes, and `gives`."""
        return {"logits": self.class_logits(outputs)}

    @classmethod
    def class_logits(cls, outputs: Tensor) -> Tensor:
        """The outputs that are ID classes."""
        return outputs[:, : outputs.shape[1] - cls.EXTRA]

    @classmethod
    def classifier(cls, weights: Mapping[str, Tensor]) -> LinearHead:
        """The classifier on the features, of a run's final weights."""
        weight, bias = weights["backbone.fc.weight"], weights["backbone.fc.bias"]
        classes = len(weight) - cls.EXTRA
        return LinearHead(weight[:classes], bias[:classes])

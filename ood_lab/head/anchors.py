"""A head that compares an embedding of the features with an anchor for each class (DreamOOD; BOOD, Eq. 2)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ood_lab.config.affects import NOTHING
from ood_lab.config.ranges import PositiveFloat, PositiveInt
from ood_lab.errors import RunError
from ood_lab.head.base import Head
from ood_lab.loss.anchors import anchor_logits
from ood_lab.text.anchors import load_anchors
from ood_lab.types import LinearHead


class Anchors(Head):
    """logits_c = <h / |h|, Gamma_c> / t for the embedding h of the features, which detectors are given, too.

    With unit anchors this is a cosine, as in DreamOOD's code; `anchors_norm=as_is` is Eq. 2 to the letter. BOOD states
    t = 1: with 100 classes the loss of an embedding at its anchor is 3.66 then, or 4.235 with CLIP's own norms (0.4).

    Args:
        embedding_dim: of h, which is that of the anchors.
        temperature: t.
        anchors_norm: "unit", or "as_is".
        needs: under "anchors" the run that makes them.

    Raises:
        RunError: anchors of another number of classes, or of another dimension.
    """

    gives: ClassVar[tuple[str, ...]] = ("embedding",)
    linear: ClassVar[bool] = False
    anchors: Tensor

    def __init__(
        self,
        width: int,
        projects: bool,
        classes: int,
        *,
        embedding_dim: PositiveInt = 768,
        temperature: PositiveFloat = 0.1,
        anchors_norm: Literal["unit", "as_is"] = "unit",
        needs: Annotated[dict[str, Any], NOTHING],
        **options: Any,
    ) -> None:
        super().__init__(width, projects, classes, **options)
        self.temperature, self.unit = temperature, anchors_norm == "unit"
        self.embed = nn.Linear(width, embedding_dim)
        self.register_buffer("anchors", _anchors(needs.get("anchors"), self.embed, classes))

    def outputs(self, features_BD: Tensor, of_backbone: Tensor) -> Tensor:
        return anchor_logits(self.embed(features_BD), self.anchors, self.temperature, self.unit)

    def tested(self, features_BD: Tensor, outputs: Tensor) -> dict[str, Tensor]:
        return {"logits": outputs, "embedding": self.embed(features_BD)}

    @staticmethod
    def owner(parameter: str) -> str:
        return "z" if parameter.startswith("projector.") else "logits"

    @classmethod
    def classifier(cls, weights: Mapping[str, Tensor]) -> LinearHead:
        """The cosine's numerator: no detector that needs a linear classifier is let in."""
        unit = F.normalize(weights["head.anchors"], dim=1)
        return LinearHead(unit @ weights["head.embed.weight"], unit @ weights["head.embed.bias"])


def _anchors(folder: Path | None, embed: nn.Linear, classes: int) -> Tensor:
    """The anchors of a set; zeros where they are among the weights that are loaded next."""
    if folder is None:
        return embed.weight.new_zeros(classes, embed.out_features)
    found = load_anchors(folder)
    if tuple(found.shape) != (classes, embed.out_features):
        raise RunError(
            f"{folder} holds {found.shape[0]} anchors of {found.shape[1]} numbers; expected {classes}, one for each "
            f"class, of {embed.out_features} (head.embedding_dim)"
        )
    return found

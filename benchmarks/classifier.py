"""A network as extraction sees it, without a method around it."""

from __future__ import annotations

from torch import Tensor, nn


class Classifier(nn.Module):
    """Features and logits of a backbone."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def extract(self, images: Tensor) -> dict[str, Tensor]:
        """What detectors may see of a batch."""
        features, logits = self.backbone(images)
        return {"features": features, "logits": logits}

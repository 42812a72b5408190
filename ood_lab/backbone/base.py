"""What a backbone is to the rest of the program."""

from __future__ import annotations

from torch import Tensor, nn

from ood_lab.types import BackboneOutput, LinearHead


class Backbone(nn.Module):
    """A network with a linear head: `forward(images [B, 3, H, W])` gives features [B, D] and logits [B, C]."""

    feature_dim: int
    fc: nn.Linear

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features [B, D]."""
        raise NotImplementedError(f"{type(self).__name__} must define features()")

    def forward(self, images: Tensor) -> BackboneOutput:
        features = self.features(images)
        return BackboneOutput(features, self.fc(features))

    @property
    def head(self) -> LinearHead:
        """The classifier's weights, detached."""
        return LinearHead(self.fc.weight.detach(), self.fc.bias.detach())

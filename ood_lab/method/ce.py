"""Cross-entropy on the logits: the plain classifier."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ood_lab.method.base import Method
from ood_lab.types import BackboneOutput, Batch


class CE(Method):
    """mean_b -log softmax(logits_b)[y_b]."""

    def loss(self, batch: Batch, output: BackboneOutput) -> dict[str, Tensor]:
        return {"total": F.cross_entropy(output.logits, batch.labels)}

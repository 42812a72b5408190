"""Maximum concept matching, for image-text models such as CLIP (Ming et al. 2022)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ood_lab.config.ranges import PositiveFloat
from ood_lab.scorer.base import Scorer
from ood_lab.scorer.msp import uncertainty
from ood_lab.types import FeatureSet


class MCM(Scorer):
    """score = 1 - max_c softmax(cos(x, t) / T)_c, t the rows of the head's weight (MCM, Eq. 1, negated).

    The head's weight holds the text embeddings of the class names [C, D], `x` are image embeddings [N, D]; both are
    normalised here, the head's bias is not read. Nothing is learned from training features.

    Args:
        temperature: T; 1 in the paper, whose softmax is of cosines that CLIP has not scaled.
    """

    by_name_only = True  # the rows of an ordinary classifier are no concepts
    requires = ("head",)

    def __init__(self, *, temperature: PositiveFloat) -> None:
        self.temperature = temperature

    def _score(self, data: FeatureSet) -> Tensor:
        concepts_CD = F.normalize(self.head.weight.double(), dim=1)
        cosines_NC = F.normalize(data.features.double(), dim=1) @ concepts_CD.T
        return uncertainty(cosines_NC / self.temperature)

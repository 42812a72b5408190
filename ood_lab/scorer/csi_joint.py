"""The ensemble of CSI's joint head over shifts (Tack et al. 2020, labelled)."""

from __future__ import annotations

from torch import Tensor

from ood_lab.scorer.base import Scorer
from ood_lab.types import FeatureSet


class CSIJoint(Scorer):
    """score = 1 - max_c softmax_c of the joint logits of each class, averaged over the shifts of the image.

    CSI's own detector for labelled data; method=csi trains the joint head.
    """

    by_name_only = True
    space = "joint"

    def _score(self, data: FeatureSet) -> Tensor:
        return 1 - data.features.softmax(1).amax(1)

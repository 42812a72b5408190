"""The output for none of the classes of a head with K + 1 (DOS, Jiang et al. 2024; NTOM)."""

from __future__ import annotations

from torch import Tensor

from ood_lab.loss.absent_class import absent_log_odds
from ood_lab.scorer.base import Scorer
from ood_lab.types import FeatureSet


class AbsentClass(Scorer):
    """score = log p(K+1) / (1 - p(K+1)), which orders images as DOS's 1 - p(K+1) does, without its ties at 0 and 1.

    In the space "absent" features are the last output, logits those of the K classes. The energy and the softmax of the
    K classes alone are scorer=energy and scorer=msp.
    """

    by_name_only = True
    space = "absent"

    def _score(self, data: FeatureSet) -> Tensor:
        return absent_log_odds(data.logits.double(), data.features.double())

"""The energy with learned class weights of head=weighted_energy (ARES, Eqs. 12 and 14)."""

from __future__ import annotations

from torch import Tensor

from ood_lab.scorer.base import Scorer
from ood_lab.types import FeatureSet


class WeightedEnergy(Scorer):
    """score = E = -log sum_c w_c e^{f_c}: higher is OOD. Eq. 14 has the sign the other way round.

    In the space "energy" features are E itself. Without weights: scorer=energy.
    """

    by_name_only = True
    space = "energy"

    def _score(self, data: FeatureSet) -> Tensor:
        return data.features[:, 0].double()

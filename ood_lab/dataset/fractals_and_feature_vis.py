"""Generated fractals and feature visualisations together: PixMix's and ARES's structured mixing source."""

from __future__ import annotations

from dataclasses import dataclass

from ood_lab.dataset.base import ImageSet, Split
from ood_lab.reader.base import Listing
from ood_lab.reader.joined import joined


@dataclass(kw_only=True)
class FractalsAndFeatureVis(ImageSet):
    """Every image of `parts`, without labels.

    Args:
        parts: image sets by name.
    """

    parts: dict[str, ImageSet]

    def listing(self, split: Split, id_val: int = 0) -> Listing:
        del id_val  # an unlabelled set has no validation part
        return joined([part.listing("auxiliary" if split == "auxiliary" else "ood") for part in self.parts.values()])

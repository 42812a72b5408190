"""Images that another run makes (`task=synthesize`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from ood_lab.config.affects import NOTHING
from ood_lab.dataset.stored import Stored


@dataclass(kw_only=True)
class Synthesized(Stored):
    """The shards of a prerequisite, which `root` is set to.

    Args:
        needs: under "images", the overrides of the run that makes them. Its id is part of the id of the run that
            depends on it.
    """

    needs: Annotated[dict[str, Any], NOTHING]

"""Scores as OpenOOD stores them, so that its scripts and notebooks read ours."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Names of the image sets there, where they differ from ours.
SETS = {"tiny_imagenet": "tin", "textures": "texture", "tiny_imagenet_val": "tin", "mnist_test": "mnist"}
# And of detectors.
POSTPROCESSORS = {
    "maxlogit": "mls",
    "energy": "ebo",
    "mahalanobis": "mds",
    "kl_matching": "klm",
}


class Scored(NamedTuple):
    """One image set: scores, higher = more OOD [N], predicted classes [N] and labels [N] (-1 where there are none)."""

    scores: NDArray[np.float64]
    predicted: NDArray[np.int64]
    labels: NDArray[np.int64]


def score_file(test: Scored, val: Scored | None, groups: Mapping[str, Mapping[str, Scored]]) -> bytes:
    """`scores/<postprocessor>.pkl` of OpenOOD v1.5: the `scores` of its `Evaluator`, pickled.

    Of each set a list [predictions, confidences, labels]; the confidence is the negative of our score.

    Args:
        groups: "near" and "far" to the sets of each.
    """
    ood = {group: {SETS.get(name, name): _listed(s, -1) for name, s in sets.items()} for group, sets in groups.items()}
    content: dict[str, Any] = {
        "id": {"train": None, "val": None if val is None else _listed(val), "test": _listed(test)},
        "csid": {},
        "ood": {"val": None, "near": ood.get("near", {}), "far": ood.get("far", {})},
        "id_preds": test.predicted,
        "id_labels": test.labels,
        "csid_preds": {},
        "csid_labels": {},
    }
    return pickle.dumps(content, pickle.HIGHEST_PROTOCOL)


def postprocessor(scorer: str) -> str:
    """OpenOOD's name of a detector."""
    return POSTPROCESSORS.get(scorer, scorer)


def _listed(scored: Scored, label: int | None = None) -> list[NDArray[Any]]:
    labels = scored.labels if label is None else np.full_like(scored.labels, label)
    return [scored.predicted, -scored.scores, labels]

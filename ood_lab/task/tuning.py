"""Searching a detector's hyper-parameters for a run, once: the search is kept beside the run and read back."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from ood_lab.config import Request
from ood_lab.config.request import TUNED
from ood_lab.evaluation.tuning import Trial, best, combinations, search
from ood_lab.results.search import search_path
from ood_lab.scorer.base import InputScorer, Scorer
from ood_lab.storage import write_atomically
from ood_lab.task.build import build
from ood_lab.task.features import Features

Options = dict[str, Any]


def detector(request: Request, name: str, features: Features) -> tuple[Scorer, Options | None]:
    """The detector that a request means, and the values that were chosen for it; None where nothing is tuned.

    The search is in `tuning/<detector>-<digits>.json`: the sets and their features, every combination with its AUROC
    or why the detector refused it, and the choice.
    """
    node = dict(request.scorers[name])
    searched = node.pop(TUNED, None)
    if searched is None:
        return build(node), None
    path = search_path(request, name)
    keys = {set_name: features.of(set_name).key for set_name in ("train", "val", *searched["sets"])}
    kept = json.loads(path.read_text()) if path.is_file() else {}
    if kept.get("features") != keys:
        trials = _search(name, node, searched, features)
        kept = {"detector": name, **searched, "features": keys, "trials": [asdict(t) for t in trials]}
        kept["chosen"] = best(trials).options
        write_atomically(path, json.dumps(kept, indent=1).encode())
    return build({**node, **kept["chosen"]}), kept["chosen"]


def _search(name: str, node: Options, searched: dict[str, Any], features: Features) -> list[Trial]:
    def make(options: Options) -> Scorer:
        scorer: Scorer = build({**node, **options})
        return scorer

    every = [make(options) for options in combinations(searched["grid"])]
    # A detector that changes the images asks for a pass over the validation sets with each of its values.
    features.prepare(["val", *searched["sets"]], [scorer for scorer in every if isinstance(scorer, InputScorer)])
    return search(name, make, searched["grid"], features, searched["sets"], features.head)

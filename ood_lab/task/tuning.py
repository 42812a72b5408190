"""Searching a detector's hyper-parameters for a run: an artifact beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ood_lab.config.detectors import TUNED
from ood_lab.config.experiment import Experiment
from ood_lab.evaluation.tuning import Trial, best, combinations, search
from ood_lab.files.artifact import Artifact
from ood_lab.files.storage import write_atomically
from ood_lab.results.search import search_path
from ood_lab.scorer.base import InputScorer, Scorer
from ood_lab.task.build import build
from ood_lab.task.features import Features

Options = dict[str, Any]


def detector(experiment: Experiment, name: str, features: Features) -> tuple[Scorer, Options | None]:
    """The detector that an experiment means, and the values that were found for it; None where nothing is tuned."""
    node = experiment.detectors[name]
    if TUNED not in node:
        return build(node), None
    found = Search(name, node, features).chosen()
    return build({**{key: value for key, value in node.items() if key != TUNED}, **found}), found


@dataclass(frozen=True)
class Search(Artifact):
    """The search of a detector's options: a JSON file of the sets and their features, every combination with its AUROC
    or why the detector refused it, and the choice.

    Args:
        name: of the detector.
        node: its options, with the grid and the sets of the search.
        features: of the run.
    """

    name: str
    node: Mapping[str, Any]
    features: Features

    @cached_property
    def inputs(self) -> dict[str, str]:
        """The key of the features of each set that is read."""
        return {name: self.features.of(name).key for name in ("train", "val", *self.node[TUNED]["sets"])}

    @property
    def key(self) -> str:
        return json.dumps(self.inputs)

    @property
    def path(self) -> Path:
        return search_path(self.features.folder.path, self.name, self.node)

    def is_complete(self) -> bool:
        if not self.path.is_file():
            return False
        try:
            return bool(json.loads(self.path.read_text())["features"] == self.inputs)
        except (ValueError, KeyError, TypeError):
            return True  # damaged, which reading it says

    def make(self) -> None:
        searched = self.node[TUNED]
        trials = self._trials({key: value for key, value in self.node.items() if key != TUNED}, searched)
        found = {"detector": self.name, **searched, "features": self.inputs, "trials": [asdict(t) for t in trials]}
        found["chosen"] = best(trials).options
        write_atomically(self.path, json.dumps(found, indent=1).encode())

    def chosen(self) -> Options:
        """The values that were found, searched for first where they are not stored."""
        return self.read(_chosen, (ValueError, KeyError, TypeError))

    def _trials(self, node: Options, searched: Mapping[str, Any]) -> list[Trial]:
        def make(options: Options) -> Scorer:
            scorer: Scorer = build({**node, **options})
            return scorer

        every = [make(options) for options in combinations(searched["grid"])]
        # A detector that changes the images asks for a pass over the validation sets with each of its values.
        changing = [scorer for scorer in every if isinstance(scorer, InputScorer)]
        self.features.prepare(["val", *searched["sets"]], changing)
        return search(self.name, make, searched["grid"], self.features, searched["sets"], self.features.head)


def _chosen(path: Path) -> Options:
    return dict(json.loads(path.read_text())["chosen"])

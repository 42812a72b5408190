"""Detectors, metrics and report on given features, without a run: fit, score, store, draw."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ood_lab.config.experiment import Part
from ood_lab.errors import RequestError
from ood_lab.evaluation.evaluator import Scoring, metric_rows, threshold
from ood_lab.evaluation.given_features import GivenFeatures
from ood_lab.evaluation.scores import RunDetector, fit_key, load_scores, score_all
from ood_lab.files.storage import write_atomically
from ood_lab.plural import counted
from ood_lab.progress import track
from ood_lab.results.material import Material, RunMaterial
from ood_lab.results.page import About, Fact, render_page
from ood_lab.results.store import COLUMNS, PAGE, Results, Row, add_rows, add_thresholds, read_rows
from ood_lab.results.table import GIVEN, Selection, lines
from ood_lab.runs.provenance import commit, hardware
from ood_lab.scorer.base import Scorer
from ood_lab.task.report import code_of, draw_figures, stored_auroc


@dataclass
class Evaluation:
    """Detectors on given features.

    Args:
        name: what results call the features.
        given: the features.
        near: the OOD sets that are near.
        detectors: by name, not fitted yet.
        options: of each, as stored with its rows.
        scoring: how metrics are counted.
        id_rate: share of ID images that thresholds accept.
        caption: what the metrics are.
        named: whether the detectors were named one by one: then one that can't use the features is an error.
        left_out: why, by detector; filled by `measure`.
    """

    name: str
    given: GivenFeatures
    near: Sequence[str]
    detectors: Mapping[str, Scorer]
    options: Mapping[str, str]
    scoring: Scoring
    id_rate: float
    caption: Sequence[str]
    named: bool = False
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Eight digits of the content of all sets and of the head."""
        sets = {name: extracted.key for name, extracted in self.given.sets.items()}
        return fit_key(repr([sorted(sets.items()), sorted(self.near)]), self.given.head_key, None)

    @property
    def groups(self) -> dict[str, str]:
        """The OOD sets, near ones first."""
        ood = [name for name in self.given.names if name not in ("val", "test")]
        found = {name: "near" if name in self.near else "far" for name in ood}
        return dict(sorted(found.items(), key=lambda item: item[1] == "far"))

    def measure(self, folder: Path) -> Results:
        """Fit and score every detector that can be given these features; store scores, thresholds and rows.

        Raises:
            RequestError: none of them can use these features, or one that was named can't.
        """
        self.left_out = {name: why for name, scorer in self.detectors.items() if (why := self.given.lacks(scorer))}
        if self.named and self.left_out:
            reasons = "; ".join(f"scorer={name} {why}" for name, why in self.left_out.items())
            raise RequestError(f"{reasons}. Leave out what can't be used, or take scorer=all")
        usable = [
            RunDetector(name, scorer, self.options[name], self._fit)
            for name, scorer in self.detectors.items()
            if name not in self.left_out
        ]
        if not usable:
            raise RequestError(f"no detector can use these features. {'; '.join(self._of_left_out())}")
        scores, refused = score_all(usable, self.given, self.given.names, self.given.head, folder)
        self.left_out |= refused
        if not scores:
            raise RequestError(f"no detector can use these features. {'; '.join(self._of_left_out())}")
        for text in self._of_left_out():
            print(f"note: {text}", file=sys.stderr, flush=True)
        rows, limits = self._rows([d for d in usable if d.name in scores], scores)
        add_rows(folder, rows)
        add_thresholds(folder, limits)
        results = Results(self.run_id, folder, read_rows(folder))
        results.lines, results.caption = lines(results, self.selection), self.lines_below()
        results.selection = self.selection
        return results

    @property
    def selection(self) -> Selection:
        """What the table shows."""
        return Selection(self.options, self.groups, dict.fromkeys(self.groups, self._convention), self._convention)

    def lines_below(self) -> list[str]:
        """Which rows the numbers are of, and what was left out."""
        named = {g: ", ".join(n for n, own in self.groups.items() if own == g) or "none" for g in ("near", "far")}
        train, test = (len(self.given.sets[name].tensors["features"]) for name in ("train", "test"))
        classes = "" if self.given.classes is None else f", {counted(self.given.classes, 'class')}"
        below = [
            f"percent; means over sets. near: {named['near']}; far: {named['far']}",
            f"features of width {self.given.width}{classes}; {train:,} training and {counted(test, 'ID test row')}",
            *self.caption,
        ]
        return [*below, *self._of_left_out()]

    def _of_left_out(self) -> list[str]:
        """Which detectors were left out, by reason."""
        reasons: dict[str, list[str]] = {}
        for name, why in self.left_out.items():
            reasons.setdefault(why, []).append(name)
        return [f"left out: {', '.join(names)} ({why})" for why, names in reasons.items()]

    @property
    def run_id(self) -> str:
        """Such as features-clip-1a2b3c4d."""
        own = "" if self.name == "features" else "-" + re.sub(r"[^\w.-]+", "_", self.name)[:60]
        return f"features{own}-{self.digest}"

    def report(self, results: Results, figures: Mapping[str, Part], command: str, config: str) -> None:
        """Draw the figures and write report.html."""
        drawn = draw_figures(figures, self._material(results), results.run_dir)
        last = results.rows[-1]
        about = About(
            title=self.name,
            subtitle=f"given features, width {self.given.width}",
            facts=[
                Fact("scored", f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"),
                Fact("made on", last["hardware"]),
                Fact("with", code_of(last)),
            ],
            caption=results.caption,
            command=command,
            config=config,
        )
        page = render_page(results, self.selection, [figure.picture for figure in drawn], about)
        write_atomically(results.run_dir / PAGE, page.encode())

    @property
    def _fit(self) -> str:
        val = self.given.of("val").key if "val" in self.given.sets else None
        return fit_key(f"{self.given.of('train').key} {self.digest}", val, None)

    @property
    def _convention(self) -> str:
        scoring = self.scoring
        drawn = f"{scoring.subset}x{scoring.draws}" if scoring.subset else "none"
        return (
            f"given subset={drawn} fpr_rule={scoring.fpr_rule} aupr_rule={scoring.aupr_rule} "
            f"bootstrap={scoring.bootstrap}"
        )

    def _rows(
        self, detectors: Iterable[RunDetector], scores: Mapping[str, Mapping[str, Any]]
    ) -> tuple[list[Row], list[Row]]:
        """Rows, and the thresholds of the detectors."""
        common: Row = dict.fromkeys(COLUMNS)
        common |= {
            "run_id": self.run_id,
            "method": self.name,
            "dataset": "features",
            "stage": GIVEN,
            "hardware": hardware("cpu"),
            "commit": commit(),
            "versions": {package: version(package) for package in ("ood-lab", "torch")},
            "convention": self._convention,
        }
        of_sets = {name: {"group": group, "features": self.given.of(name).key} for name, group in self.groups.items()}
        rows: list[Row] = []
        accuracy = self.given.accuracy()
        if accuracy is not None:
            test = self.given.of("test")
            of_id = {"n_id": len(test.tensors["features"]), "n_ood": 0, "features": test.key, "unit": "fraction"}
            rows.append({**common, **of_id, "metric": "accuracy", "value": accuracy})
        limits: list[Row] = []
        for detector in track(list(detectors), "metrics"):
            own = {"scorer": detector.name, "options": detector.options, "fit": detector.fit,
                   "space": detector.scorer.space}  # fmt: skip
            rows += metric_rows(scores[detector.name], of_sets, self.scoring, {**common, **own})
            limits.append(self._limit(detector, scores[detector.name]))
        return rows, limits

    def _limit(self, detector: RunDetector, scores: Mapping[str, Any]) -> Row:
        limit, images = threshold(scores, self.id_rate)
        held = "val" if "val" in scores else "test"
        return {
            "scorer": detector.name, "options": detector.options, "tuned": None, "id_rate": self.id_rate,
            "threshold": limit, "n_id": images, "held": held, "precision": "32-true",
            "train": self.given.of("train").key, "features": self.given.of(held).key, "convention": self._convention,
        }  # fmt: skip

    def _material(self, results: Results) -> Material:
        keys = {name: self.given.of(name).key for name in self.given.names}
        loaded = {
            name: load_scores(results.run_dir, name, options, keys, self._fit) for name, options in self.options.items()
        }
        tensors = self.given.of("test").tensors
        one = RunMaterial(
            label=self.name,
            curves=[],
            scores={n: {key: value.numpy() for key, value in s.items()} for n, s in loaded.items() if "test" in s},
            features={n: self.given.of(n).tensors["features"].numpy() for n in ("test", *self.groups)},
            labels=tensors["labels"].clamp(min=0).numpy(),
            outliers=None,
            auroc=stored_auroc(results.rows),
        )
        return Material([one], self.groups)

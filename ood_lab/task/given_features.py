"""Every detector, metric and report for features of any network: `ood_lab.evaluate`, `task=evaluate features=FILE`."""

from __future__ import annotations

import re
import shlex
import sys
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ood_lab.config.check import check_output
from ood_lab.config.detectors import as_declared
from ood_lab.config.experiment import Part
from ood_lab.config.features_request import FeaturesRequest, features_request
from ood_lab.config.groups import config_folder
from ood_lab.config.schema import Protocol
from ood_lab.errors import RequestError
from ood_lab.evaluation.evaluator import Scoring, metric_rows, threshold
from ood_lab.evaluation.features_file import read_features_file
from ood_lab.evaluation.given_features import GivenFeatures
from ood_lab.evaluation.scores import RunDetector, fit_key, score_all
from ood_lab.files.storage import write_atomically
from ood_lab.plural import counted
from ood_lab.progress import stdout, track
from ood_lab.results.caption import metric_lines
from ood_lab.results.material import Material, RunMaterial
from ood_lab.results.page import About, Fact, render_page
from ood_lab.results.render import terminal_table
from ood_lab.results.store import COLUMNS, PAGE, Results, Row, add_rows, add_thresholds, options_text, read_rows
from ood_lab.results.table import GIVEN, Selection, lines
from ood_lab.runs.provenance import commit, hardware
from ood_lab.scorer import build_scorer
from ood_lab.scorer.base import Scorer
from ood_lab.task.build import build
from ood_lab.task.report import code_of, draw_figures, stored_auroc


def run(request: FeaturesRequest) -> Results:
    """Evaluate the features of a file, and show the table.

    Raises:
        RequestError: what the file holds does not fit together.
        RunError: detectors can't work on these features; the others are stored and shown.
    """
    held = read_features_file(request.path)
    given = GivenFeatures(held.sets["train"], held.sets["test"], held.ood, held.head or None, held.sets.get("val"))
    detectors = {name: build(node) for name, node in request.detectors.items()}
    nodes = {name: options_text(node) for name, node in request.detectors.items()}
    protocol = request.protocol
    evaluation = Evaluation(
        name=request.path.stem,
        given=given,
        near=held.near,
        detectors=detectors,
        options=nodes,
        scoring=_scoring(protocol, request.bootstrap),
        id_rate=request.id_rate,
        caption=metric_lines(protocol),
        named=any(text.startswith("scorer=") for text in request.typed) and "scorer=all" not in request.typed,
    )
    folder = request.output / evaluation.run_id
    results = evaluation.measure(folder)
    evaluation.report(results, request.figures, f"python -m ood_lab {shlex.join(request.overrides)}", request.config)
    stdout.print(f"report: {folder / PAGE}\n", highlight=False, markup=False)
    stdout.print(terminal_table(results.lines, results.caption))
    return results


def evaluate(
    train: Any,
    test: Any,
    ood: Mapping[str, Any],
    *,
    head: Any = None,
    val: Any = None,
    near: str | Collection[str] = (),
    scorer: str | Sequence[str] | Mapping[str, Mapping[str, Any]] = "all",
    name: str = "features",
    protocol: str = "openood_v15",
    id_rate: float = 0.95,
    bootstrap: int = 0,
    output: str | Path | None = None,
    config_dir: str | Path | None = None,
) -> Results:
    """Every detector and metric for features that any network has given.

    Args:
        train, test, ood, head, val: see `ood_lab.evaluation.given_features.GivenFeatures`. A set is features [N, D], a
            pair (features, labels), or a mapping with "features", "logits" and "labels".
        near: the OOD sets that are near; the others are far.
        scorer: "all", names, or options by name: `{"knn": {"k": 10}, "mcm": {}}`. Detectors that can't be given these
            features are left out, which is said.
        name: what results call the features.
        protocol: by whose conventions FPR95 and AUPR are counted.
        id_rate: share of ID images (of `val`, else of `test`) that each detector's threshold accepts.
        bootstrap: resamplings for 95 % intervals of every metric.
        output: a folder; rows, scores and report.html go to one of their own in it, named by `name` and the features.
            None keeps nothing.
        config_dir: a folder of YAML files of your own, where a detector is described there.

    Returns:
        what was measured: `frame()` has a row for each detector, OOD set and metric.

    Raises:
        RequestError: features, labels or head that do not fit together; an unknown detector or option; no detector that
            can use these features.
    """
    folder = config_folder(config_dir)
    request = _checked(scorer, protocol, id_rate, bootstrap, folder)
    given = GivenFeatures(train, test, ood, head, val)
    near = [near] if isinstance(near, str) else list(near)
    unknown = [one for one in near if one not in ood]
    if unknown:
        raise RequestError(f"near={unknown}: no such OOD set; there are {', '.join(ood)}")
    own = scorer if isinstance(scorer, Mapping) else {}
    detectors, options = {}, {}
    for found, node in request.detectors.items():
        stated = own.get(found) or {}
        detectors[found] = build_scorer(found, config_dir=folder, **stated) if stated else build(node)
        options[found] = options_text(as_declared({**node, **stated}))
    conventions = request.protocol
    evaluation = Evaluation(
        name=name,
        given=given,
        near=list(near),
        detectors=detectors,
        options=options,
        scoring=_scoring(conventions, bootstrap),
        id_rate=id_rate,
        caption=metric_lines(conventions),
        named=scorer != "all",
    )
    if output is None:
        with tempfile.TemporaryDirectory() as temporary:
            results = evaluation.measure(Path(temporary))
        results.run_dir = Path()
        return results
    check_output(Path(output).expanduser())
    results = evaluation.measure(Path(output).expanduser().absolute() / evaluation.run_id)
    evaluation.report(results, request.figures, f"ood_lab.evaluate(..., name={name!r})", request.config)
    return results


def _scoring(protocol: Protocol, bootstrap: int) -> Scoring:
    return Scoring(protocol.fpr_rule, protocol.aupr_rule, protocol.subset, protocol.draws, bootstrap)


def _checked(scorer: Any, protocol: str, id_rate: float, bootstrap: int, folder: Path | None) -> FeaturesRequest:
    """The detectors, figures and conventions, checked as a command line's are."""
    names = scorer if isinstance(scorer, str) else f"[{','.join(scorer)}]"
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "given.npz"
        file.touch()
        overrides = [
            f"scorer={names if names == 'all' or names.startswith('[') else f'[{names}]'}",
            f"protocol={protocol}", f"id_rate={id_rate}", f"bootstrap={bootstrap}",
            f"features={file}", "task=evaluate", f"paths.output={temporary}",
        ]  # fmt: skip
        return features_request(overrides, folder)


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
    """

    name: str
    given: GivenFeatures
    near: Sequence[str]
    detectors: Mapping[str, Scorer]
    options: Mapping[str, str]
    scoring: Scoring
    id_rate: float
    caption: Sequence[str]
    named: bool = False  # whether the detectors were named one by one: then none is left out
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
            RequestError: none of them can use these features.
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
            title=f"{self.name}",
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
        from ood_lab.evaluation.scores import load_scores

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

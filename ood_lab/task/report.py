"""The table and the report of what is stored; no network runs."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from torch import Tensor

from ood_lab.config.experiment import Experiment, Part
from ood_lab.errors import RequestError
from ood_lab.evaluation.extract import Extracted, features_path, load_features
from ood_lab.evaluation.radius import local_radius
from ood_lab.evaluation.scores import load_norms, load_scores
from ood_lab.figure.base import FigureKind, as_csv, files_of, picture
from ood_lab.figure.feature_map import DISTINCT
from ood_lab.files.storage import short_name, write_atomically
from ood_lab.progress import clock, track
from ood_lab.results.curves import read_curves
from ood_lab.results.material import SYNTHESIZED, Material, RunMaterial
from ood_lab.results.page import About, Fact, Picture, render_page
from ood_lab.results.store import PAGE, ROWS, THRESHOLD_KEY, Results, Row, read_rows, read_thresholds
from ood_lab.results.table import STAGES, Selection, lines
from ood_lab.runs.claim import with_stored_normalisation
from ood_lab.runs.run_folder import RunFolder
from ood_lab.task.build import build, class_names, classes_of
from ood_lab.task.decoded_outliers import DecodedOutliers
from ood_lab.task.outlier_images import OutlierImages
from ood_lab.task.outliers import load_outliers, redrawn
from ood_lab.task.shown import caption, notes, show, stored


def run(experiment: Experiment) -> Results:
    """Print the table and write report.html again.

    Raises:
        RequestError: there is nothing stored yet.
    """
    if not read_rows(experiment.run_dir):
        raise RequestError(
            f"{experiment.run_id} has no results in {experiment.run_dir}; run the same command without task=report"
        )
    experiment = with_stored_normalisation(experiment) or experiment
    results = stored(experiment)
    if not lines(results, Selection.of(experiment)):
        raise RequestError(
            f"{experiment.run_id} has results, but none for these detectors, images and protocol options "
            f"({experiment.convention()}); task=evaluate makes them"
        )
    write(experiment, results)
    show(experiment, results)
    return results


class Drawn(NamedTuple):
    """A figure of a report: as one image, and in the panels that the page shows."""

    title: str
    png: bytes
    picture: Picture


def write(experiment: Experiment, results: Results, seconds: float | None = None) -> list[Drawn]:
    """Draw the figures (also kept as PNG, PDF and CSV files) and write report.html, with every detector that is stored.

    Args:
        seconds: how long the run has taken, where it is just made.

    Returns:
        the figures.
    """
    if experiment.logger.name == "csv":
        _write_csv(experiment)
    drawn = draw_figures(experiment.figure, gather(experiment), experiment.run_dir)
    about = _about(experiment, results, seconds)
    shown = Selection.of(experiment).with_stored(results.rows)
    page = render_page(results, shown, [figure.picture for figure in drawn], about)
    write_atomically(experiment.run_dir / PAGE, page.encode())
    return drawn


def draw_figures(parts: Mapping[str, Part], material: Material, run_dir: Path) -> list[Drawn]:
    """Draw what there is something to show for, and keep each figure as PNG, PDF and CSV files."""
    found = []
    for name, part in track(list(parts.items()), "draw"):
        kind: FigureKind = build(part)
        others = [beside(Path(folder), material.groups) for folder in kind.beside]
        shown = material._replace(runs=[*material.runs[:-1], *others, material.runs[-1]])
        figure = kind.draw(shown)
        if figure is not None:
            files = files_of(figure)
            for end, content in files.items():
                write_atomically(run_dir / "figures" / f"{name}.{end}", content)
            panels = [(run, text, picture(panel)) for run, text, panel in kind.panels(shown)]
            whole = [("", kind.title, files["png"])]
            found.append(Drawn(kind.title, files["png"], Picture(kind.title, kind.caption, panels or whole)))
    return found


def _about(experiment: Experiment, results: Results, seconds: float | None) -> About:
    """What the page says of the run besides its numbers."""
    last = results.rows[-1]
    return About(
        title=f"{last['method']} on {last['dataset']}",
        subtitle=f"{last['backbone']}, seed {last['seed']}, run {results.run_id}",
        facts=[*_times(experiment, seconds), Fact("made on", last["hardware"]), Fact("with", code_of(last))],
        caption=[
            *caption(experiment, results),
            f"AUPR: {experiment.protocol.aupr_rule.replace('_', ' ')}",
            *notes(experiment),
        ],
        command=f"python -m ood_lab {shlex.join(t for t in experiment.overrides if t != 'task=report')}".strip(),
        config=yaml.safe_dump(experiment.values(), sort_keys=False, allow_unicode=True),
    )


def _times(experiment: Experiment, seconds: float | None) -> list[Fact]:
    """When the run was trained and scored, and how long it took where it was made in one go."""
    folder = RunFolder(experiment.run_dir)
    trained, scored = folder.weights, folder.path / ROWS
    times = [
        (name, path.stat().st_mtime) for name, path in (("trained", trained), ("scored", scored)) if path.is_file()
    ]
    facts = [Fact(name, f"{datetime.fromtimestamp(time).astimezone():%Y-%m-%d %H:%M %Z}") for name, time in times]
    seconds = folder.seconds if seconds is None else seconds
    return facts if seconds is None else [*facts, Fact("took", f"{clock(seconds)} (with its evaluation)")]


def code_of(row: Row) -> str:
    """The commit and the versions that a row was made with."""
    versions = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
    commit = row["commit"] or "unknown"
    changed = " (with changes that are in no commit)" if commit.endswith("+") else ""
    return f"commit {commit.rstrip('+')}{changed}; {versions}"


def gather(experiment: Experiment) -> Material:
    """Curves, scores and features of a run and of those it depends on."""
    runs = [run for run in experiment.with_prerequisites() if not run.makes_no_classifier]
    shown = Selection.of(experiment).with_stored(read_rows(experiment.run_dir))
    return Material([_run_material(r, shown) for r in runs], experiment.groups_of_sets)


def _run_material(experiment: Experiment, chosen: Selection) -> RunMaterial:
    rows = read_rows(experiment.run_dir)
    keys, fits = chosen.feature_keys(rows), chosen.fits(rows)
    outliers = load_outliers(RunFolder(experiment.run_dir).outliers)
    paths = {name: features_path(experiment.run_dir, name, key) for name, key in keys.items()}
    sets = {name: load_features(path) for name, path in paths.items() if path.is_file()}
    features = {name: extracted.features("method").features.numpy() for name, extracted in sets.items()}
    scored = keys if outliers is None else {**keys, SYNTHESIZED: outliers.key}
    loaded = {
        name: load_scores(experiment.run_dir, name, text, scored, fits[name])
        for name, text in chosen.options.items()
        if fits.get(name)
    }
    scores = {name: found for name, found in loaded.items() if "test" in found}
    radii = {
        name: _radii(experiment, chosen.options[name], name, found, keys, fits[name]) for name, found in scores.items()
    }
    trains_on_images = experiment.auxiliary is not None or experiment.makes_outlier_images
    return RunMaterial(
        label=f"{experiment.method.choice} ({STAGES[experiment.method.options['stage']]})",
        curves=read_curves(RunFolder(experiment.run_dir).curves),
        scores={n: {key: value.numpy() for key, value in s.items()} for n, s in scores.items()},
        features=features,
        labels=sets["test"].tensors["labels"].numpy() if "test" in sets else np.empty(0, np.int64),
        outliers=_points(outliers),
        columns={} if outliers is None else {name: outliers.tensors[name].numpy() for name in _columns(outliers)},
        redraw=None if outliers is None else partial(redrawn, experiment),
        radii={name: found for name, found in radii.items() if found},
        auroc=stored_auroc(rows, set(chosen.options)),
        outlier_images=OutlierImages(experiment).load if trains_on_images else None,
        decoded_outliers=DecodedOutliers(experiment).load if experiment.decodes_outliers else None,
        classes=class_names(experiment) if classes_of(experiment) <= DISTINCT else (),
    )


def _radii(
    experiment: Experiment, options: str, scorer: str, scores: Mapping[str, Tensor], keys: Mapping[str, str], fit: str
) -> dict[str, np.ndarray]:
    """The local radii of one detector by set; none where they are not measured, or not asked for."""
    stored = read_thresholds(experiment.run_dir) if scorer in experiment.local_radius else []
    wanted = (scorer, options, experiment.id_rate, experiment.convention())
    limits = [r["threshold"] for r in stored if tuple(r[key] for key in THRESHOLD_KEY) == wanted]
    if not limits:
        return {}
    norms = load_norms(experiment.run_dir, scorer, options, keys, fit)
    return {
        name: local_radius(scores[name], norms[name], limits[-1], ood=name != "test").numpy()
        for name in scores
        if name in norms
    }


def beside(folder: Path, groups: Iterable[str]) -> RunMaterial:
    """Curves, features and outliers of a finished run in another folder, the newest of each set.

    Raises:
        RequestError: the folder holds none.
    """
    found = {name: newest for name in ("test", *groups) if (newest := _newest(folder / "features", name))}
    if "test" not in found:
        raise RequestError(f"figure beside={folder}: no features of a finished run in this folder (outputs/<run id>)")
    sets = {name: load_features(path) for name, path in found.items()}
    outliers = load_outliers(RunFolder(folder).outliers)
    return RunMaterial(
        label=folder.name,
        curves=read_curves(folder / "curves.jsonl"),
        scores={},
        auroc=stored_auroc(read_rows(folder)),
        features={name: extracted.features("method").features.numpy() for name, extracted in sets.items()},
        labels=sets["test"].tensors["labels"].numpy(),
        outliers=_points(outliers),
    )


def stored_auroc(
    rows: Sequence[Mapping[str, Any]], detectors: Collection[str] | None = None
) -> dict[str, dict[str, float]]:
    """By detector and OOD set what was stored last."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        name = row["scorer"]
        if row["metric"] == "auroc" and name is not None and (detectors is None or name in detectors):
            found.setdefault(name, {})[row["ood_set"]] = row["value"]
    return found


def _points(outliers: Extracted | None) -> np.ndarray | None:
    return None if outliers is None else outliers.features("method").features.numpy()


def _newest(folder: Path, name: str) -> Path | None:
    files = [file for file in folder.glob("*.safetensors") if file.stem.rpartition("-")[0] == short_name(name)]
    return max(files, key=lambda path: path.stat().st_mtime, default=None)


def _columns(outliers: Extracted) -> list[str]:
    """The further numbers of each point."""
    return [name for name in outliers.tensors if name not in ("features", "logits", "projection", "labels")]


def _write_csv(experiment: Experiment) -> None:
    rows = read_curves(RunFolder(experiment.run_dir).curves)
    write_atomically(experiment.run_dir / "curves.csv", as_csv(rows))

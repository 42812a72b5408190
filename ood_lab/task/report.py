"""The table and the report of what is stored; no network runs."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from torch import Tensor

from ood_lab.config import Request, RequestError
from ood_lab.evaluation.evaluator import load_norms, load_scores
from ood_lab.evaluation.extract import Extracted, features_path, load_features
from ood_lab.evaluation.radius import local_radius
from ood_lab.figure.base import as_csv, files_of
from ood_lab.progress import track
from ood_lab.results.material import SYNTHESIZED, Material, RunMaterial
from ood_lab.results.page import render_page
from ood_lab.results.store import THRESHOLD_KEY, Results, read_rows, read_thresholds
from ood_lab.results.table import STAGES, Selection, lines
from ood_lab.run_dir import normalised
from ood_lab.storage import short_name, write_atomically
from ood_lab.task.build import build
from ood_lab.task.callbacks import read_curves
from ood_lab.task.features import load_outliers, redrawn
from ood_lab.task.shown import caption, show, stored


def run(request: Request) -> Results:
    """Print the table and write report.html again.

    Raises:
        RequestError: there is nothing stored yet.
    """
    if not read_rows(request.run_dir):
        raise RequestError(
            f"{request.run_id} has no results in {request.run_dir}; run the same command without task=report"
        )
    request = normalised(request) or request
    results = stored(request)
    if not lines(results, Selection.of(request)):
        raise RequestError(
            f"{request.run_id} has results, but none for these detectors, images and protocol options "
            f"({request.convention()}); task=evaluate makes them"
        )
    write(request, results)
    show(request, results)
    return results


def write(request: Request, results: Results) -> list[dict[str, Any]]:
    """Draw the figures (also kept as PNG, PDF and CSV files) and write report.html.

    Returns:
        title, caption and PNG of each figure.
    """
    if request.cfg.logger.name == "csv":
        _write_csv(request)
    material = gather(request)
    kinds = (request.composed.plain("figure") or {}).items()
    figures = []
    for name, node in track(list(kinds), "draw"):
        kind = build(node)
        others = [beside(Path(folder), request.groups) for folder in kind.beside]
        drawn = kind.draw(material._replace(runs=[*material.runs[:-1], *others, material.runs[-1]]))
        if drawn is not None:
            files = files_of(drawn)
            for end, content in files.items():
                write_atomically(request.run_dir / "figures" / f"{name}.{end}", content)
            figures.append({"title": kind.title, "caption": kind.caption, "png": files["png"]})
    about = {
        "caption": [*caption(request, results), f"AUPR: {request.cfg.protocol.aupr_rule.replace('_', ' ')}"],
        "command": f"python -m ood_lab {shlex.join(request.overrides)}",
        "config": OmegaConf.to_yaml(request.cfg, resolve=True),
    }
    page = render_page(results, Selection.of(request), figures, about)
    write_atomically(request.run_dir / "report.html", page.encode())
    return figures


def gather(request: Request) -> Material:
    """Curves, scores and features of a run and of those it depends on."""
    runs = (*_ancestors(request), request)
    return Material([_run_material(r, Selection.of(request)) for r in runs], request.groups)


def _ancestors(request: Request) -> list[Request]:
    return [r for need in request.needs for r in (*_ancestors(need), need)]


def _run_material(request: Request, chosen: Selection) -> RunMaterial:
    rows = read_rows(request.run_dir)
    keys, fits = chosen.feature_keys(rows), chosen.fits(rows)
    outliers = load_outliers(request.run_dir)
    paths = {name: features_path(request.run_dir, name, key) for name, key in keys.items()}
    sets = {name: load_features(path) for name, path in paths.items() if path.is_file()}
    features = {name: extracted.features("method").features.numpy() for name, extracted in sets.items()}
    scored = keys if outliers is None else {**keys, SYNTHESIZED: outliers.key}
    loaded = {
        name: load_scores(request.run_dir, name, text, scored, fits[name])
        for name, text in chosen.options.items()
        if fits.get(name)
    }
    scores = {name: found for name, found in loaded.items() if "test" in found}
    radii = {
        name: _radii(request, chosen.options[name], name, found, keys, fits[name]) for name, found in scores.items()
    }
    return RunMaterial(
        label=f"{request.composed.choices['method']} ({STAGES[request.cfg.method.stage]})",
        curves=read_curves(request.run_dir / "curves.jsonl"),
        scores={n: {key: value.numpy() for key, value in s.items()} for n, s in scores.items()},
        features=features,
        labels=sets["test"].tensors["labels"].numpy() if "test" in sets else np.empty(0, np.int64),
        outliers=_points(outliers),
        columns={} if outliers is None else {name: outliers.tensors[name].numpy() for name in _columns(outliers)},
        redraw=None if outliers is None else partial(redrawn, request),
        radii={name: found for name, found in radii.items() if found},
    )


def _radii(
    request: Request, options: str, scorer: str, scores: Mapping[str, Tensor], keys: Mapping[str, str], fit: str
) -> dict[str, np.ndarray]:
    """The local radii of one detector by set; none where they are not measured, or not asked for."""
    stored = read_thresholds(request.run_dir) if scorer in request.cfg.local_radius else []
    wanted = (scorer, options, request.cfg.id_rate, request.convention())
    limits = [r["threshold"] for r in stored if tuple(r[key] for key in THRESHOLD_KEY) == wanted]
    if not limits:
        return {}
    norms = load_norms(request.run_dir, scorer, options, keys, fit)
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
    outliers = load_outliers(folder)
    return RunMaterial(
        label=folder.name,
        curves=read_curves(folder / "curves.jsonl"),
        scores={},
        features={name: extracted.features("method").features.numpy() for name, extracted in sets.items()},
        labels=sets["test"].tensors["labels"].numpy(),
        outliers=_points(outliers),
    )


def _points(outliers: Extracted | None) -> np.ndarray | None:
    return None if outliers is None else outliers.features("method").features.numpy()


def _newest(folder: Path, name: str) -> Path | None:
    files = [file for file in folder.glob("*.safetensors") if file.stem.rpartition("-")[0] == short_name(name)]
    return max(files, key=lambda path: path.stat().st_mtime, default=None)


def _columns(outliers: Extracted) -> list[str]:
    """The further numbers of each point."""
    return [name for name in outliers.tensors if name not in ("features", "logits", "projection", "labels")]


def _write_csv(request: Request) -> None:
    rows = read_curves(request.run_dir / "curves.jsonl")
    write_atomically(request.run_dir / "curves.csv", as_csv(rows))

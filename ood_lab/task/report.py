"""The table and the report of what is stored; nothing is computed."""

from __future__ import annotations

import csv
import io
import shlex
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from ood_lab.config import Request, RequestError
from ood_lab.evaluation.evaluator import load_scores
from ood_lab.evaluation.extract import features_path, load_features
from ood_lab.progress import track
from ood_lab.results.material import Material, RunMaterial
from ood_lab.results.page import png, render_page
from ood_lab.results.store import Results, read_rows
from ood_lab.results.table import STAGES, Selection, lines
from ood_lab.run_dir import OUTLIERS, normalised
from ood_lab.storage import write_atomically
from ood_lab.task.build import build
from ood_lab.task.callbacks import read_curves
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
            f"{request.run_id} has results, but none of these detectors on these images as the protocol counts them "
            f"({request.convention()}); task=evaluate makes them"
        )
    write(request, results)
    show(request, results)
    return results


def write(request: Request, results: Results) -> list[dict[str, Any]]:
    """Draw the figures (also kept as PNG files) and write report.html; gives title, caption and PNG of each figure."""
    if request.cfg.logger.name == "csv":
        _write_csv(request)
    material = gather(request)
    kinds = (request.composed.plain("figure") or {}).items()
    figures = []
    for name, node in track(list(kinds), "draw"):
        kind = build(node)
        drawn = kind.draw(material)
        if drawn is not None:
            picture = png(drawn)
            write_atomically(request.run_dir / "figures" / f"{name}.png", picture)
            figures.append({"title": kind.title, "caption": kind.caption, "png": picture})
    about = {
        "caption": [*caption(request, results), f"AUPR: {request.cfg.protocol.aupr_rule.replace('_', ' ')}"],
        "command": f"python -m ood_lab {shlex.join(request.overrides)}",
        "config": OmegaConf.to_yaml(request.cfg, resolve=True),
    }
    page = render_page(results, Selection.of(request), figures, about)
    write_atomically(request.run_dir / "report.html", page.encode())
    return figures


def gather(request: Request) -> Material:
    """Curves, scores and features of a run and of those it stands on."""
    runs = (*_ancestors(request), request)
    return Material([_run_material(r, Selection.of(request)) for r in runs], request.groups)


def _ancestors(request: Request) -> list[Request]:
    return [r for need in request.needs for r in (*_ancestors(need), need)]


def _run_material(request: Request, chosen: Selection) -> RunMaterial:
    keys = chosen.feature_keys(read_rows(request.run_dir))
    paths = {name: features_path(request.run_dir, name, key) for name, key in keys.items()}
    sets = {name: load_features(path) for name, path in paths.items() if path.is_file()}
    features = {name: extracted.features("method").features.numpy() for name, extracted in sets.items()}
    fits = chosen.fits(read_rows(request.run_dir))
    loaded = {
        name: load_scores(request.run_dir, name, text, keys, fits[name])
        for name, text in chosen.options.items()
        if fits.get(name)
    }
    scores = {name: found for name, found in loaded.items() if "test" in found}
    outliers = request.run_dir / OUTLIERS
    return RunMaterial(
        label=f"{request.composed.choices['method']} ({STAGES[request.cfg.method.stage]})",
        curves=read_curves(request.run_dir / "curves.jsonl"),
        scores={n: {key: value.numpy() for key, value in s.items()} for n, s in scores.items()},
        features=features,
        labels=sets["test"].tensors["labels"].numpy() if "test" in sets else np.empty(0, np.int64),
        outliers=load_features(outliers).tensors["values"].numpy() if outliers.is_file() else None,
    )


def _write_csv(request: Request) -> None:
    rows = read_curves(request.run_dir / "curves.jsonl")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(request.run_dir / "curves.csv", text.getvalue().encode())

"""What an experiment asks of its run that is not stored yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from ood_lab.config.detectors import TUNED
from ood_lab.config.experiment import Experiment
from ood_lab.errors import RequestError
from ood_lab.results.search import read_search, search_path
from ood_lab.results.store import options_text, radius_metric, read_rows, read_thresholds
from ood_lab.runs import production
from ood_lab.runs.run_folder import RunFolder
from ood_lab.runs.run_images import RunImages

READS_A_CLASSIFIER = ("evaluate", "export")  # tasks that train nothing


def outstanding(experiment: Experiment) -> bool:
    """Whether anything that the experiment asks of its run is still to be done."""
    if experiment.produces:
        return not production.is_made(experiment)
    if experiment.makes_no_classifier:
        return not RunFolder(experiment.run_dir).done.is_file()
    return not RunFolder(experiment.run_dir).done.is_file() or bool(unscored(experiment))


def is_made(experiment: Experiment) -> bool:
    """Whether what other runs read of it is there: its final weights, or its set."""
    return production.is_made(experiment) if experiment.produces else RunFolder(experiment.run_dir).is_trained


def check_trained(experiment: Experiment) -> None:
    """What reads a classifier needs one.

    Raises:
        RequestError: the run is not trained yet.
    """
    if not is_made(experiment):
        raise RequestError(f"{experiment.run_id} is not trained yet; run the same command with task=train first")


def unscored(experiment: Experiment) -> list[str]:
    """The detectors that lack a row on some set of the protocol, by its conventions, or their threshold.

    What was measured on other images than lie there today doesn't count.
    """
    images, detectors, convention = RunImages(experiment), experiment.detectors, experiment.convention()
    of_today = cache(images.are_of)
    stored = read_rows(experiment.run_dir)
    for metric in ("accuracy", "compactness"):
        tested = [r["features"] for r in stored if r["metric"] == metric and r["convention"] == convention]
        if not any(of_today("test", key) for key in tested):
            return list(detectors)
    sets = {name: experiment.convention(name) for name in experiment.ood_sets}
    rows = {
        (r["scorer"], r["options"], r["ood_set"], r["convention"])
        for r in stored
        if r["ood_set"] in sets and of_today(r["ood_set"], r["features"])
    }
    limits = {
        (r["scorer"], r["options"], r["id_rate"], r["convention"])
        for r in read_thresholds(experiment.run_dir)
        if of_today(images.source(r["held"]), r["features"])
    }
    if not all((None, None, name, of_set) in rows for name, of_set in sets.items()):  # its separation
        return list(detectors)
    metric = radius_metric(experiment.id_rate)
    radii = {
        (r["scorer"], r["options"], r["ood_set"], r["convention"])
        for r in stored
        if r["metric"] == metric
        and (r["ood_set"] is None or r["ood_set"] in sets)
        and of_today(r["ood_set"] or "test", r["features"])
    }
    missing = []
    for name, node in detectors.items():
        text = options_text(node)
        without_radius = not all((name, text, *where) in radii for where in ((None, convention), *sets.items()))
        everywhere = all((name, text, ood_set, of_set) in rows for ood_set, of_set in sets.items())
        if (
            not everywhere
            or not _tuned_on(experiment, name, node, of_today)
            or (name, text, experiment.id_rate, convention) not in limits
            or (name in experiment.local_radius and without_radius)
        ):
            missing.append(name)
    return missing


def _tuned_on(experiment: Experiment, name: str, node: Mapping[str, Any], of_today: Callable[[str, str], bool]) -> bool:
    """Whether a detector's options were searched, if at all, on the validation images that lie there today."""
    if TUNED not in node:
        return True
    keys = read_search(search_path(experiment.run_dir, name, node)).get("features", {})
    return all(ood_set in keys and of_today(ood_set, keys[ood_set]) for ood_set in node[TUNED]["sets"])

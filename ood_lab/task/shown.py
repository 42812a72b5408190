"""The table of what is stored, as a command ends with it; without torch and without pictures."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, replace
from datetime import datetime

from ood_lab.config.experiment import Experiment
from ood_lab.config.objective import caveats
from ood_lab.config.prerequisites import INIT
from ood_lab.progress import stdout
from ood_lab.results.caption import (
    accuracy_lines,
    changed_line,
    outlier_lines,
    protocol_lines,
    training_lines,
    tuning_lines,
)
from ood_lab.results.curves import read_curves
from ood_lab.results.render import terminal_table
from ood_lab.results.store import PAGE, Results, read_rows, read_thresholds
from ood_lab.results.table import Selection, lines
from ood_lab.runs.claim import verify, with_stored_normalisation
from ood_lab.runs.outstanding import is_made, outstanding
from ood_lab.runs.run_folder import RunFolder
from ood_lab.runs.run_images import RunImages

WIDTH = 80  # of a note


def finished(experiment: Experiment) -> Results | None:
    """Show a run of which nothing is outstanding, nor of those it depends on; None where something is.

    Raises:
        RequestError: see `verify`.
    """
    if not _is_finished(experiment):
        return None
    experiment = with_stored_normalisation(experiment) or experiment
    results = stored(experiment)
    made = datetime.fromtimestamp(RunFolder(experiment.run_dir).weights.stat().st_mtime).astimezone()
    unlogged = "" if experiment.logger.name == "csv" else f", nor logged to {experiment.logger.name}"
    print(
        f"{experiment.run_id}: already finished (trained {made:%Y-%m-%d %H:%M}); nothing is made{unlogged}", flush=True
    )
    show(experiment, results)
    return results


def _is_finished(experiment: Experiment) -> bool:
    if not is_made(experiment):
        return False
    verify(experiment)
    # A set that it was trained on, or a generator, has no rows to show: it may have been deleted since.
    measured = (other for other in experiment.prerequisites.values() if not other.makes_no_classifier)
    return not outstanding(experiment) and all(map(_is_finished, measured))


def stored(experiment: Experiment) -> Results:
    """What a run and those it depends on have in store."""
    below = [stored(other) for other in experiment.prerequisites.values()]
    return Results(experiment.run_id, experiment.run_dir, read_rows(experiment.run_dir), below)


def show(experiment: Experiment, results: Results) -> None:
    """The last thing a command prints."""
    page = experiment.run_dir / PAGE
    if page.is_file():
        bare = "" if b"<img" in page.read_bytes() else " (without pictures; task=report draws them)"
        stdout.print(f"report: {page}{bare}\n", highlight=False, markup=False)
    asked = Selection.of(experiment)
    below, note = caption(experiment, results), notes(experiment)
    results.lines, results.caption = lines(results, asked), [*below, *note]
    results.selection = asked
    wrapped = [line for text in note for line in textwrap.wrap(text, WIDTH)]
    stdout.print(terminal_table(results.lines, [*below, *wrapped]))


def caption(experiment: Experiment, results: Results) -> list[str]:
    """The resolved protocol, and which of its sets are not as stated."""
    selection, protocol = Selection.of(experiment), experiment.protocol
    limits = [row for row in read_thresholds(experiment.run_dir) if row["convention"] == experiment.convention()]
    held = limits[-1]["n_id"] if limits and limits[-1]["held"] == "val" else None
    if held is not None:
        protocol = replace(protocol, id_val=held)  # as many as there were: each class gives the same number
    if experiment.normalisation is not None:
        protocol = replace(protocol, **asdict(experiment.normalisation))
    own = held if protocol.id_val and "val" in experiment.use("id").splits else None
    tuned = [line for line in lines(results, selection) if line.tuned]
    chosen = {f"{line.scorer} ({line.method})": line.tuned or {} for line in tuned}
    partial, shared = selection.partial(results.rows), selection.overlapping(results.all_rows())
    return [
        *protocol_lines(protocol, experiment.groups_of_sets, partial, own, shared),
        *changed_line(*_changed(experiment, results)),
        *tuning_lines(protocol.validation, chosen),
        *training_lines(experiment, {key for row in read_curves(RunFolder(experiment.run_dir).curves) for key in row}),
        *accuracy_lines(selection.accuracy(results.rows), *_compared(experiment, results)),
        *outlier_lines(experiment, results.rows),
        *caveats(experiment),
    ]


def notes(experiment: Experiment) -> list[str]:
    """What the request itself says about its table; the last lines of the caption."""
    return [] if experiment.note is None else [experiment.note]


def _compared(experiment: Experiment, results: Results) -> tuple[int | None, float | None]:
    """The number of ID classes, and the ID accuracy of the classifier that the run began with, where it is known."""
    below = experiment.prerequisites.get(INIT)
    before = next((r for r in results.needed if below is not None and r.run_id == below.run_id), None)
    accuracy = None if before is None or below is None else Selection.of(below).accuracy(before.rows)
    return experiment.dataset.recipe.num_classes, accuracy


def _changed(experiment: Experiment, results: Results) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """The sets that were scored again on other images, with their numbers then and now; and those that were not yet."""
    images = RunImages(experiment)
    keys = {name: key for name, key in Selection.of(experiment).feature_keys(results.rows).items() if key}
    limits = [row for row in read_thresholds(experiment.run_dir) if row["convention"] == experiment.convention()]
    if limits and limits[-1]["held"] == "val" and images.source("val") == "val":
        keys["val"] = limits[-1]["features"]
    found = {name: images.record.changed(images.source(name), key) for name, key in keys.items()}
    behind = [
        n for n, k in keys.items() if images.record.knows(images.source(n)) and not images.are_of(images.source(n), k)
    ]
    return {name: counts for name, counts in found.items() if counts is not None}, behind

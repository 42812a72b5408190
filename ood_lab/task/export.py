"""The scores of a finished run in OpenOOD's layout."""

from __future__ import annotations

from pathlib import Path

from ood_lab.config.experiment import Experiment
from ood_lab.errors import RequestError
from ood_lab.evaluation.scores import load_scores
from ood_lab.files.storage import write_atomically
from ood_lab.progress import stdout
from ood_lab.results.openood import Scored, postprocessor, score_file
from ood_lab.results.store import Results, options_text, read_rows
from ood_lab.results.table import Selection
from ood_lab.runs.claim import with_stored_normalisation
from ood_lab.task.features import Features
from ood_lab.task.report import stored


def run(experiment: Experiment) -> Results:
    """Write `openood/s<seed>/scores/<postprocessor>.pkl` into the run's directory, for each detector that was scored.

    `openood` is what OpenOOD's `scripts/eval_ood.py` calls the root.

    Raises:
        RequestError: a detector has no scores on some set of the protocol yet.
    """
    experiment = with_stored_normalisation(experiment) or experiment
    features = Features(experiment)
    sets = [name for name in features.id_splits if name != "train"] + list(experiment.ood_sets)
    keys = {name: features.key(name) for name in sets}
    folder = experiment.run_dir / "openood" / f"s{experiment.seed}" / "scores"
    fits = Selection.of(experiment).fits(read_rows(experiment.run_dir))
    files: dict[str, tuple[Path, bytes]] = {}  # none is written before all can be
    for name, node in experiment.detectors.items():
        scores = load_scores(experiment.run_dir, name, options_text(node), keys, fits.get(name, ""))
        missing = [key for key in sets if key not in scores]
        if missing:
            raise RequestError(
                f"{name} has no scores of {', '.join(missing)} yet; run the same command with task=evaluate first"
            )
        scored = {}
        for key in sets:
            tensors = features.of(key).tensors
            predicted = tensors["logits"].argmax(1).numpy()
            scored[key] = Scored(scores[key].numpy(), predicted, tensors["labels"].numpy())
        of_sets = experiment.groups_of_sets
        groups = {group: {s: scored[s] for s, own in of_sets.items() if own == group} for group in ("near", "far")}
        files[name] = folder / f"{postprocessor(name)}.pkl", score_file(scored["test"], scored.get("val"), groups)
    for name, (path, content) in files.items():
        write_atomically(path, content)
        stdout.print(f"{name}: {path}", highlight=False, markup=False)
    return stored(experiment)

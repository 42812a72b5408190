"""The scores of a finished run in OpenOOD's layout."""

from __future__ import annotations

from ood_lab.config import Request, RequestError
from ood_lab.evaluation.evaluator import load_scores
from ood_lab.progress import stdout
from ood_lab.results.openood import Scored, postprocessor, score_file
from ood_lab.results.store import Results, options_text, read_rows
from ood_lab.results.table import Selection
from ood_lab.run_dir import is_trained, normalised
from ood_lab.storage import write_atomically
from ood_lab.task.features import Features
from ood_lab.task.report import stored


def run(request: Request) -> Results:
    """Write `openood/s<seed>/scores/<postprocessor>.pkl` into the run's directory, for each detector that was scored.

    `openood` is what OpenOOD's `scripts/eval_ood.py` calls the root.

    Raises:
        RequestError: the run, or a detector on some set of the protocol, isn't there yet.
    """
    if not is_trained(request):
        raise RequestError(f"{request.run_id} is not trained yet; run the same command with task=train first")
    request = normalised(request) or request
    features = Features(request)
    sets = [name for name in features.id_splits if name != "train"] + list(request.ood_sets)
    keys = {name: features.key(name) for name in sets}
    folder = request.run_dir / "openood" / f"s{request.cfg.seed}" / "scores"
    fits = Selection.of(request).fits(read_rows(request.run_dir))
    for name, node in request.scorers.items():
        scores = load_scores(request.run_dir, name, options_text(node), keys, fits.get(name, ""))
        lacking = [key for key in sets if key not in scores]
        if lacking:
            raise RequestError(
                f"{name} has no scores of {', '.join(lacking)} yet; run the same command with task=evaluate first"
            )
        scored = {}
        for key in sets:
            tensors = features.of(key).tensors
            predicted = tensors["logits"].argmax(1).numpy()
            scored[key] = Scored(scores[key].numpy(), predicted, tensors["labels"].numpy())
        groups = {g: {s: scored[s] for s in request.ood_sets if request.groups[s] == g} for g in ("near", "far")}
        path = folder / f"{postprocessor(name)}.pkl"
        write_atomically(path, score_file(scored["test"], scored.get("val"), groups))
        stdout.print(f"{name}: {path}", highlight=False, markup=False)
    return stored(request)

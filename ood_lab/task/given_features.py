"""Every detector, metric and report for features of any network: `ood_lab.evaluate`, `task=evaluate features=FILE`."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ood_lab.config.check import check_output
from ood_lab.config.detectors import as_declared
from ood_lab.config.features_request import EvaluationOptions, FeaturesRequest, evaluation_options
from ood_lab.config.groups import config_folder
from ood_lab.errors import RequestError
from ood_lab.evaluation.evaluator import Scoring
from ood_lab.evaluation.features_file import read_features_file
from ood_lab.evaluation.given_features import GivenFeatures
from ood_lab.plural import counted
from ood_lab.progress import stdout
from ood_lab.results.caption import fpr95_lines
from ood_lab.results.render import terminal_table
from ood_lab.results.store import PAGE, Results, options_text, read_rows
from ood_lab.scorer import build_scorer
from ood_lab.task.build import build
from ood_lab.task.features_evaluation import Evaluation


def run(request: FeaturesRequest) -> Results:
    """Evaluate the features of a file, and show the table.

    Raises:
        RequestError: what the file holds does not fit together, or a detector that was named can't use it.
    """
    held = read_features_file(request.path)
    try:
        given = GivenFeatures(held.sets["train"], held.sets["test"], held.ood, held.head or None, held.sets.get("val"))
    except RequestError as error:
        raise RequestError(f"{request.path}: {error}") from None
    options = request.options
    evaluation = Evaluation(
        name=request.path.stem,
        given=given,
        near=held.near,
        detectors={name: build(node) for name, node in options.detectors.items()},
        options={name: options_text(node) for name, node in options.detectors.items()},
        scoring=_scoring(options),
        id_rate=options.id_rate,
        caption=fpr95_lines(options.protocol.fpr_rule),
        named=any(text.startswith("scorer=") for text in request.typed) and "scorer=all" not in request.typed,
    )
    folder = request.output / evaluation.run_id
    stored = {(row["scorer"], row["options"]) for row in read_rows(folder)}
    usable = [name for name, scorer in evaluation.detectors.items() if given.lacks(scorer) is None]
    known = [name for name in usable if (name, evaluation.options[name]) in stored]
    if known:
        asked = counted(len(usable), "detector")
        print(f"{evaluation.run_id}: {len(known)} of {asked} were scored before", flush=True)
    results = evaluation.measure(folder)
    command = f"python -m ood_lab {shlex.join(request.overrides)}"
    evaluation.report(results, options.figures, command, options.as_yaml(features=str(request.path)))
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
        scorer: "all", names, or options by name: `{"knn": {"k": 10}, "mcm": {}}`. Of "all" those that can't use these
            features are left out, which is said; one that is named is refused.
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
    asked = _options(scorer, protocol, id_rate, bootstrap, folder)
    given = GivenFeatures(train, test, ood, head, val)
    near = [near] if isinstance(near, str) else list(near)
    unknown = [one for one in near if one not in ood]
    if unknown:
        raise RequestError(f"near={unknown}: no such OOD set; there are {', '.join(ood)}")
    own = scorer if isinstance(scorer, Mapping) else {}
    detectors, options = {}, {}
    for found, node in asked.detectors.items():
        stated = own.get(found) or {}
        detectors[found] = build_scorer(found, config_dir=folder, **stated) if stated else build(node)
        options[found] = options_text(as_declared({**node, **stated}))
    evaluation = Evaluation(
        name=name,
        given=given,
        near=near,
        detectors=detectors,
        options=options,
        scoring=_scoring(asked),
        id_rate=asked.id_rate,
        caption=fpr95_lines(asked.protocol.fpr_rule),
        named=scorer != "all",
    )
    if output is None:
        with tempfile.TemporaryDirectory() as temporary:
            results = evaluation.measure(Path(temporary))
        results.run_dir = Path()
        return results
    check_output(Path(output).expanduser())
    results = evaluation.measure(Path(output).expanduser().absolute() / evaluation.run_id)
    evaluation.report(results, asked.figures, f"ood_lab.evaluate(..., name={name!r})", asked.as_yaml())
    return results


def _scoring(options: EvaluationOptions) -> Scoring:
    protocol = options.protocol
    return Scoring(protocol.fpr_rule, protocol.aupr_rule, protocol.subset, protocol.draws, options.bootstrap)


def _options(scorer: Any, protocol: str, id_rate: float, bootstrap: int, folder: Path | None) -> EvaluationOptions:
    """The same as of a command line, checked in the same way."""
    names = scorer if isinstance(scorer, str) else f"[{','.join(scorer)}]"
    named = f"scorer={names if names == 'all' or names.startswith('[') else f'[{names}]'}"
    return evaluation_options([named, f"protocol={protocol}", f"id_rate={id_rate}", f"bootstrap={bootstrap}"], folder)

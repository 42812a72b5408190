"""What a run minimises, in one line, and the parts that it is made of; nothing is imported for it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from ood_lab.config.compose import choices_of
from ood_lab.config.experiment import Experiment, Part
from ood_lab.config.groups import PART_GROUPS, TRAINED_ON, built_in_groups, config_file
from ood_lab.config.identity import part_name, part_names
from ood_lab.config.parts import TERM_GROUPS
from ood_lab.config.quoting import as_override
from ood_lab.config.recipe import METHOD


def objective(experiment: Experiment) -> str:
    """Such as "ce + 0.5 compactness + dispersion + 0.1 equidistant(hmc, bank of 1000 a class; from epoch 10)"."""
    if experiment.method.target != METHOD:
        return f"{experiment.method.choice} (a training loop of its own)"
    terms = " + ".join(text for part in experiment.parts if (text := _summand(part, experiment)))
    if experiment.mixing is None or experiment.pictures is None:
        return terms
    return f"{terms}, on ID images mixed with {experiment.pictures.name} ({_name(experiment.mixing)})"


def _summand(part: Part, experiment: Experiment) -> str:
    if part.group not in TERM_GROUPS or part.get("weight", 1) == 0 or part.declared.get("watched"):
        return ""
    weight = part.get("weight", 1)
    inner = {name: part.options[f"w_{name}"] for name in part.declared.get("scalars", ())} or {_name(part): 1}
    scalars = [f"{_factor(weight * value)}{name}" for name, value in inner.items() if value]
    if not scalars:
        return ""
    notes = []
    if part.declared.get("reads_outliers"):
        notes = [_source(experiment)]
    elif part.declared.get("waits_for_outliers"):
        notes = [f"no outliers, but waits for {_source(experiment)}"]
    text = " + ".join(scalars)
    details = "; ".join(note for note in (*notes, _schedule(part)) if note)
    if not details:
        return text
    return f"{text}({details})" if len(scalars) == 1 else f"({text}; {details})"


def _name(part: Part) -> str:
    return part_name(part.group, part.target).rpartition(".")[2].lower()


def _factor(weight: float) -> str:
    return "" if weight == 1 else f"{weight:.4g} "


def _schedule(part: Part) -> str:
    start, end = part.get("start", 0), part.get("end")
    times = [f"from {_moment(start)}"] if start else []
    times += [f"to {_moment(end)}"] if end is not None else []
    return " ".join(times)


def _moment(moment: float) -> str:
    return f"epoch {moment}" if isinstance(moment, int) else f"{100 * moment:g} % of the run"


def _source(experiment: Experiment) -> str:
    """Where outliers come from."""
    if experiment.synthesizer is not None:
        size = experiment.synthesizer.get("bank_size")
        return _name(experiment.synthesizer) + (f", bank of {size} a class" if size is not None else "")
    if experiment.auxiliary is None:
        return ""
    ways = [_name(part) for part in (experiment.selector, experiment.perturbation) if part is not None]
    return ", ".join([f"images of {experiment.auxiliary.name}", *ways])


def caveats(experiment: Experiment) -> list[str]:
    """What every result must say of parts that are not what their papers have."""
    makers = [run.maker for run in experiment.with_prerequisites() if run.maker is not None]
    found = [str(part.declared["caveat"]) for part in (*experiment.parts, *makers) if part.declared.get("caveat")]
    return list(dict.fromkeys(found))


def part_columns(experiment: Experiment) -> dict[str, str | None]:
    """The parts by group, as they are in stored rows."""
    names = part_names(experiment)
    columns: dict[str, str | None] = {group: "+".join(names.get(group, ())) or None for group in PART_GROUPS}
    for role in TRAINED_ON:
        columns[role] = next((part.name for part in experiment.other_training_sets if part.group == role), None)
    return {**columns, "objective": objective(experiment)}


def described(experiment: Experiment) -> str:
    """A recipe for people: what its file says at the top, what it minimises, and each part with its options."""
    name, folder = experiment.method.choice, experiment.config_dir
    lines = [f"method={name}", *_header("method", name, folder), "", f"minimises {objective(experiment)}", ""]
    for part in experiment.parts:
        lines += [
            f"{part.group}={part.choice}  {part.target}",
            *_header(part.group, part.choice, folder),
            f"    {_options(part.options)}",
        ]
    optimizer = experiment.method.options["optimizer"]
    return "\n".join([*lines, f"method.optimizer  {optimizer['_target_']}", f"    {_options(optimizer)}"])


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={as_override(value)}" for key, value in options.items() if key != "_target_")


def _header(group: str, name: str, folder: Path | None) -> list[str]:
    """The comment at the top of a file of the configuration."""
    path = config_file(group, name, folder)
    found = path.read_text().splitlines() if path is not None else []
    comments = list(takewhile(lambda line: line.startswith("#"), found))
    return [f"    {line[2:]}" for line in comments if not line.startswith("# @package")]


# The README's table: what each recipe is.


def method_table() -> str:
    """*method = parts* of every built-in recipe, as a Markdown table."""
    rows = ["| method | ID terms | outliers | term on outliers | besides |", "|---|---|---|---|---|"]
    for name in sorted(built_in_groups()["method"]):
        chosen = {"id_loss": ["ce"], **choices_of("method", name)}
        ways = [*chosen.get("selector", []), *chosen.get("perturbation", [])]
        sources = chosen.get("synthesizer") or (["auxiliary images"] if chosen.get("outlier_loss") else [])
        heads = [head for head in chosen.get("head", []) if head != "linear"]
        besides = [*chosen.get("regularizer", []), *heads, *chosen.get("mixing", [])]
        cells = [
            f"`{name}`",
            ", ".join(f"`{term}`" for term in chosen["id_loss"]),
            ", ".join([*(s if " " in s else f"`{s}`" for s in sources), *(f"`{way}`" for way in ways)]),
            ", ".join(f"`{term}`" for term in chosen.get("outlier_loss", [])),
            ", ".join(f"`{part}`" for part in besides),
        ]
        rows.append("| " + " | ".join(cell or "-" for cell in cells) + " |")
    return "\n".join(rows)

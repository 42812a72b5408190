"""What a run minimises, in one line, and the parts that it is made of; nothing is imported for it."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import Any

from ood_lab.config.compose import Composed, choices_of
from ood_lab.config.groups import PART_GROUPS, built_in_groups, config_file
from ood_lab.config.identity import nodes_of, part_name
from ood_lab.config.parts import TERM_GROUPS, Part, chosen_parts
from ood_lab.config.quoting import in_words
from ood_lab.config.recipe import METHOD


def objective(composed: Composed) -> str:
    """Such as "ce + 0.5 compactness + dispersion + 0.1 equidistant(hmc, bank of 1000 a class; from epoch 10)"."""
    if composed.plain("method._target_") != METHOD:
        return f"{composed.choices['method']} (a training loop of its own)"
    return " + ".join(text for part in chosen_parts(composed) if (text := _summand(part, composed)))


def _summand(part: Part, composed: Composed) -> str:
    if part.group not in TERM_GROUPS or part.node.get("weight", 1) == 0 or part.declared.get("watched"):
        return ""
    weight = part.node.get("weight", 1)
    inner = {name: part.node[f"w_{name}"] for name in part.declared.get("scalars", ())} or {_name(part): 1}
    scalars = [f"{_factor(weight * value)}{name}" for name, value in inner.items() if value]
    if not scalars:
        return ""
    notes = []
    if part.declared.get("reads_outliers"):
        notes = [_source(composed)]
    elif part.declared.get("waits_for_outliers"):
        notes = [f"no outliers, but waits for {_source(composed)}"]
    text = " + ".join(scalars)
    told = "; ".join(note for note in (*notes, _schedule(part.node)) if note)
    if not told:
        return text
    return f"{text}({told})" if len(scalars) == 1 else f"({text}; {told})"


def _name(part: Part) -> str:
    return part_name(part.group, str(part.node["_target_"])).rpartition(".")[2].lower()


def _factor(weight: float) -> str:
    return "" if weight == 1 else f"{weight:.4g} "


def _schedule(node: dict[str, Any]) -> str:
    start, end = node.get("start", 0), node.get("end")
    times = [f"from {_moment(start)}"] if start else []
    times += [f"to {_moment(end)}"] if end is not None else []
    return " ".join(times)


def _moment(moment: float) -> str:
    return f"epoch {moment}" if isinstance(moment, int) else f"{100 * moment:g} % of the run"


def _source(composed: Composed) -> str:
    """Where outliers come from."""
    synthesizer, auxiliary = composed.plain("synthesizer"), composed.plain("auxiliary")
    if synthesizer is not None:
        bank = f", bank of {synthesizer['bank_size']} a class" if "bank_size" in synthesizer else ""
        return f"{_part_text(composed, 'synthesizer')}{bank}"
    if auxiliary is None:
        return ""
    ways = [_part_text(composed, group) for group in ("selector", "perturbation") if composed.plain(group)]
    return ", ".join([f"images of {auxiliary['name']}", *ways])


def _part_text(composed: Composed, group: str) -> str:
    return part_name(group, str(composed.plain(f"{group}._target_"))).rpartition(".")[2].lower()


def caveats(composed: Composed) -> list[str]:
    """What every result must say of parts that are not what their papers have."""
    return [str(part.declared["caveat"]) for part in chosen_parts(composed) if part.declared.get("caveat")]


def part_columns(composed: Composed) -> dict[str, str | None]:
    """The parts by group, as they stand in stored rows."""
    columns: dict[str, str | None] = {}
    for group in PART_GROUPS:
        names = sorted(part_name(group, str(node["_target_"])) for node in nodes_of(composed, group))
        columns[group] = "+".join(names) or None
    auxiliary = composed.plain("auxiliary")
    columns["auxiliary"] = None if auxiliary is None else str(auxiliary["name"])
    return {**columns, "objective": objective(composed)}


def described(composed: Composed, folder: Path | None = None) -> str:
    """A recipe for people: what its file says at the top, what it minimises, and each part with its options."""
    name = str(composed.choices["method"])
    lines = [f"method={name}", *_header("method", name, folder), "", f"minimises {objective(composed)}", ""]
    for part in chosen_parts(composed):
        choice = part.path.partition(".")[2] or str(composed.choices[part.group])
        options = ", ".join(f"{key}={in_words(v)}" for key, v in part.node.items() if key != "_target_")
        lines += [
            f"{part.group}={choice}  {part.node['_target_']}",
            *_header(part.group, choice, folder),
            f"    {options}",
        ]
    optimizer = composed.plain("method.optimizer")
    options = ", ".join(f"{key}={in_words(v)}" for key, v in optimizer.items() if key != "_target_")
    return "\n".join([*lines, f"method.optimizer  {optimizer['_target_']}", f"    {options}"])


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
        besides = [*chosen.get("regularizer", []), *(h for h in chosen.get("head", []) if h != "linear")]
        cells = [
            f"`{name}`",
            ", ".join(f"`{term}`" for term in chosen["id_loss"]),
            ", ".join([*(s if " " in s else f"`{s}`" for s in sources), *(f"`{way}`" for way in ways)]),
            ", ".join(f"`{term}`" for term in chosen.get("outlier_loss", [])),
            ", ".join(f"`{part}`" for part in besides),
        ]
        rows.append("| " + " | ".join(cell or "-" for cell in cells) + " |")
    return "\n".join(rows)

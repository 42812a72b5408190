"""A checked request: the configuration, its run id and the runs it stands on, all without importing torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from ood_lab.config.check import check_groups, check_keys, check_machine, check_values, parse
from ood_lab.config.compose import Composed, compose, groups
from ood_lab.config.errors import RequestError
from ood_lab.config.identity import run_id, shaping_leaves
from ood_lab.config.image_sets import check_image_sets, quote

# What a needed run takes over from the run that needs it, besides its groups: the sizes of the same network, the
# same data, the same places and machine. Its own training (method, epochs, batch size, precision) it does not.
INHERITED = ("backbone.", "dataset.", "paths.", "protocol.", "scorer.", "logger.", "seed")
INHERITED_TRAINER = ("trainer.threads", "trainer.eval_batch_size", "trainer.accelerator", "trainer.checkpoint_minutes")
INHERITED_GROUPS = ("backbone", "dataset", "trainer", "protocol", "scorer", "logger")


@dataclass(frozen=True)
class Request:
    """One run, checked: nothing about it is left to be found wrong except by running it."""

    overrides: tuple[str, ...]
    composed: Composed
    run_id: str
    ood_sets: tuple[str, ...]
    needs: tuple[Request, ...]
    folder: Path | None = None

    @property
    def cfg(self) -> Any:
        return self.composed.cfg

    @property
    def run_dir(self) -> Path:
        return Path(self.cfg.paths.output).absolute() / self.run_id

    @property
    def leaves(self) -> dict[str, Any]:
        """The leaves that shape the weights; saved with the run and compared before it is reused."""
        return shaping_leaves(self.composed)


def prepare(overrides: Sequence[str] = (), folder: Path | None = None) -> Request:
    """Check a request and everything it needs.

    Args:
        overrides: Hydra overrides without sweeps.
        folder: a user's `--config-dir`, searched besides the built-in configuration.

    Raises:
        RequestError: names the value, what was expected, and the remedy.
    """
    overrides = [_expand_all(text) for text in overrides]
    parsed = parse(overrides)
    for override in parsed:
        if override.is_sweep_override():
            raise RequestError(f"{override.input_line!r} names several values; add -m to run them all")
    check_groups(parsed, folder)
    known = groups(folder)
    default = compose([o.input_line for o in parsed if _keeps_default(o, known)], folder=folder)
    check_keys(parsed, default, folder)
    composed = compose(overrides, folder=folder)
    if OmegaConf.select(composed.cfg, "dataset.recipe") is None:
        raise RequestError(
            f"dataset={composed.choices['dataset']} has no training recipe: it can be scored as an OOD set "
            "(name it in protocol.near or protocol.far) but not trained on. Train on digits, cifar10 or cifar100."
        )
    check_values(composed)
    check_machine(composed)
    ood_sets = check_image_sets(composed)
    if composed.choices.get("experiment"):
        choices = [f"{g}={_text(c)}" for g, c in composed.choices.items() if g != "experiment"]
        default = compose([*choices, f"paths.data={quote(str(composed.cfg.paths.data))}"], folder=folder)
    needs = tuple(prepare(need, folder) for need in _needs(composed, parsed))
    identity = run_id(composed, default, [need.run_id for need in needs])
    return Request(tuple(overrides), composed, identity, tuple(ood_sets), needs, folder)


def expand_sweep(overrides: Sequence[str]) -> Iterator[list[str]]:
    """Every single request of a `-m` command line, in Hydra's order.

    Raises:
        RequestError: a sweep names no value at all.
    """
    columns: list[list[str]] = []
    for override in parse([_expand_all(text) for text in overrides]):
        if not override.is_sweep_override():
            columns.append([override.input_line])
            continue
        if override.is_discrete_sweep() or override.is_choice_sweep() or override.is_range_sweep():
            values = [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        else:
            key = override.key_or_group
            values = [f"{key}={value}" for value in override.value().filter(groups().get(key, []))]
        if not values:
            raise RequestError(f"{override.input_line!r} matches nothing; it would run no job at all")
        columns.append(values)
    for row in product(*columns):
        yield list(row)


def _keeps_default(override: Override, known: dict[str, list[str]]) -> bool:
    return override.key_or_group in known or override.key_or_group.startswith("paths.")


def _expand_all(text: str) -> str:
    """`scorer=all` stands for every scorer."""
    return f"scorer=[{','.join(groups()['scorer'])}]" if text == "scorer=all" else text


def _text(choice: str | list[str] | None) -> str:
    return f"[{','.join(choice)}]" if isinstance(choice, list) else str(choice or "null")


def _needs(composed: Composed, parsed: Sequence[Override]) -> list[list[str]]:
    """The overrides of each run this one stands on, as their own command line would give them."""
    init = composed.plain("init")
    if init["method"] is None or init["checkpoint"] is not None:
        return []
    need = [f"{g}={_text(composed.choices.get(g))}" for g in INHERITED_GROUPS]
    need.append(f"method={init['method']}")
    need += [o.input_line for o in parsed if o.key_or_group.startswith((*INHERITED, *INHERITED_TRAINER))]
    return [[*need, *init["overrides"]]]

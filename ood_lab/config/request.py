"""A checked request: the configuration, its run id and the runs it depends on, all without importing torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Glob, Override
from omegaconf import OmegaConf

from ood_lab.config.check import (
    check_figures,
    check_groups,
    check_keys,
    check_machine,
    check_output,
    check_values,
    check_weights,
    parse,
)
from ood_lab.config.compose import Composed, compose, only_chooses, target
from ood_lab.config.from_disk import filled_from_disk
from ood_lab.config.groups import groups
from ood_lab.config.identity import all_leaves, run_id, shaping_leaves
from ood_lab.config.image_sets import ImageSetUse, check_image_sets, image_sets
from ood_lab.config.own_folder import TARGET, written
from ood_lab.config.parts import check_parts
from ood_lab.config.peers import PEERS, expanded
from ood_lab.config.quoting import in_words, quote
from ood_lab.config.scorers import as_declared, check_scorers, serves
from ood_lab.config.signature import signature
from ood_lab.errors import RequestError

# What a needed run takes over from the run that needs it: the same network and data, places, protocol, detectors and
# machine. Its own training (method, epochs, batch size, precision) it does not.
INHERITED_GROUPS = ("backbone", "dataset", "trainer", "protocol", "scorer", "tuning", "logger")
INHERITED = (
    "backbone.",
    "dataset.",
    "protocol.",
    "scorer.",
    "tuning.",
    "logger.",
    "id_rate",
    "bootstrap",
    "local_radius",
    "index",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.workers",
    "trainer.cache_gb",
    "trainer.threads",
    "trainer.eval_batch_size",
    "trainer.eval_precision",
    "trainer.checkpoint_minutes",
    "trainer.log_every_n_steps",
)


# In a detector's options: the grid and the sets of its search (see `Request.scorers`).
TUNED = "tuned"


@dataclass(frozen=True)
class Request:
    """One run, checked: nothing about it is left to be found wrong except by running it.

    `unmeasured` is the configuration before measured values were filled in, which belong to no identity.
    """

    overrides: tuple[str, ...]
    composed: Composed
    run_id: str
    image_sets: tuple[ImageSetUse, ...]
    needs: tuple[Request, ...]
    folder: Path | None = None
    unmeasured: Composed | None = None

    @property
    def cfg(self) -> Any:
        return self.composed.cfg

    @property
    def run_dir(self) -> Path:
        return Path(self.composed.plain("paths.output")).absolute() / self.run_id

    @property
    def ood_sets(self) -> tuple[str, ...]:
        """The OOD sets of the protocol that are there, near ones first."""
        return tuple(use.name for use in self.image_sets if use.role in ("near", "far"))

    def with_seed(self, seed: int) -> Request:
        """The same request with another seed, without composing it again."""
        if seed == self.composed.plain("seed"):
            return self
        overrides = (*(text for text in self.overrides if not text.startswith("seed=")), f"seed={seed}")
        elsewhere = [text for text in self.overrides if "seed" in text and not text.startswith("seed=")]
        if elsewhere or any("seed" in text for text in self.composed.plain("init.overrides")):
            return prepare(overrides, self.folder, look=False)  # something else may depend on it, or fix it
        composed = self.composed.changed("seed", seed)
        needs = tuple(need.with_seed(seed) for need in self.needs)
        identity = run_id(composed, [need.run_id for need in needs])
        return replace(self, overrides=overrides, composed=composed, run_id=identity, needs=needs)

    def only(self, ood_sets: Collection[str]) -> Request:
        """The same request on some of the protocol's OOD sets, without composing it again."""
        kept = {g: [n for n in self.composed.plain(f"protocol.{g}") if n in ood_sets] for g in ("near", "far")}
        if all(kept[group] == self.composed.plain(f"protocol.{group}") for group in kept):
            return self
        named = {group: written_sets(self.composed, names) for group, names in kept.items()}
        words = tuple(f"protocol.{group}={in_words(names)}" for group, names in named.items())
        return replace(
            self,
            overrides=(*self.overrides, *words),
            composed=self.composed.changed("protocol", {**self.composed.plain("protocol"), **kept}),
            image_sets=tuple(u for u in self.image_sets if u.role not in ("near", "far") or u.name in ood_sets),
            needs=tuple(need.only(ood_sets) for need in self.needs),
        )

    def here(self, machine: bool = True) -> Request:
        """The same request with the image sets that are on this disk.

        Args:
            machine: whether the run is made on this machine, which must then have what it asks for.

        Raises:
            RequestError: this machine can't run it (a set, a checkpoint or a GPU is missing, the output is not
                writable).
        """
        sets = tuple(check_image_sets(self.composed, self.folder))
        check_weights(self.composed)
        if machine:
            check_machine(self.composed)
        check_output(self.composed)
        return replace(self, image_sets=sets, needs=tuple(need.here(machine) for need in self.needs))

    def use(self, role: str) -> ImageSetUse:
        """The set in the role "id" or "auxiliary", or the OOD set of that name."""
        if role in ("id", "auxiliary"):
            return next(use for use in self.image_sets if use.role == role)
        return next(use for use in self.image_sets if use.role not in ("id", "auxiliary") and use.name == role)

    def convention(self, ood_set: str | None = None) -> str:
        """All that a measured number depends on besides the detector: which images, how prepared, how counted."""
        protocol = self.cfg.protocol
        parts = [f"id_val={protocol.id_val}"]
        if ood_set is not None:
            parts.append(f"transform={protocol.transforms.get(ood_set, protocol.transform)}")
            parts.append(f"subset={protocol.subset}x{protocol.draws}" if protocol.subset else "subset=none")
            parts.append(f"fpr_rule={protocol.fpr_rule} aupr_rule={protocol.aupr_rule}")
            parts.append(f"bootstrap={self.cfg.bootstrap}")
        parts.append(f"precision={self.cfg.trainer.eval_precision}")
        return " ".join(parts)

    @property
    def scorers(self) -> dict[str, dict[str, Any]]:
        """The detectors asked for, by the name that their scores go by, with their options.

        Under `TUNED` stands what is searched for one that is tuned; its other options are then those of the rest.
        """
        nodes: dict[str, dict[str, Any]] = {}
        for name, node in self.composed.plain("scorer").items():
            declared = as_declared(node)
            nodes |= expanded(declared) if name == PEERS else {name: declared}
        grids = (self.composed.plain("tuning") or {}).get("grids", {})
        on = list(self.composed.plain("protocol.validation"))
        return {n: {**node, TUNED: {"grid": grids[n], "sets": on}} if n in grids else node for n, node in nodes.items()}

    @property
    def groups(self) -> dict[str, str]:
        """Each OOD set that can be scored, near or far as the protocol has it."""
        near = self.composed.plain("protocol.near")
        return {name: "near" if name in near else "far" for name in self.ood_sets}

    @property
    def leaves(self) -> dict[str, Any]:
        """The leaves that shape the weights; saved with the run and compared before it is reused."""
        return shaping_leaves(self.unmeasured or self.composed)

    def normalised(self, mean: Sequence[float], std: Sequence[float]) -> Request:
        """The same request with the constants by which images are normalised, where it states none."""
        protocol = self.composed.plain("protocol")
        filled = {"mean": protocol["mean"] or list(mean), "std": protocol["std"] or list(std)}
        composed = self.composed.changed("protocol", {**protocol, **filled})
        return replace(self, composed=composed, unmeasured=self.unmeasured or self.composed)


def prepare(overrides: Sequence[str] = (), folder: Path | None = None, look: bool = True) -> Request:
    """Check a request and everything it needs.

    Args:
        overrides: Hydra overrides without sweeps.
        folder: a user's `--config-dir`, searched besides the built-in configuration.
        look: at the disk and the machine, too (see `Request.here`).

    Raises:
        RequestError: names the value, what was expected, and the remedy.
    """
    overrides = with_own_protocol([expand_all(text, folder) for text in overrides], folder)
    parsed = parse(overrides)
    for override in parsed:
        if override.is_sweep_override():
            raise RequestError(
                f"{override.input_line!r} names several values; add -m to run them all "
                "(from Python: ood_lab.run([...], multirun=True))"
            )
    check_groups(parsed, folder)
    known = groups(folder)
    default = compose([line(o) for o in parsed if _keeps_default(o, known)], folder=folder)
    check_keys(parsed, default, folder)
    composed = compose(overrides, folder=folder)
    if OmegaConf.select(composed.cfg, "dataset.recipe") is None:
        raise RequestError(
            f"dataset={composed.choices['dataset']} has no training recipe: it can be scored as an OOD set "
            "(name it in protocol.near or protocol.far) but not trained on. Train on digits, cifar10 or cifar100, or "
            "on images of your own: dataset=image_folder dataset.root=FOLDER"
        )
    check_values(composed)
    composed = filled_from_disk(composed)
    check_parts(composed, folder, [override.key_or_group for override in parsed])
    check_scorers(composed, folder)
    check_figures(composed)
    if composed.cfg.task.name == "data":  # about what is not there; nothing is run
        return Request(tuple(overrides), composed, "", tuple(image_sets(composed, folder)), (), folder)
    if look:
        check_weights(composed)  # their content is part of the identity
    experiment = composed.choices.get("experiment")
    if (experiment and not only_chooses("experiment", str(experiment), folder)) or composed.choices["trainer"] != "cpu":
        # What the choices say by themselves: without the experiment's values, and on the plain trainer, so that a
        # machine's own precision counts as a change.
        chosen = {g: c for g, c in composed.choices.items() if c is not None and g not in ("experiment", "trainer")}
        choices = [f"{g}={in_words(c)}" for g, c in chosen.items()]
        default = compose([*choices, f"paths.data={quote(str(composed.cfg.paths.data))}"], folder=folder)
    needs = tuple(prepare(need, folder, look=False) for need in _needs(composed, default))
    identity = run_id(composed, [need.run_id for need in needs])
    sets = tuple(image_sets(composed, folder))
    request = Request(tuple(overrides), composed, identity, sets, needs, folder)
    return request.here() if look else request


def expand_sweep(overrides: Sequence[str], folder: Path | None = None) -> Iterator[list[str]]:
    """Every single request of a `-m` command line, in Hydra's order.

    Raises:
        RequestError: a sweep names no value at all.
    """
    columns: list[list[str]] = []
    known = groups(folder)
    for override in parse([expand_all(text, folder) for text in overrides]):
        value = override.value()
        if not override.is_sweep_override():
            columns.append([line(override)])
            continue
        if isinstance(value, Glob):
            values = [f"{override.key_or_group}={v}" for v in value.filter(known.get(override.key_or_group, []))]
        else:
            values = [f"{override.get_key_element()}={v}" for v in override.sweep_string_iterator()]
        if not values:
            raise RequestError(f"{line(override)!r} matches nothing; it would run no job at all")
        columns.append(values)
    for row in product(*columns):
        yield list(row)


def line(override: Override) -> str:
    """An override as it was typed."""
    return override.input_line or ""


def _keeps_default(override: Override, known: dict[str, list[str]]) -> bool:
    return override.key_or_group in known or override.key_or_group in ("paths.data", "paths.output", "paths.cache")


def expand_all(text: str, folder: Path | None) -> str:
    """`scorer=all` stands for every scorer that is not `by_name_only`, and `action=x` for task.action=x."""
    if text == "scorer=all":
        return f"scorer=[{','.join(name for name in groups(folder)['scorer'] if not _by_name_only(name, folder))}]"
    return f"task.{text}" if text.startswith("action=") else text


def with_own_protocol(overrides: Sequence[str], folder: Path | None) -> list[str]:
    """`protocol=own` for an ID set of one's own, unless another is named."""
    chosen = {key.lstrip("+"): value for key, _, value in (text.partition("=") for text in overrides)}
    name = chosen.get("dataset", "")
    named = "protocol" in chosen or "experiment" in chosen or name not in groups(folder)["dataset"]
    return list(overrides) if named or target("dataset", name, folder) != TARGET else [*overrides, "protocol=own"]


def _by_name_only(scorer: str, folder: Path | None) -> bool:
    return bool(signature(target("scorer", scorer, folder)).constants.get("by_name_only", False))


def _needs(composed: Composed, default: Composed) -> list[list[str]]:
    """The overrides of each run this one depends on, as their own command line would give them."""
    init = composed.plain("init")
    if init["method"] is None or init["checkpoint"] is not None or init["weights"] is not None:
        return []
    mine, theirs = all_leaves(composed), all_leaves(default)
    chosen = {group: composed.choices.get(group) for group in INHERITED_GROUPS}
    served = [name for name in composed.plain("scorer") if serves(init["method"], composed.plain(f"scorer.{name}"))]
    chosen["scorer"] = served or ["msp"]
    need = [f"{group}={in_words(choice)}" for group, choice in chosen.items() if choice is not None]
    need += [f"method={init['method']}", f"seed={composed.cfg.seed}"]
    need += [f"paths.{name}={quote(str(composed.cfg.paths[name]))}" for name in ("data", "output", "cache")]
    changed = {k: v for k, v in mine.items() if k.startswith(INHERITED) and theirs.get(k, v) != v}
    changed = {k: v for k, v in changed.items() if not k.startswith("scorer.") or k.split(".")[1] in served}
    if "local_radius" in changed:
        changed["local_radius"] = [name for name in changed["local_radius"] if name in served]
    changed = _as_asked(changed, composed)
    for key, value in changed.items():
        # A pretrained classifier has no projection: its own space stands beside the fine-tuned network's.
        own = key.startswith("scorer.") and key.endswith(".space") and value == "projection"
        need.append(f"{key}={'method' if own else in_words(value)}")
    return [[*need, *init["overrides"]]]


def _as_asked(leaves: dict[str, Any], composed: Composed) -> dict[str, Any]:
    """Leaves as a command line would have them: a protocol's folders by their paths."""
    out = dict(leaves)
    for group in ("near", "far", "validation"):
        names = composed.plain(f"protocol.{group}")
        if any(name in composed.plain("protocol.folders") for name in names):
            out[f"protocol.{group}"] = written_sets(composed, names)
    return out


def written_sets(composed: Composed, names: Sequence[str]) -> list[str]:
    """OOD sets as an override names them: a folder with its path."""
    folders = composed.plain("protocol.folders")
    return [written(name, folders[name]) if name in folders else name for name in names]

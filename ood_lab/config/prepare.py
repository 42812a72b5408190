"""From a command line to an experiment: composed, checked, and named, without importing torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Glob, Override
from omegaconf import OmegaConf

from ood_lab.config.check import (
    check_figures,
    check_groups,
    check_keys,
    check_layers,
    check_machine,
    check_output,
    check_values,
    check_weights,
    parse,
)
from ood_lab.config.compose import Composed, compose, only_chooses, target
from ood_lab.config.during_training import check_during_training
from ood_lab.config.experiment import Experiment
from ood_lab.config.from_disk import filled_from_disk
from ood_lab.config.groups import MAKERS, groups
from ood_lab.config.identity import prefix, run_id
from ood_lab.config.image_sets import check_image_sets, image_sets
from ood_lab.config.makers import check_maker, check_models
from ood_lab.config.own_folder import TARGET
from ood_lab.config.parts import check_parts
from ood_lab.config.prerequisites import INIT, as_entries, prerequisites_of
from ood_lab.config.quoting import as_override, quote
from ood_lab.config.scorers import check_scorers
from ood_lab.config.signature import signature
from ood_lab.config.timm_names import check_timm
from ood_lab.errors import RequestError

UNNAMED = "synthesized"  # the name of a set that a run makes, where it is given no other
# By the name of what is needed the tasks that make it, what it is, and an example.
EXPECTED = {
    INIT: (("train",), "weights of a classifier", "[trainer.max_epochs=20]"),
    "encoder": (("train",), "weights of a classifier", "[method=anchored]"),
    "images": (("synthesize", "decode"), "images", "[task=synthesize,producer=fractals]"),
    "generator": (("train_generator",), "generator", "[task=train_generator,generator=biggan]"),
    "anchors": (("anchors",), "anchors", "[task=anchors,anchors=random]"),
    "outliers": (("outliers",), "outliers of a latent space", "[task=outliers,outliers=boundary]"),
}
# The command lines of the experiments that depend on the one which is being prepared.
_above: ContextVar[tuple[tuple[str, ...], ...]] = ContextVar("above", default=())


def prepare(overrides: Sequence[str] = (), folder: Path | None = None, look: bool = True) -> Experiment:
    """Check a command line and everything that it depends on.

    Args:
        overrides: Hydra overrides without sweeps.
        folder: a user's `--config-dir`, searched besides the built-in configuration.
        look: at the disk and the machine, too (see `on_disk`).

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
    chosen = compose([line(o) for o in parsed if keeps_default(o, known)], folder=folder)
    check_keys(parsed, chosen, folder)
    composed = compose(overrides, folder=folder)
    if OmegaConf.select(composed.cfg, "dataset.recipe") is None:
        raise RequestError(
            f"dataset={composed.choices['dataset']} has no training recipe: it can be scored as an OOD set "
            "(name it in protocol.near or protocol.far) but not trained on. Train on digits, cifar10 or cifar100, or "
            "on images of your own: dataset=image_folder dataset.root=FOLDER"
        )
    check_values(composed)
    composed = filled_from_disk(composed)
    experiment = Experiment.of(
        composed.whole,
        composed.choices,
        overrides=tuple(overrides),
        config_dir=folder,
        seed_is_read=composed.is_read("seed"),
    )
    given = [override.key_or_group for override in parsed]
    check_maker(experiment, given)
    if not experiment.makes_no_classifier:
        check_parts(experiment, given)
        check_scorers(experiment)
        check_figures(experiment)
        check_during_training(experiment)
        check_timm(experiment.backbone)
        check_layers(experiment)
    if experiment.task.name == "data":  # about what is not there; nothing is run
        return replace(experiment, image_sets=tuple(image_sets(experiment)))
    if look:
        check_weights(experiment)  # their content is part of the identity
    below = prerequisites_of(experiment, _of_choices(composed, chosen, folder).whole)
    experiment = with_prerequisites(experiment, below)
    experiment = replace(experiment, image_sets=tuple(image_sets(experiment)))
    experiment = replace(experiment, run_id=run_id(experiment))
    return on_disk(experiment) if look else experiment


def with_prerequisites(experiment: Experiment, commands: Mapping[str, Sequence[str]]) -> Experiment:
    """The experiment with those that it depends on; image sets that another run makes are told where they lie.

    Raises:
        RequestError: one of them is wrong, or depends on itself.
    """
    found = {}
    for name, command in commands.items():
        above = _above.get()
        if tuple(command) in above:
            raise RequestError(f"{name} depends on itself: {' '.join(command)}")
        token = _above.set((*above, tuple(command)))
        try:
            found[name] = prepare(command, experiment.config_dir, look=False)
        except RequestError as error:
            raise error if name == INIT else RequestError(f"{name}: {error}") from None
        finally:
            _above.reset(token)
        _check_task(name, found[name])
    made = {name: other for name, other in found.items() if other.produces}
    located: dict[str, Any] = {}
    for part in experiment.other_training_sets:
        images = made.get(f"{part.group}.images")
        if images is not None:
            name = f"{UNNAMED}_{prefix(images)}" if part.name == UNNAMED else part.name
            options = {**part.options, "name": name, "root": str(images.product)}
            located[part.group] = replace(part, options=options)
    return replace(experiment, prerequisites=found, **located)


def _check_task(name: str, other: Experiment) -> None:
    """What is depended on must be made by its run."""
    known = EXPECTED.get(name.rpartition(".")[2])
    if known is not None and other.task.name not in known[0]:
        raise RequestError(
            f"{name}: a run with task={other.task.name} makes no {known[1]}; name one with task="
            f"{' or '.join(known[0])}, as in {known[2]}"
        )
    if known is EXPECTED["encoder"] and "embedding" not in other.head.declared.get("gives", ()):
        raise RequestError(
            f"{name}: head={other.head.choice} gives no embedding to find outliers in; name an encoder with "
            "head=anchors, as in [method=anchored]"
        )
    if other.task.name not in ("train", *MAKERS):
        raise RequestError(
            f"{name}: task={other.task.name} makes nothing to depend on; use one of task=train, {', '.join(MAKERS)}"
        )


def _of_choices(composed: Composed, chosen: Composed, folder: Path | None) -> Composed:
    """What the choices say by themselves: without the experiment's values, and on the plain trainer, so that a
    machine's own precision counts as a change."""
    experiment = composed.choices.get("experiment")
    alone = not experiment or only_chooses("experiment", str(experiment), folder)
    if alone and composed.choices["trainer"] == "cpu":
        return chosen
    others = {g: c for g, c in composed.choices.items() if c is not None and g not in ("experiment", "trainer")}
    choices = [f"{group}={as_override(choice)}" for group, choice in others.items()]
    return compose([*choices, f"paths.data={quote(str(composed.plain('paths.data')))}"], folder=folder)


def on_disk(experiment: Experiment, machine: bool = True) -> Experiment:
    """The same experiment with the image sets that are on this disk; so are those that it depends on.

    Args:
        machine: whether the run is made on this machine, which must then have what it asks for.

    Raises:
        RequestError: this machine can't run it (a set, a checkpoint or a GPU is missing, the output is not writable).
    """
    sets = tuple(check_image_sets(experiment))
    check_weights(experiment)
    check_models(experiment)
    if machine:
        check_machine(experiment)
    check_output(Path(experiment.paths.output))
    below = {name: on_disk(other, machine) for name, other in experiment.prerequisites.items()}
    return replace(experiment, image_sets=sets, prerequisites=below)


def with_seed(experiment: Experiment, seed: int) -> Experiment:
    """The same experiment with another seed, without composing it again where nothing else reads the seed."""
    if seed == experiment.seed:
        return experiment
    overrides = (*(text for text in experiment.overrides if not text.startswith("seed=")), f"seed={seed}")
    elsewhere = [text for text in experiment.overrides if "seed" in text and not text.startswith("seed=")]
    elsewhere += [text for text in experiment.init.overrides if "seed" in text]
    if elsewhere or experiment.seed_is_read or set(experiment.prerequisites) - {INIT}:
        return prepare(overrides, experiment.config_dir, look=False)
    below = {name: with_seed(other, seed) for name, other in experiment.prerequisites.items()}
    experiment = replace(experiment, overrides=overrides, seed=seed, prerequisites=below)
    return replace(experiment, run_id=run_id(experiment))


def with_ood_sets(experiment: Experiment, ood_sets: Collection[str]) -> Experiment:
    """The same experiment on some of the protocol's OOD sets, without composing it again; without a classifier none
    is scored."""
    if experiment.makes_no_classifier:
        return experiment
    protocol = experiment.protocol
    kept = {g: [name for name in getattr(protocol, g) if name in ood_sets] for g in ("near", "far")}
    if kept == {"near": list(protocol.near), "far": list(protocol.far)}:
        return experiment
    changed = [f"protocol.{group}={as_override(as_entries(experiment, names))}" for group, names in kept.items()]
    return replace(
        experiment,
        overrides=(*experiment.overrides, *changed),
        protocol=replace(protocol, near=kept["near"], far=kept["far"]),
        image_sets=tuple(u for u in experiment.image_sets if u.role not in ("near", "far") or u.name in ood_sets),
        prerequisites={name: with_ood_sets(other, ood_sets) for name, other in experiment.prerequisites.items()},
    )


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


def keeps_default(override: Override, known: dict[str, list[str]]) -> bool:
    """Whether an override chooses a group's file, or a place on the disk, and changes no other default."""
    return override.key_or_group in known or override.key_or_group in ("paths.data", "paths.output", "paths.cache")


def expand_all(text: str, folder: Path | None) -> str:
    """`scorer=all` stands for every scorer that is not `by_name_only`, `action=x` for task.action=x, and
    `optimizer.x` for method.optimizer.x."""
    if text == "scorer=all":
        return f"scorer=[{','.join(name for name in groups(folder)['scorer'] if not _by_name_only(name, folder))}]"
    if text.startswith("optimizer."):
        return f"method.{text}"
    return f"task.{text}" if text.startswith("action=") else text


def each_once(overrides: Sequence[str], folder: Path | None = None) -> tuple[list[str], list[str]]:
    """The overrides without those whose key is given again later, and what to say of these keys."""
    given: dict[str, list[str]] = {}
    for text in overrides:
        given.setdefault(expand_all(text, folder).partition("=")[0].lstrip("+~"), []).append(text)
    last = {texts[-1] for texts in given.values()}
    kept = [text for number, text in enumerate(overrides) if text in last and text not in overrides[number + 1 :]]
    twice = {key: texts for key, texts in given.items() if len(set(texts)) > 1}
    return kept, [f"note: {key} is given {len(texts)} times; using {texts[-1]}" for key, texts in twice.items()]


def with_own_protocol(overrides: Sequence[str], folder: Path | None) -> list[str]:
    """`protocol=own` for an ID set of one's own, unless another is named."""
    chosen = {key.lstrip("+"): value for key, _, value in (text.partition("=") for text in overrides)}
    name = chosen.get("dataset", "")
    named = "protocol" in chosen or "experiment" in chosen or name not in groups(folder)["dataset"]
    return list(overrides) if named or target("dataset", name, folder) != TARGET else [*overrides, "protocol=own"]


def _by_name_only(scorer: str, folder: Path | None) -> bool:
    return bool(signature(target("scorer", scorer, folder)).constants.get("by_name_only", False))

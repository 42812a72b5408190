"""Which parts of a method go together, by what they declare; nothing is imported for it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ood_lab.config.compose import target
from ood_lab.config.experiment import Experiment, Part
from ood_lab.config.groups import groups
from ood_lab.config.identity import read_by, reads_projections
from ood_lab.config.recipe import METHOD
from ood_lab.config.signature import signature
from ood_lab.config.sources import GIVES, check_images, check_sources, head_declares
from ood_lab.config.suggest import nearest
from ood_lab.errors import RequestError

TERM_GROUPS = ("id_loss", "outlier_loss", "regularizer")
# Options of memories, which parts that read the same memory must agree in.
MEMORY_OPTIONS = {
    "prototypes": "prototype_momentum", "bank": "bank_size", "feature_bank": "bank_size", "feature_queue": "queue_size",
}  # fmt: skip


def check_parts(experiment: Experiment, given: Collection[str] = ()) -> None:
    """Refuse parts that can't work together.

    Args:
        given: the keys that the command line states itself.

    Raises:
        RequestError: names the reason, and what would work.
    """
    if experiment.method.target != METHOD:
        return  # a loop of its own, which knows what it takes
    if "head.projection_dim" in given and not reads_projections(experiment):
        raise RequestError(
            f"head.projection_dim: nothing of method={experiment.method.choice} reads projections, so that there is no "
            "projector; leave it out, or add a term that does: id_loss=[ce,cider]"
        )
    _check_declarations(experiment)
    _check_pairs(experiment)
    check_sources(experiment)
    check_images(experiment)
    _check_frozen(experiment)
    _check_projector(experiment)
    _check_classes(experiment)
    _check_schedules(experiment)
    _check_memories(experiment)


def _check_frozen(experiment: Experiment) -> None:
    """What is left as it is must be trained already."""
    init, name, trainable = experiment.init, experiment.choices["method"], experiment.method.options["trainable"]
    if trainable == "whole":
        return
    if init.method is None and init.checkpoint is None and init.weights is None:
        raise RequestError(
            f"method={name} trains a part of the network (method.trainable={trainable}), on weights that "
            f"init={experiment.choices['init']} does not give; leave init out, or give init.checkpoint=FILE"
        )
    if trainable != "heads":
        return
    if "shifts" in head_declares(experiment, "gives") and not init.projector:
        raise RequestError(
            f"method={name} is scored by the projector of its first stage, and init={experiment.choices['init']} takes "
            "none over; use init=csi_contrast, alone or with init.checkpoint=FILE, the final weights of that stage"
        )


def _check_projector(experiment: Experiment) -> None:
    """Detectors score in the space of a projector where there is one: it must be trained, or left as its stage was."""
    if not reads_projections(experiment):
        return
    kept = experiment.init.projector and experiment.method.options["trainable"] == "heads"
    terms = [part for part in experiment.parts if part.group in TERM_GROUPS and _weighs(part)]
    if not kept and not any("z" in read_by(part.target) for part in terms):
        raise RequestError(
            f"method={experiment.choices['method']} has a projector that nothing trains: no term with a weight above 0 "
            "reads z, and detectors would score in its space; give such a term a weight, add one (id_loss=[ce,cider]), "
            "or leave out what only uses z (such as head=shifts)"
        )


def _check_classes(experiment: Experiment) -> None:
    """Some parts are about pairs of classes."""
    classes = experiment.dataset.recipe.num_classes
    for part in experiment.parts:
        least = int(part.declared.get("least_classes", 1))
        if classes is not None and classes < least:
            raise RequestError(
                f"{part.path} needs {least} ID classes, and dataset={experiment.choices['dataset']} has {classes}; use "
                "parts that work with one, for example method=vos, or method=ce"
            )


def _made(experiment: Experiment) -> tuple[str, ...]:
    """What the perturbation makes besides images."""
    return tuple(name for part in experiment.of_group("perturbation") for name in part.declared.get("gives", ()))


def _heads_that_add(name: str, folder: Path | None) -> str:
    """The heads that give a tensor of this name, as they are typed."""
    adding = [
        h for h in groups(folder)["head"] if name in signature(target("head", h, folder)).constants.get("adds", ())
    ]
    return " or ".join(f"head={head}" for head in adding)


def _check_declarations(experiment: Experiment) -> None:
    """What a class says that it reads must be there: tensors of the network, and memories that it declares."""
    added, made = head_declares(experiment, "adds"), _made(experiment)
    for part in experiment.parts:
        tensors = tuple(name for name in GIVES["images"] if name != "targets")  # which a perturbation makes
        kept = (*MEMORY_OPTIONS, *part.declared.get("memories", ()))
        for key, known in (
            ("reads", (*tensors, *added, *kept)),
            ("reads_whole", (*tensors[1:], *added)),
            ("reads_shifted", (*tensors[1:], *added)),
            ("reads_outliers", (*tensors, *added, *made)),
        ):
            for name in part.declared.get(key, ()):
                if name == "targets" and name not in known:
                    source = experiment.choices.get("perturbation") or "null"
                    raise RequestError(
                        f"{part.chosen_by} reads targets, the labels of mixed images, and "
                        f"perturbation={source} makes none; use perturbation=mix"
                    )
                if name not in known and (heads := _heads_that_add(name, experiment.config_dir)):
                    raise RequestError(
                        f"{part.chosen_by} reads {name}, which head={experiment.choices['head']} does not give; "
                        f"use {heads}"
                    )
                if name not in known:
                    raise RequestError(
                        f"{part.path}: {part.target} declares {key} {name!r}, which does not exist."
                        f"{nearest(name, known)}"
                    )


def _check_pairs(experiment: Experiment) -> None:
    """Of options that a class pairs, the first must not exceed the second; one that is null has no limit."""
    for part in experiment.parts:
        for lower, upper in part.declared.get("at_most", ()):
            values = part.options[lower], part.options[upper]
            if None not in values and values[0] > values[1]:
                raise RequestError(
                    f"{part.path}.{lower}={part.options[lower]}: expected at most {part.options[upper]}, the value of "
                    f"{part.path}.{upper}; lower the one or raise the other"
                )


def _check_schedules(experiment: Experiment) -> None:
    """A term must begin before it ends, and before the run does."""
    epochs = experiment.trainer.max_epochs
    for part in experiment.parts:
        if part.group not in TERM_GROUPS:
            continue
        start, end = part.get("start", 0), part.get("end")
        begins = start if isinstance(start, int) else start * epochs
        ends = epochs if end is None else end if isinstance(end, int) else end * epochs
        if end is not None and begins >= ends:
            raise RequestError(
                f"{part.path}.end={end}: the term would end before it starts ({part.path}.start={start}); whole "
                "numbers are epochs, fractions shares of the run"
            )
        if begins >= epochs > 0:
            raise RequestError(
                f"{part.path}.start={start}: the term would never start in {epochs} epochs (trainer.max_epochs); let "
                "it start earlier, or give a share of the run such as 0.5"
            )
    running = [p for p in experiment.parts if p.group == "id_loss" and _weighs(p)]
    if not any(part.get("start", 0) == 0 for part in running) and epochs > 0:
        names = ", ".join(part.path for part in running) or "none has a weight above 0"
        raise RequestError(f"no term on ID data takes part in the first step ({names}); let one start at 0")


def _weighs(part: Part) -> bool:
    """Whether a term is minimised with a weight above 0."""
    if part.declared.get("watched"):
        return False
    inner = [part.get(f"w_{name}", 1) for name in part.declared.get("scalars", ())] or [1]
    return bool(part.get("weight", 1) > 0 and any(weight > 0 for weight in inner))


def _check_memories(experiment: Experiment) -> None:
    """Parts that read the same memory share it, and must ask for the same one."""
    for name, option in MEMORY_OPTIONS.items():
        values = {part.path: part.options[option] for part in experiment.parts if option in part.options}
        if len(set(values.values())) > 1:
            told = " and ".join(f"{path}.{option}={value}" for path, value in values.items())
            raise RequestError(f"{told}: these parts share one memory ({name}); give them the same value")

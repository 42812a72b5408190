"""Whether a source of outliers gives what is read of them, by what the classes declare; nothing is imported for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from ood_lab.config.compose import target
from ood_lab.config.experiment import Experiment
from ood_lab.config.groups import groups
from ood_lab.config.recipe import METHOD
from ood_lab.config.signature import signature
from ood_lab.errors import RequestError

SOURCES = ("synthesizer", "auxiliary")
# What the network can give for the outliers of a source; images have everything.
GIVES = {
    "projection": ("z",),
    "penultimate": ("features", "logits", "z"),
    "images": ("images", "features", "logits", "z", "targets"),
}
EXAMPLES = {"auxiliary": "randomimages300k (or fractals, which are made here)"}


def head_declares(experiment: Experiment, key: str) -> tuple[str, ...]:
    """What the class of the head declares under a key."""
    return tuple(experiment.head.declared.get(key, ()))


def check_sources(experiment: Experiment) -> None:
    """An outlier term needs one source that gives what it reads, and a source needs a term."""
    folder = experiment.config_dir
    chosen = {group: part.choice for group in SOURCES for part in experiment.of_group(group)}
    if len(chosen) == 2:
        raise RequestError(
            f"synthesizer={chosen['synthesizer']} and auxiliary={chosen['auxiliary']}: two sources of outliers; keep "
            "one: synthesizer=null or auxiliary=null"
        )
    loss = experiment.outlier_loss
    name = None if loss is None else loss.choice
    wanted = () if loss is None else tuple(loss.declared.get("reads_outliers", ()))
    wanted = tuple(name for name in wanted if name not in head_declares(experiment, "adds"))  # which is checked already
    about_images = bool(experiment.selector or experiment.perturbation) or any(
        "images" in part.declared.get("reads_outliers", ()) for part in experiment.of_group("regularizer")
    )
    if loss is None and not chosen:
        return
    if loss is None:
        group, choice = next(iter(chosen.items()))
        works = _first(folder, "outlier_loss", lambda n: _covers(_given(experiment), _reads(n, folder)))
        raise RequestError(
            f"method={experiment.choices['method']} takes no {group}, but {group}={choice} was given, whose outliers "
            f"nothing reads; add {works}, or remove it: {group}=null"
        )
    if not chosen:
        works = "" if about_images else _first(folder, "synthesizer", partial(_covers_space, folder, wanted))
        images = f"auxiliary={EXAMPLES['auxiliary']}"
        raise RequestError(
            f"method={experiment.choices['method']} needs a source of outliers (outlier_loss={name}); add "
            + (f"{works}, or {images}" if works else f"{images} or another image set")
        )
    given = _given(experiment)
    if not _covers(given, wanted):
        group, choice = next(iter(chosen.items()))
        lacking = ", ".join(read for read in wanted if read not in GIVES[given])
        works = _first(folder, "outlier_loss", lambda n: _covers(given, _reads(n, folder)))
        others = _first(folder, "synthesizer", partial(_covers_space, folder, wanted))
        images = f"synthesizer=null auxiliary={EXAMPLES['auxiliary']}"
        instead = f"{others}, or {images}" if others else images
        raise RequestError(
            f"outlier_loss={name} reads {lacking} of the outliers, but {group}={choice} gives points in {given} space, "
            f"which have {', '.join(GIVES[given])} alone; use {works}, or another source: {instead}"
        )


def _given(experiment: Experiment) -> str:
    """What kind of outliers the chosen source gives."""
    synthesizer = experiment.synthesizer
    return "images" if synthesizer is None else str(synthesizer.declared.get("space", "projection"))


def _covers(given: str, wanted: tuple[str, ...]) -> bool:
    return set(wanted) <= set(GIVES[given])


def _reads(name: str, folder: Path | None) -> tuple[str, ...]:
    return tuple(signature(target("outlier_loss", name, folder)).constants.get("reads_outliers", ()))


def _covers_space(folder: Path | None, wanted: tuple[str, ...], name: str) -> bool:
    return _covers(_space(name, folder), wanted)


def _space(name: str, folder: Path | None) -> str:
    return str(signature(target("synthesizer", name, folder)).constants.get("space", "projection"))


def _first(folder: Path | None, group: str, works: Callable[[str], bool]) -> str:
    """The first two members of a group that would work, as they are typed; no variants of one class.

    Sources of points on the sphere come first, since they give nothing besides.
    """
    by_class: dict[str, str] = {}
    for name in reversed(groups(folder)[group]):
        try:
            if works(name) and not signature(target(group, name, folder)).constants.get("caveat"):
                by_class[target(group, name, folder)] = name
        except RequestError:  # a file that can't be read is not what is asked about
            continue
    names = list(reversed(by_class.values()))
    if group == "synthesizer":
        names.sort(key=lambda name: len(GIVES[_space(name, folder)]))
    return " or ".join([f"{group}={name}" for name in names][:2])


def _check_auxiliary_options(experiment: Experiment) -> None:
    """Options about auxiliary images where there are none, or fewer."""
    wanted, auxiliary = experiment.trainer.auxiliary_images, experiment.auxiliary
    remedy = f"add auxiliary={EXAMPLES['auxiliary']}, or leave it out"
    if auxiliary is None:
        if wanted is not None:
            raise RequestError(
                f"trainer.auxiliary_images={wanted}: there is no auxiliary set to take them from; {remedy}"
            )
        if experiment.makes_outlier_images:
            _check_made_images(experiment)
            return
        for option, value in signature(METHOD).defaults.items():
            given = experiment.method.get(option, value)
            if option in ("outlier_space", "mean_over", "outlier_statistics") and given != value:
                raise RequestError(f"method.{option}={given} is about auxiliary images, and there are none; {remedy}")
        return
    count = auxiliary.get("count")
    if wanted is not None and count is not None and wanted > count:
        raise RequestError(
            f"trainer.auxiliary_images={wanted}: auxiliary={auxiliary.name} has {count:,} images; ask for no more"
        )


def _check_made_images(experiment: Experiment) -> None:
    """What a source of images that learns beside the classifier can't do."""
    trainer, name = experiment.trainer, f"synthesizer={experiment.choices['synthesizer']}"
    if experiment.method.options["outlier_space"] != "normalised":
        raise RequestError(f"method.outlier_space: {name} makes images as the classifier takes them; leave it out")
    if trainer.auxiliary_batch_size != trainer.batch_size:
        raise RequestError(
            f"trainer.auxiliary_batch_size={trainer.auxiliary_batch_size}: {name} makes as many images a step as there "
            f"are ID images, {trainer.batch_size}; leave it out"
        )
    if trainer.precision == "16-mixed":
        raise RequestError(
            f"trainer.precision=16-mixed: the gradient that {name} takes through the classifier may vanish in float16; "
            "use bf16-mixed or 32-true"
        )


def _check_mixing(experiment: Experiment) -> None:
    """What is mixed into ID images, and the set that it comes from, belong together."""
    mixing, pictures = experiment.mixing, experiment.pictures
    if mixing is not None and pictures is None:
        raise RequestError(
            f"mixing={mixing.choice} mixes pictures of another set into ID images, and there is none; add "
            "pictures=fractals or another image set, or leave mixing out (mixing=null)"
        )
    if pictures is not None and mixing is None:
        raise RequestError(
            f"pictures={pictures.name}: nothing mixes them into ID images; add mixing=escape, or leave it out "
            "(pictures=null)"
        )


def check_images(experiment: Experiment) -> None:
    """Selectors, perturbations and penalties on gradients are about images."""
    folder = experiment.config_dir
    for part in experiment.of_group("regularizer"):
        wanted = part.declared.get("reads_outliers", ())
        if "images" in wanted and experiment.auxiliary is None and not experiment.makes_outlier_images:
            points = experiment.synthesizer
            instead = f", use {part.group}=[feature_gradient] for points of a feature space" if points else ""
            raise RequestError(
                f"{part.path} reads images of outliers, and there are none; add auxiliary={EXAMPLES['auxiliary']} "
                f"(with outlier_loss=outlier_exposure, as in method=oe){instead}, or leave it out"
            )
        tensors = (*GIVES[_given(experiment)], *head_declares(experiment, "adds"))
        missing = [name for name in wanted if name not in tensors]
        if missing or (wanted and experiment.synthesizer is None and experiment.auxiliary is None):
            what, source = f"{', '.join(missing or wanted)} of outliers", experiment.choices.get("synthesizer")
            there = (
                f"synthesizer={source} gives {', '.join(GIVES[_given(experiment)])}" if missing else "there are none"
            )
            works = _first(folder, "synthesizer", partial(_covers_space, folder, tuple(wanted)))
            raise RequestError(f"{part.path} reads {what}, and {there}; use {works}, or leave it out")
        if part.get("reading") == "sample" and experiment.method.options["outlier_statistics"] == "own":
            raise RequestError(
                f"{part.path}.reading=sample normalises ID and outlier images together, and method.outlier_statistics="
                "own apart; use reading=batch, or method.outlier_statistics=joint"
            )
    label = experiment.perturbation.get("outlier_label") if experiment.perturbation else None
    if label == "absent" and "absent" not in head_declares(experiment, "adds"):
        raise RequestError(
            f"perturbation.outlier_label=absent: head={experiment.choices['head']} has no output for none of the "
            "classes; use head=absent_class, or perturbation.outlier_label=uniform"
        )
    if experiment.selector and experiment.selector.get("engine") == "faiss" and find_spec("faiss") is None:
        raise RequestError("selector.engine=faiss: faiss is not installed; pip install faiss-cpu, or use engine=torch")
    _check_auxiliary_options(experiment)
    _check_mixing(experiment)
    candidates = experiment.selector.get("candidates") if experiment.selector else None
    taken = experiment.trainer.auxiliary_batch_size
    if candidates is not None and candidates < taken:
        raise RequestError(
            f"selector.candidates={candidates}: fewer than the {taken} outlier images of a step "
            "(trainer.auxiliary_batch_size); give more, or null: every image is a candidate once an epoch"
        )
    for group, what in (("selector", "chooses among images"), ("perturbation", "changes images")):
        if experiment.of_group(group) and experiment.auxiliary is None:
            source = experiment.choices.get("synthesizer")
            made = "images of its own" if experiment.makes_outlier_images else "points of a feature space"
            given = f"synthesizer={source} gives {made}" if source else "there is none"
            raise RequestError(
                f"{group}={experiment.choices[group]} {what} of an auxiliary set, and {given}; add "
                f"auxiliary={EXAMPLES['auxiliary']}{' synthesizer=null' if source else ''}, or give {group}=null"
            )
    trainable = experiment.method.options["trainable"]
    if trainable == "whole":
        return
    for part in experiment.of_group("regularizer"):
        if "images" in part.declared.get("reads", ()):
            raise RequestError(
                f"{part.path} is about gradients with respect to images, but method.trainable="
                f"{trainable} freezes the first layers; use method.trainable=whole"
            )

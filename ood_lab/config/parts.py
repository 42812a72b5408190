"""Which parts of a method go together, by what they declare; nothing is imported for it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ood_lab.config.compose import Composed, target
from ood_lab.config.groups import LIST_GROUPS, PART_GROUPS, groups, nearest
from ood_lab.config.identity import read_by, reads_projections
from ood_lab.config.recipe import METHOD
from ood_lab.config.signature import signature
from ood_lab.errors import RequestError

TERM_GROUPS = ("id_loss", "outlier_loss", "regularizer")
SOURCES = ("synthesizer", "auxiliary")
# What the network can give for the outliers of a source; images have everything.
GIVES = {
    "projection": ("z",),
    "penultimate": ("features", "logits", "z"),
    "images": ("images", "features", "logits", "z", "targets"),
}
# Options of memories, which parts that read the same memory must agree in.
MEMORY_OPTIONS = {"prototypes": "prototype_momentum", "bank": "bank_size", "feature_bank": "bank_size"}
EXAMPLES = {"auxiliary": "randomimages300k"}


@dataclass(frozen=True)
class Part:
    """One chosen part: where its options stand, and what its class declares."""

    group: str
    path: str
    node: dict[str, Any]

    @property
    def declared(self) -> dict[str, Any]:
        """The plain values of its class."""
        return signature(str(self.node["_target_"])).constants


def chosen_parts(composed: Composed) -> list[Part]:
    """The parts of a request, in canonical order."""
    return [part for group in PART_GROUPS for part in _of_group(composed, group)]


def _of_group(composed: Composed, group: str) -> Iterator[Part]:
    node = composed.plain(group) or {}
    if group not in LIST_GROUPS:
        if node:
            yield Part(group, group, node)
        return
    for name in sorted(node):
        yield Part(group, f"{group}.{name}", node[name])


def check_parts(composed: Composed, folder: Path | None = None, given: Collection[str] = ()) -> None:
    """Refuse parts that can't work together.

    Args:
        given: the keys that the request states itself.

    Raises:
        RequestError: names the reason, and what would work.
    """
    for group in (*PART_GROUPS, "auxiliary"):
        node = composed.plain(group)
        nodes = list((node or {}).values()) if group in LIST_GROUPS else [node] if node else []
        if any("_target_" not in (inner or {}) for inner in nodes):
            raise RequestError(
                f"{group}: options are given, but no {group} is chosen; add {group}=NAME, or remove them"
            )
    if composed.plain("method._target_") != METHOD:
        return  # a loop of its own, which knows what it takes
    if "head.projection_dim" in given and not reads_projections(composed):
        raise RequestError(
            f"head.projection_dim: nothing of method={composed.choices['method']} reads projections, so that there is "
            "no projector; leave it out, or add a term that does: id_loss=[ce,cider]"
        )
    _check_declarations(composed, folder)
    _check_pairs(composed)
    _check_sources(composed, folder)
    _check_images(composed, folder)
    _check_frozen(composed)
    _check_projector(composed)
    _check_classes(composed)
    _check_schedules(composed)
    _check_memories(composed)


def _check_frozen(composed: Composed) -> None:
    """What is left as it is must be trained already."""
    init, name, trainable = composed.plain("init"), composed.choices["method"], composed.plain("method.trainable")
    if trainable == "whole":
        return
    if init["method"] is None and init["checkpoint"] is None and init["weights"] is None:
        raise RequestError(
            f"method={name} trains a part of the network (method.trainable={trainable}), on weights that "
            f"init={composed.choices['init']} does not give; leave init out, or give init.checkpoint=FILE"
        )
    if trainable != "heads":
        return
    if "shifts" in _of_head(composed, "gives") and not init.get("projector"):
        raise RequestError(
            f"method={name} is scored by the projector of its first stage, and init={composed.choices['init']} takes "
            "none over; use init=csi_contrast, alone or with init.checkpoint=FILE, the final weights of that stage"
        )


def _check_projector(composed: Composed) -> None:
    """Detectors score in the space of a projector where there is one: it must be trained, or left as its stage was."""
    if not reads_projections(composed):
        return
    kept = composed.plain("init").get("projector") and composed.plain("method.trainable") == "heads"
    terms = [part for part in chosen_parts(composed) if part.group in TERM_GROUPS and _weighs(part)]
    if not kept and not any("z" in read_by(str(part.node["_target_"])) for part in terms):
        raise RequestError(
            f"method={composed.choices['method']} has a projector that nothing trains: no term with a weight above 0 "
            "reads z, and detectors would score in its space; give such a term a weight, add one (id_loss=[ce,cider]), "
            "or leave out what only uses z (such as head=shifts)"
        )


def _check_classes(composed: Composed) -> None:
    """Some parts are about pairs of classes."""
    classes = composed.plain("dataset.recipe.num_classes")
    for part in chosen_parts(composed):
        least = int(part.declared.get("least_classes", 1))
        if classes is not None and classes < least:
            raise RequestError(
                f"{part.path} needs {least} ID classes, and dataset={composed.choices['dataset']} has {classes}; use "
                "parts that work with one, for example method=vos, or method=ce"
            )


def _of_head(composed: Composed, key: str) -> tuple[str, ...]:
    """What the class of the head declares under a key."""
    return tuple(next(_of_group(composed, "head")).declared.get(key, ()))


def _called(part: Part, composed: Composed) -> str:
    """A part as it is chosen: group=name, of a list group.name."""
    return part.path if part.group in LIST_GROUPS else f"{part.group}={composed.choices[part.group]}"


def _made(composed: Composed) -> tuple[str, ...]:
    """What the perturbation makes besides images."""
    return tuple(name for part in _of_group(composed, "perturbation") for name in part.declared.get("gives", ()))


def _heads_that_add(name: str, folder: Path | None) -> str:
    """The heads that give a tensor of this name, as they are typed."""
    adding = [
        h for h in groups(folder)["head"] if name in signature(target("head", h, folder)).constants.get("adds", ())
    ]
    return " or ".join(f"head={head}" for head in adding)


def _check_declarations(composed: Composed, folder: Path | None) -> None:
    """What a class says that it reads must be there: tensors of the network, and memories that it declares."""
    added, made = _of_head(composed, "adds"), _made(composed)
    for part in chosen_parts(composed):
        tensors = tuple(name for name in GIVES["images"] if name != "targets")  # which a perturbation makes
        kept = (*MEMORY_OPTIONS, *part.declared.get("memories", ()))
        for key, known in (
            ("reads", (*tensors, *added, *kept)),
            ("reads_whole", tensors[1:]),
            ("reads_shifted", (*tensors[1:], *added)),
            ("reads_outliers", (*tensors, *added, *made)),
        ):
            for name in part.declared.get(key, ()):
                if name == "targets" and name not in known:
                    source = composed.choices.get("perturbation") or "null"
                    raise RequestError(
                        f"{_called(part, composed)} reads targets, the labels of mixed images, and "
                        f"perturbation={source} makes none; use perturbation=mix"
                    )
                if name not in known and (heads := _heads_that_add(name, folder)):
                    raise RequestError(
                        f"{_called(part, composed)} reads {name}, which head={composed.choices['head']} does not give; "
                        f"use {heads}"
                    )
                if name not in known:
                    raise RequestError(
                        f"{part.path}: {part.node['_target_']} declares {key} {name!r}, which there is not."
                        f"{nearest(name, known)}"
                    )


def _check_pairs(composed: Composed) -> None:
    """Of options that a class pairs, the first must not exceed the second; one that is null has no limit."""
    for part in chosen_parts(composed):
        for lower, upper in part.declared.get("at_most", ()):
            values = part.node[lower], part.node[upper]
            if None not in values and values[0] > values[1]:
                raise RequestError(
                    f"{part.path}.{lower}={part.node[lower]}: expected at most {part.node[upper]}, the value of "
                    f"{part.path}.{upper}; lower the one or raise the other"
                )


def _check_sources(composed: Composed, folder: Path | None) -> None:
    """An outlier term needs one source that gives what it reads, and a source needs a term."""
    chosen = {group: composed.choices.get(group) for group in SOURCES if composed.plain(group)}
    if len(chosen) == 2:
        raise RequestError(
            f"synthesizer={chosen['synthesizer']} and auxiliary={chosen['auxiliary']}: two sources of outliers; keep "
            "one: synthesizer=null or auxiliary=null"
        )
    loss = next(_of_group(composed, "outlier_loss"), None)
    name = composed.choices.get("outlier_loss")
    wanted = () if loss is None else tuple(loss.declared.get("reads_outliers", ()))
    wanted = tuple(name for name in wanted if name not in _of_head(composed, "adds"))  # which is checked already
    about_images = any(composed.plain(group) for group in ("selector", "perturbation")) or any(
        "images" in part.declared.get("reads_outliers", ()) for part in _of_group(composed, "regularizer")
    )
    if loss is None and not chosen:
        return
    if loss is None:
        group, choice = next(iter(chosen.items()))
        works = _first(folder, "outlier_loss", lambda n: _covers(_given(composed), _reads(n, folder)))
        raise RequestError(
            f"method={composed.choices['method']} takes no {group}, but {group}={choice} was given, whose outliers "
            f"nothing reads; add {works}, or remove it: {group}=null"
        )
    if not chosen:
        works = "" if about_images else _first(folder, "synthesizer", partial(_covers_space, folder, wanted))
        images = f"auxiliary={EXAMPLES['auxiliary']}"
        raise RequestError(
            f"method={composed.choices['method']} needs a source of outliers (outlier_loss={name}); add "
            + (f"{works}, or {images}" if works else f"{images} or another image set")
        )
    given = _given(composed)
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


def _given(composed: Composed) -> str:
    """What kind of outliers the chosen source gives."""
    synthesizer = next(_of_group(composed, "synthesizer"), None)
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


def _check_images(composed: Composed, folder: Path | None) -> None:
    """Selectors, perturbations and penalties on gradients are about images."""
    for part in _of_group(composed, "regularizer"):
        wanted = part.declared.get("reads_outliers", ())
        if "images" in wanted and not composed.plain("auxiliary"):
            points = composed.plain("synthesizer")
            instead = f", use {part.group}=[feature_gradient] for points of a feature space" if points else ""
            raise RequestError(
                f"{part.path} reads images of outliers, and there are none; add auxiliary={EXAMPLES['auxiliary']} "
                f"(with outlier_loss=outlier_exposure, as in method=oe){instead}, or leave it out"
            )
        lacking = [name for name in wanted if name not in (*GIVES[_given(composed)], *_of_head(composed, "adds"))]
        if lacking or (wanted and not composed.plain("synthesizer") and not composed.plain("auxiliary")):
            what = f"{', '.join(lacking or wanted)} of outliers"
            source = composed.choices.get("synthesizer")
            given = f"synthesizer={source} gives {', '.join(GIVES[_given(composed)])}" if lacking else "there are none"
            works = _first(folder, "synthesizer", partial(_covers_space, folder, tuple(wanted)))
            raise RequestError(f"{part.path} reads {what}, and {given}; use {works}, or leave it out")
        if part.node.get("reading") == "sample" and composed.plain("method.outlier_statistics") == "own":
            raise RequestError(
                f"{part.path}.reading=sample normalises ID and outlier images together, and method.outlier_statistics="
                "own apart; use reading=batch, or method.outlier_statistics=joint"
            )
    label = composed.plain("perturbation.outlier_label") if composed.plain("perturbation") else None
    if label == "absent" and "absent" not in _of_head(composed, "adds"):
        raise RequestError(
            f"perturbation.outlier_label=absent: head={composed.choices['head']} has no output for none of the "
            "classes; use head=absent_class, or perturbation.outlier_label=uniform"
        )
    if composed.plain("selector.engine") == "faiss" and find_spec("faiss") is None:
        raise RequestError("selector.engine=faiss: faiss is not installed; pip install faiss-cpu, or use engine=torch")
    candidates, taken = composed.plain("selector.candidates"), composed.cfg.trainer.auxiliary_batch_size
    if candidates is not None and candidates < taken:
        raise RequestError(
            f"selector.candidates={candidates}: fewer than the {taken} outlier images of a step "
            "(trainer.auxiliary_batch_size); give more, or null: every image is a candidate once an epoch"
        )
    for group, what in (("selector", "chooses among images"), ("perturbation", "changes images")):
        if composed.plain(group) and not composed.plain("auxiliary"):
            source = composed.choices.get("synthesizer")
            given = f"synthesizer={source} gives points of a feature space" if source else "there is none"
            raise RequestError(
                f"{group}={composed.choices[group]} {what} of an auxiliary set, and {given}; add "
                f"auxiliary={EXAMPLES['auxiliary']}{' synthesizer=null' if source else ''}, or give {group}=null"
            )
    if composed.plain("method.trainable") == "whole":
        return
    for part in _of_group(composed, "regularizer"):
        if "images" in part.declared.get("reads", ()):
            raise RequestError(
                f"{part.path} is about gradients with respect to images, but method.trainable="
                f"{composed.plain('method.trainable')} freezes the first layers; use method.trainable=whole"
            )


def _check_schedules(composed: Composed) -> None:
    """A term must begin before it ends, and before the run does."""
    epochs = composed.plain("trainer.max_epochs")
    for part in chosen_parts(composed):
        if part.group not in TERM_GROUPS:
            continue
        start, end = part.node.get("start", 0), part.node.get("end")
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
    running = [p for p in chosen_parts(composed) if p.group == "id_loss" and _weighs(p)]
    if not any(part.node.get("start", 0) == 0 for part in running) and epochs > 0:
        names = ", ".join(part.path for part in running) or "none has a weight above 0"
        raise RequestError(f"no term on ID data takes part in the first step ({names}); let one start at 0")


def _weighs(part: Part) -> bool:
    """Whether a term is minimised with a weight above 0."""
    if part.declared.get("watched"):
        return False
    inner = [part.node.get(f"w_{name}", 1) for name in part.declared.get("scalars", ())] or [1]
    return bool(part.node.get("weight", 1) > 0 and any(weight > 0 for weight in inner))


def _check_memories(composed: Composed) -> None:
    """Parts that read the same memory share it, and must ask for the same one."""
    for name, option in MEMORY_OPTIONS.items():
        values = {part.path: part.node[option] for part in chosen_parts(composed) if option in part.node}
        if len(set(values.values())) > 1:
            told = " and ".join(f"{path}.{option}={value}" for path, value in values.items())
            raise RequestError(f"{told}: these parts share one memory ({name}); give them the same value")

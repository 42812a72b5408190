"""Which image sets an experiment reads, and whether their files are there: a look at the disk, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ood_lab.config.check import check_groups, parse
from ood_lab.config.compose import compose, surroundings
from ood_lab.config.experiment import Experiment
from ood_lab.config.groups import TRAINED_ON, groups
from ood_lab.config.image_set_use import ImageSetUse
from ood_lab.config.own_folder import UNNAMED, folder_set, is_own
from ood_lab.config.quoting import quote
from ood_lab.config.suggest import nearest
from ood_lab.errors import RequestError, RunError
from ood_lab.reader.base import same_name
from ood_lab.reader.id_splits import held_out_per_class, read_id_split, training_classes
from ood_lab.reader.layout import class_names, layouts_of


def image_set_config(name: str, data: str, folder: Path | None = None, benchmark: str = "cifar10") -> dict[str, Any]:
    """The node of `conf/dataset/<name>.yaml`, composed beside `paths.data` and the ID set's benchmark."""
    return _image_set_config(name, data, folder, benchmark, surroundings(folder))


@cache
def _image_set_config(name: str, data: str, folder: Path | None, benchmark: str, _state: int) -> dict[str, Any]:
    overrides = [f"dataset={name}", f"paths.data={quote(data)}", f"benchmark={quote(benchmark)}"]
    check_groups(parse(overrides), folder)
    node = compose(overrides, config_name="image_set", folder=folder).plain("dataset")
    assert isinstance(node, dict)
    return node


def image_sets(experiment: Experiment) -> list[ImageSetUse]:
    """Every set that an experiment reads, whether or not it is there: ID, others of training, near, far, validation.

    Raises:
        RequestError: no OOD set, one that is unknown, named twice or the ID set itself.
    """
    protocol, id_set = experiment.protocol, experiment.dataset
    if experiment.makes_no_classifier and "dataset" not in experiment.read_groups:
        return []
    uses = [ImageSetUse("id", id_set.name, id_set.node, None)]
    if experiment.makes_no_classifier:
        return uses
    tested = [*protocol.near, *protocol.far]
    for trained in experiment.other_training_sets:
        if trained.name == id_set.name:
            raise RequestError(f"{trained.group}={trained.name}: that is the ID set itself; choose another")
        apart = any({"train", "auxiliary"} & set(layout) for layout in layouts_of(trained.node).values())
        if trained.name in tested and not apart:
            raise RequestError(
                f"{trained.group}={trained.name} is also a test set of the protocol: it would be trained on. Choose "
                f"another {trained.group} set, or leave it out of protocol.near and protocol.far"
            )
        uses.append(ImageSetUse(trained.group, trained.name, trained.node, trained.get("count")))
    if not tested:
        chosen, known = experiment.choices["protocol"], list(protocol.sets)
        raise RequestError(
            f"protocol={chosen} names no OOD set for dataset={id_set.name}"
            + (f" (it has some for {', '.join(known)})" if known else "")
            + "; choose another protocol, or name sets in protocol.near and protocol.far"
        )
    stated: dict[str, int | None] = {}
    for group in ("near", "far", "validation"):
        stated |= (protocol.sets.get(id_set.name) or {}).get(group, {})
    looked_at = experiment.tuning is not None or experiment.trainer.evaluate_every > 0
    tuned = protocol.validation if looked_at else []
    for name in (*tested, *tuned):
        if name in tuned and name in tested:
            raise RequestError(f"protocol.validation: {name!r} is a test set, too; nothing is tuned on test data")
        if name == id_set.name or (*tested, *tuned).count(name) > 1:
            why = "is the ID set itself" if name == id_set.name else "is named twice"
            raise RequestError(f"protocol.near and protocol.far: {name!r} {why}; name each OOD set once")
        node = _node_of(name, experiment)
        if node.get("needs"):
            raise RequestError(
                f"protocol.near and protocol.far: {name!r} is made by another run, where OOD sets lie on the disk; "
                f"use it as auxiliary={name}"
            )
        role = next(r for r in ("near", "far", "validation") if name in getattr(protocol, r))
        expected = None if name in protocol.folders else stated.get(name) or node.get("count")
        uses.append(ImageSetUse(role, name, node, expected))
    return uses


def _node_of(name: str, experiment: Experiment) -> dict[str, Any]:
    """The description of an OOD set that the protocol names."""
    data, folder, path = experiment.paths.data, experiment.config_dir, experiment.protocol.folders.get(name)
    if path is not None:
        return folder_set(image_set_config(UNNAMED, data, folder, experiment.benchmark), name, path)
    known = groups(folder)["dataset"]
    if name not in known:
        slash = f"A folder of images is written with a slash: ./{name}"
        meant = f" {slash}" if Path(name).is_dir() else f"{nearest(name, known)} {slash}"
        raise RequestError(f"protocol: {name!r} is no data set.{meant}")
    return image_set_config(name, data, folder, experiment.benchmark)


def check_image_sets(experiment: Experiment) -> list[ImageSetUse]:
    """The sets of an experiment that are there.

    Raises:
        RequestError: the ID or the auxiliary set is missing; an OOD set is missing and `protocol.missing` is "error";
            a set has another number of images than stated and `protocol.check` is "strict"; a set shares a class with
            the ID set; no OOD set is left to score.
    """
    protocol = experiment.protocol
    where = f" The folder searched is paths.data={experiment.paths.data} (or the environment variable OOD_LAB_DATA)."
    where += " task=data lists every set that is needed and how to get it."
    present: list[ImageSetUse] = []
    for use in image_sets(experiment):
        if use.role == "id" and use.layout is not None:
            check_id_set(use.node, use.layout, protocol.id_val or 0)
            present.append(use)
        elif use.layout is None and use.role in TRAINED_ON and use.node.get("needs"):
            present.append(use)  # made first
        elif use.layout is not None:
            _check_apart(use, present)
            _check_one(use, present[0], protocol.check)
            present.append(use)
        elif use.role in ("id", *TRAINED_ON, "validation"):
            named = any(text.startswith("dataset.") for text in experiment.overrides)
            first = " Name the folder of your images: dataset.root=FOLDER." if is_own(use.node) and not named else ""
            raise RequestError(f"the {_spoken(use.role)} set {use.name} is not there.{first} {use.missing()}{where}")
        elif protocol.missing == "error":
            skip = " To score only what is there: protocol.missing=skip."
            raise RequestError(f"the OOD set {use.name} is not there. {use.missing()}{where}{skip}")
    if not (experiment.makes_no_classifier or any(use.role in ("near", "far") for use in present)):
        raise RequestError(f"no OOD set of the protocol is there.{where}")
    return present


def _check_one(use: ImageSetUse, id_use: ImageSetUse, check: str) -> None:
    try:
        found = use.found()
        shared = _shared_classes(use, id_use)
    except RunError as error:
        raise RequestError(str(error)) from None
    if shared:
        out = f"Leave them out with exclude in its conf/dataset/{use.name}.yaml"
        if is_own(use.node):
            out = f"Name the folders that are OOD one by one, as in protocol.far=[{use.node['root']}/FOLDER,...]"
        raise RequestError(
            f"{use.name} shares {len(shared)} classes with {id_use.name} ({', '.join(sorted(shared)[:3])}"
            f"{', ...' if len(shared) > 3 else ''}): "
            f"they would count as OOD. {out}"
        )
    if check == "strict" and use.expected is not None and found is not None and found != use.expected:
        raise RequestError(
            f"{use.name}: {found:,} images ({use.layout} layout) where {use.expected:,} are stated. "
            "Complete the set, or accept it with protocol.check=loose: it is then marked as partial."
        )


def check_id_set(node: dict[str, Any], layout: str, id_val: int) -> None:
    """Whether an ID set's splits agree on their classes, and whether its test images suffice for validation.

    Sets in one file, which are downloaded whole, are checked when they are read.

    Raises:
        RequestError: see `read_id_split` and `held_out_per_class`; or the recipe states another number of classes.
    """
    if layout == "embedded":
        return
    splits = [split for split in ("train", "val", "test") if split in layouts_of(node)[layout]]
    try:
        classes, stated = training_classes(node, layout), (node["recipe"] or {}).get("num_classes")
        if classes is not None and stated not in (None, len(classes)):
            raise RequestError(
                f"{node['name']}: dataset.recipe.num_classes={stated}, but the training images in {node['root']} have "
                f"{len(classes)} classes ({', '.join(classes[:6])}{', ...' if len(classes) > 6 else ''}). "
                f"Use dataset.recipe.num_classes={len(classes)}, or complete the images"
            )
        if not all({"folder", "list"} & set(layouts_of(node)[layout][split]) for split in splits):
            return
        listings = {split: read_id_split(node, layout, split) for split in splits}
        if id_val and "val" not in splits and "test" in splits:
            held_out_per_class(listings["test"], id_val)
    except RunError as error:
        raise RequestError(str(error)) from None


def _shared_classes(use: ImageSetUse, id_use: ImageSetUse) -> set[str]:
    """Classes of a set that are also among those that the ID set trains on or is tested on."""
    mine = {*class_names(id_use.node, str(id_use.layout), "id")}
    mine |= {*((training_classes(id_use.node, str(id_use.layout)) or ()) if id_use.splits else ())}
    known = {same_name(name) for name in mine}
    return {name for name in class_names(use.node, str(use.layout), use.split) if same_name(name) in known}


def _check_apart(use: ImageSetUse, others: Sequence[ImageSetUse]) -> None:
    """A folder of OOD images must not hold, or lie in, those that are trained or tested on as something else."""
    mine = use.folders()
    for other in others:
        for folder in other.folders():
            for path in mine:
                if path.is_relative_to(folder) or folder.is_relative_to(path):
                    raise RequestError(
                        f"{use.name} ({path}) and the {_spoken(other.role)} set {other.name} ({folder}) share images, "
                        f"which would count as both; name a folder that lies apart"
                    )


def _spoken(role: str) -> str:
    return {"id": "ID"}.get(role, role)

"""Which image sets a request reads, and whether their files are there: a look at the disk, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ood_lab.config.check import check_groups, parse
from ood_lab.config.compose import Composed, compose, surroundings
from ood_lab.config.groups import groups, nearest
from ood_lab.config.own_folder import UNNAMED, folder_set, is_own
from ood_lab.config.quoting import quote
from ood_lab.errors import RequestError, RunError
from ood_lab.reader.base import same_name
from ood_lab.reader.id_splits import held_out_per_class, read_id_split, training_classes
from ood_lab.reader.layout import class_names, count, files_of, find_layout, lacking, layouts_of, read_layout, source_of


@dataclass(frozen=True)
class ImageSetUse:
    """One set in one role of a request: "id", "auxiliary", "near", "far" or "validation".

    Args:
        node: its description.
        expected: images that the protocol, or else the set's own description, states; None where neither does.
    """

    role: str
    name: str
    node: dict[str, Any]
    expected: int | None

    @property
    def split(self) -> str:
        """What is read of it: all of an ID set, or the "ood" or "auxiliary" split."""
        return self.role if self.role in ("id", "auxiliary") else "ood"

    @property
    def layout(self) -> str | None:
        """The layout that is there; None if none is complete."""
        return find_layout(self.node, self.split)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of an ID set that have files of their own."""
        sources = {} if self.layout in (None, "embedded") else layouts_of(self.node)[str(self.layout)]
        return tuple(split for split in ("train", "val", "test") if split in sources)

    def files(self, split: str) -> tuple[Path, ...]:
        """The files that a split is read from; none for an embedded set."""
        layout = self.layout
        return () if layout in (None, "embedded") else files_of(self.node, str(layout), split)

    def folders(self) -> list[Path]:
        """The folders that a set of one's own is read from."""
        if not is_own(self.node) or self.layout is None:
            return []
        sources, root = layouts_of(self.node)[self.layout], Path(self.node["root"])
        names = self.splits if self.role == "id" else (self.split,)
        read = [source_of(sources, name) for name in names]
        return [(root / source["folder"]).resolve() for source in read if "folder" in source]

    def found(self) -> int | None:
        """How many images are there (of an ID set: in its test split), where that is quickly told."""
        layout = self.layout
        return None if layout is None else count(self.node, layout, "test" if self.role == "id" else self.split)

    def notes(self) -> list[str]:
        """What lies there and is not read."""
        layout = self.layout
        if layout in (None, "embedded"):
            return []
        sources = layouts_of(self.node)[str(layout)]
        splits = self.splits if self.role == "id" else (self.split,)
        folders = [split for split in splits if "folder" in source_of(sources, split)]
        return [note for split in folders for note in read_layout(self.node, str(layout), split).notes]

    def missing(self) -> str:
        """What was looked for, and how to get it."""
        root = Path(self.node["root"])
        wanted = []
        for layout in layouts_of(self.node):
            absent = lacking(self.node, layout, self.split)
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            wanted.append(f"{root / absent[0]}{more} ({layout} layout)")
        return f"{self.name}: missing {', or '.join(wanted)}. {self.node['how_to_get']}"


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


def image_sets(composed: Composed, folder: Path | None = None) -> list[ImageSetUse]:
    """Every set that a request reads, whether or not it is there: the ID set, the auxiliary set, near, far.

    Raises:
        RequestError: no OOD set, one that is unknown, named twice or the ID set itself.
    """
    data, id_node = str(composed.cfg.paths.data), composed.plain("dataset")
    uses = [ImageSetUse("id", id_node["name"], id_node, None)]
    auxiliary = composed.plain("auxiliary")
    if auxiliary is not None:
        if auxiliary["name"] == id_node["name"]:
            raise RequestError(f"auxiliary={auxiliary['name']}: that is the ID set itself; choose another")
        tested = [*composed.plain("protocol.near"), *composed.plain("protocol.far")]
        apart = any({"train", "auxiliary"} & set(layout) for layout in layouts_of(auxiliary).values())
        if auxiliary["name"] in tested and not apart:
            raise RequestError(
                f"auxiliary={auxiliary['name']} is also a test set of the protocol: it would be trained on. "
                "Choose another auxiliary set, or leave it out of protocol.near and protocol.far"
            )
        uses.append(ImageSetUse("auxiliary", auxiliary["name"], auxiliary, auxiliary.get("count")))
    tested = [*composed.plain("protocol.near"), *composed.plain("protocol.far")]
    if not tested:
        protocol, known = composed.choices["protocol"], list(composed.plain("protocol.sets"))
        raise RequestError(
            f"protocol={protocol} names no OOD set for dataset={id_node['name']}"
            + (f" (it has some for {', '.join(known)})" if known else "")
            + "; choose another protocol, or name sets in protocol.near and protocol.far"
        )
    stated: dict[str, int | None] = {}
    for group in ("near", "far", "validation"):
        stated |= (composed.plain("protocol.sets").get(id_node["name"]) or {}).get(group, {})
    tuned = composed.plain("protocol.validation") if composed.plain("tuning") else []
    for name in (*tested, *tuned):
        if name in tuned and name in tested:
            raise RequestError(f"protocol.validation: {name!r} is a test set, too; nothing is tuned on test data")
        if name == id_node["name"] or (*tested, *tuned).count(name) > 1:
            why = "is the ID set itself" if name == id_node["name"] else "is named twice"
            raise RequestError(f"protocol.near and protocol.far: {name!r} {why}; name each OOD set once")
        benchmark, place = str(composed.cfg.benchmark), composed.plain("protocol.folders").get(name)
        if place is not None:
            node = folder_set(image_set_config(UNNAMED, data, folder, benchmark), name, place)
        elif name not in groups(folder)["dataset"]:
            raise RequestError(
                f"protocol: {name!r} is no data set.{nearest(name, groups(folder)['dataset'])} "
                f"A folder of images is written with a slash: ./{name}"
            )
        else:
            node = image_set_config(name, data, folder, benchmark)
        role = next(r for r in ("near", "far", "validation") if name in composed.plain(f"protocol.{r}"))
        expected = None if place is not None else stated.get(name) or node.get("count")
        uses.append(ImageSetUse(role, name, node, expected))
    return uses


def check_image_sets(composed: Composed, folder: Path | None = None) -> list[ImageSetUse]:
    """The sets of a request that are there.

    Raises:
        RequestError: the ID or the auxiliary set is missing; an OOD set is missing and `protocol.missing` is "error";
            a set has another number of images than stated and `protocol.check` is "strict"; a set shares a class with
            the ID set; no OOD set is left to score.
    """
    data, protocol = str(composed.cfg.paths.data), composed.cfg.protocol
    where = f" The folder searched is paths.data={data} (or the environment variable OOD_LAB_DATA)."
    where += " task=data lists every set that is needed and how to get it."
    present: list[ImageSetUse] = []
    for use in image_sets(composed, folder):
        if use.role == "id" and use.layout is not None:
            check_id_set(use.node, use.layout, protocol.id_val)
            present.append(use)
        elif use.layout is not None:
            _check_apart(use, present)
            _check_one(use, present[0], protocol.check)
            present.append(use)
        elif use.role in ("id", "auxiliary", "validation"):
            raise RequestError(f"the {_spoken(use.role)} set {use.name} is not there. {use.missing()}{where}")
        elif protocol.missing == "error":
            skip = " To score only what is there: protocol.missing=skip."
            raise RequestError(f"the OOD set {use.name} is not there. {use.missing()}{where}{skip}")
    if not any(use.role in ("near", "far") for use in present):
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

"""What the disk says where a command doesn't: own folders and their names, classes, validation images, batch size."""

from __future__ import annotations

from ood_lab.config.compose import Composed
from ood_lab.config.groups import TRAINED_ON
from ood_lab.config.own_folder import is_own, is_path, located, named_path
from ood_lab.errors import RequestError, RunError
from ood_lab.reader.id_splits import default_held_out, read_id_split, training_classes
from ood_lab.reader.layout import find_layout, layouts_of

# What `protocol.id_val` is for a set with a validation part of its own: any number above 0 means that part.
OWN_VALIDATION = 1000


def filled_from_disk(composed: Composed) -> Composed:
    """What the disk says where the command doesn't: the folders of own sets, the numbers of classes and ID validation.

    Validation gets a fifth of the test images at most; a set that has a validation part of its own keeps it.

    Raises:
        RequestError: the images can't be read; two folders of the protocol have one name.
    """
    data = str(composed.plain("paths.data"))
    for role, key in (("id", "dataset"), *((role, role) for role in TRAINED_ON)):
        node = composed.plain(key)
        if node is not None and is_own(node) and (found := located(node, role, data)) != node:
            composed = composed.changed(key, found)
    composed = _with_folders(composed)
    node, protocol = composed.plain("dataset"), composed.plain("protocol")
    layout = find_layout(node, "id")
    try:
        if layout not in (None, "embedded") and node["recipe"]["num_classes"] is None:
            classes = training_classes(node, str(layout))
            if classes is None:
                raise RequestError(f"dataset.recipe.num_classes: {node['name']} has no class names; state the number")
            node["recipe"]["num_classes"] = len(classes)
            if is_own(node) and node["recipe"]["batch_size"] is None:
                node["recipe"]["batch_size"] = own_batch_size(len(read_id_split(node, str(layout), "train")))
            composed = composed.changed("dataset", node)
        if layout is not None and protocol["id_val"] is None:
            own = layout == "embedded" or "val" in layouts_of(node)[layout]
            kept = OWN_VALIDATION if own else default_held_out(read_id_split(node, layout, "test").labels)
            composed = composed.changed("protocol", {**protocol, "id_val": kept})
    except RunError as error:
        if composed.plain("task.name") == "data":  # which says so itself
            return composed
        raise RequestError(str(error)) from None
    return composed


def own_batch_size(images: int) -> int:
    """128, halved until an epoch has ten steps; 8 at least."""
    size = 128
    while size > 8 and images < 10 * size:
        size //= 2
    return size


def _with_folders(composed: Composed) -> Composed:
    """The protocol with the names of its folders in the place of their paths."""
    protocol, folders = composed.plain("protocol"), dict(composed.plain("protocol.folders"))
    for group in ("near", "far", "validation"):
        for i, entry in enumerate(protocol[group]):
            if not is_path(entry):
                continue
            name, path = named_path(entry)
            taken = folders.get(name)
            others = [e for g in ("near", "far", "validation") for e in protocol[g] if e is not entry]
            if taken not in (None, path) or name in others or name == composed.plain("dataset.name"):
                raise RequestError(
                    f"protocol.{group}: two sets are called {name!r}, one of them {path}; give it another name: "
                    f"'another_name:{path}'"
                )
            folders[name] = path
            protocol[group][i] = name
    if folders == protocol["folders"]:
        return composed
    return composed.changed("protocol", {**protocol, "folders": folders})

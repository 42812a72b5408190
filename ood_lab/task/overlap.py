"""Which images of the auxiliary set are also images of the ID set, or of an OOD set that is scored."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

from ood_lab.config.experiment import Experiment
from ood_lab.config.schema import Chain
from ood_lab.files.storage import write_atomically
from ood_lab.images.overlap import digests
from ood_lab.images.pixels import Decoded, Reading, cache_key
from ood_lab.images.transform import Transform
from ood_lab.reader.base import Listing
from ood_lab.task.build import build, build_reading

FILE = "overlap.json"
SAME = "the auxiliary set itself"


def overlaps(experiment: Experiment) -> dict[str, str]:
    """What each set has in common with the auxiliary set, in words: "train" and "test" of the ID set, and OOD sets.

    Images are compared as the network is given them, by the pixels. An OOD set of the same name counts as shared even
    if training takes another split of it. Sets that are decoded for each step are not compared. What was counted is
    kept in the run's folder, and counted again for other files.
    """
    if experiment.auxiliary is None:
        return {}
    found = {name: SAME for name in experiment.ood_sets if name == experiment.use("auxiliary").name}
    for name, count, of in _counted(experiment):
        if count and name not in found:
            found[name] = f"{count:,} of {of:,} images"
    return found


def announce(experiment: Experiment) -> None:
    """Say before training what the auxiliary set shares with sets that are scored or learned."""
    if experiment.auxiliary is None:
        return
    for name, shared in overlaps(experiment).items():
        of_id = name in ("train", "test")
        images = f"the ID {name} images" if of_id else f"the OOD set {name}"
        if shared == SAME:
            message = f"{name} is the auxiliary set and an OOD set; it stays out of the means over OOD sets"
        else:
            left = "" if of_id else "; it stays out of the means over OOD sets"
            message = f"{shared} of {images} are images of the auxiliary set {experiment.auxiliary.name}, too{left}"
        print(f"note: {message}", file=sys.stderr, flush=True)


def _counted(experiment: Experiment) -> Iterator[tuple[str, int, int]]:
    """Set, how many of its images are in the auxiliary set, and how many it has."""
    reading, path = build_reading(experiment), experiment.run_dir / FILE
    kept: dict[str, int] = json.loads(path.read_text()) if path.is_file() else {}
    before = dict(kept)
    known: set[bytes] | None = None
    node = experiment.use("auxiliary").node
    auxiliary = build(node).listing("auxiliary")
    for name, listing, chain in _sets(experiment):
        pair = f"{_key(auxiliary, 'short_side', reading)}-{_key(listing, chain, reading)}"
        if pair not in kept:
            pixels, theirs = reading.open(listing, name, chain), reading.open(auxiliary, node["name"])
            if not (isinstance(pixels, Decoded) and isinstance(theirs, Decoded)):
                continue
            known = set(digests(theirs, node["name"])) if known is None else known
            kept[pair] = sum(digest in known for digest in digests(pixels, name))
        yield name, kept[pair], len(listing)
    if kept != before:
        write_atomically(path, json.dumps(kept, indent=1).encode())


def _key(listing: Listing, chain: Chain, reading: Reading) -> str:
    return cache_key(listing, Transform(chain, reading.resize, reading.side))


def _sets(experiment: Experiment) -> Iterator[tuple[str, Listing, Chain]]:
    """The sets that are compared, and how their images are prepared."""
    protocol, own = experiment.protocol, build(experiment.use("id").node)
    for split in ("train", "test"):
        yield split, own.listing(split, protocol.id_val or 0), "short_side"
    for name in experiment.ood_sets:
        listing = build(experiment.use(name).node).listing("ood")
        yield name, listing, protocol.transforms.get(name, protocol.transform)

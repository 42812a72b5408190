"""An image set in one of its roles in an experiment: which layout is there, its files, how many images. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ood_lab.config.groups import TRAINED_ON
from ood_lab.config.own_folder import is_own
from ood_lab.reader.layout import count, files_of, find_layout, layouts_of, missing_files, read_layout, source_of


@dataclass(frozen=True)
class ImageSetUse:
    """One set in one role of a request: "id", "auxiliary", "pictures", "near", "far" or "validation".

    Args:
        name: as results and commands call it.
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
        if self.role in TRAINED_ON:
            return "auxiliary"
        return "id" if self.role == "id" else "ood"

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
            absent = missing_files(self.node, layout, self.split)
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            wanted.append(f"{root / absent[0]}{more} ({layout} layout)")
        return f"{self.name}: missing {', or '.join(wanted)}. {self.node['how_to_get']}"

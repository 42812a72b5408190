"""Writing a set as shards: several processes share the work, and nothing is made twice."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from safetensors.numpy import save

from ood_lab.errors import RunError
from ood_lab.files.artifact import Artifact, set_aside
from ood_lab.files.disk import bytes_text, disk_errors, free_bytes
from ood_lab.files.storage import write_atomically
from ood_lab.progress import Meter
from ood_lab.reader.shards import MANIFEST, Manifest, Shard, digest, load_manifest, wrong_sizes

Items = Mapping[str, NDArray[Any]]
DIGITS = 16  # of the SHA-256, in a shard's name


@dataclass(frozen=True)
class ShardedSet(Artifact):
    """A folder of shards and their manifest.

    A shard's name holds the digest of its bytes: a killed process leaves whole shards or none, and a damaged one is
    seen. Each is made under a lock of its own: two processes that make one set share its shards.

    Args:
        folder: of the shards.
        set_key: names all that the items depend on.
        items: how many.
        shard_items: how many a shard has, the last one fewer.
        produce: first and last item (exclusive) -> tensors whose rows are the items; a function of nothing else.
        classes: the name of each label.
        about: is written into the manifest.
        spent: is told the number of each shard that is made here, and the seconds that it took.
    """

    folder: Path
    set_key: str
    items: int
    shard_items: int
    produce: Callable[[int, int], Items]
    classes: tuple[str, ...] | None = None
    about: Mapping[str, Any] | None = None
    spent: Callable[[int, float], None] | None = None

    @property
    def key(self) -> str:
        return self.set_key

    @property
    def path(self) -> Path:
        return self.folder / MANIFEST

    @property
    def shards(self) -> int:
        """How many there are."""
        return -(-self.items // self.shard_items)

    def is_complete(self) -> bool:
        """Whether the manifest is there and every shard has the bytes that it names (see `verify` for more).

        Raises:
            RunError: the manifest is that of another set.
        """
        if not self.path.is_file():
            return False
        try:
            manifest = load_manifest(self.folder)
        except RunError:  # set aside when it is written again
            return False
        if manifest.key != self.key or manifest.items != self.items:
            raise RunError(
                f"{self.path} is of another set ({manifest.items:,} items, key {manifest.key}; expected "
                f"{self.items:,}, {self.key}). Move {self.folder} away, and the same command makes the set anew"
            )
        return not wrong_sizes(self.folder, manifest)

    def verify(self) -> None:
        """Compare the digest of each shard; one that differs is set aside, which is said, and made again."""
        if self.is_complete() and all(self._shard(number) is not None for number in range(self.shards)):
            return
        self.make()

    def make(self) -> None:
        """Make the shards that are missing, beside other processes that do the same; then write the manifest.

        Raises:
            RunError: the disk is full, or can't be written.
        """
        with Meter("synthesize", self.items) as meter, disk_errors(self.folder):
            locks = self.folder / ".locks"
            locks.mkdir(parents=True, exist_ok=True)
            waiting = []
            for number in range(self.shards):
                lock = FileLock(locks / f"{number:05d}.lock")
                try:
                    with lock.acquire(timeout=0):
                        self._make_shard(number)
                    meter.advance(self._size(number))
                except Timeout:  # another process makes it
                    waiting.append(number)
            for number in waiting:
                with FileLock(locks / f"{number:05d}.lock"):
                    self._make_shard(number)
                meter.advance(self._size(number))
            with FileLock(locks / "manifest.lock"):
                self._write_manifest()

    def _size(self, number: int) -> int:
        return min(self.shard_items, self.items - number * self.shard_items)

    def _make_shard(self, number: int) -> None:
        """Make a shard that is not there; the caller holds its lock."""
        for path in self._damaged(number):
            set_aside(path, "its bytes are not those that its name says")
        if self._shard(number) is not None:
            return
        start, began = number * self.shard_items, time.monotonic()
        made = self.produce(start, start + self._size(number))
        for name, values in made.items():
            if len(values) != self._size(number):
                raise RunError(f"the producer gave {len(values)} {name} where {self._size(number)} were asked for")
        data = save({name: np.ascontiguousarray(values) for name, values in made.items()})
        self._check_room(len(data))
        name = f"{number:05d}-{hashlib.sha256(data).hexdigest()[:DIGITS]}.safetensors"
        write_atomically(self.folder / name, data)
        if self.spent is not None:
            self.spent(number, time.monotonic() - began)

    def _check_room(self, size: int) -> None:
        """Whether the shards that are still to be made fit on the disk, each about this large."""
        there = {path.name.partition("-")[0] for path in self.folder.glob("*-*.safetensors")}
        missing = self.shards - len(there)
        needed, free = size * missing, free_bytes(self.folder)
        if free is not None and needed > free:
            raise RunError(
                f"{self.folder}: {missing:,} of {self.shards:,} shards are still to be made and take about "
                f"{bytes_text(needed)}, and {bytes_text(free)} are free. Free some space, or choose another "
                "paths.output"
            )

    def _files(self, number: int) -> list[Path]:
        """The files of a shard's number, whole or not."""
        return sorted(self.folder.glob(f"{number:05d}-*.safetensors"))

    def _damaged(self, number: int) -> list[Path]:
        """Those whose bytes are not what their name says."""
        return [path for path in self._files(number) if not _is_whole(path, digest(path))]

    def _shard(self, number: int) -> Shard | None:
        """A shard that is there, its bytes compared with its name."""
        for path in self._files(number):
            sha256 = digest(path)
            if _is_whole(path, sha256):
                return Shard(path.name, self._size(number), path.stat().st_size, sha256)
        return None

    def _write_manifest(self) -> None:
        found = [self._shard(number) for number in range(self.shards)]
        shards = tuple(shard for shard in found if shard is not None)
        if len(shards) < self.shards:
            raise RunError(f"{self.folder}: a shard was taken away while others were made; run the same command again")
        for left in self.folder.glob(".*-*.safetensors.*.tmp"):  # of processes that were killed
            left.unlink(missing_ok=True)
        manifest = Manifest(self.key, shards, self.classes, dict(self.about or {}))
        if self.path.is_file():
            try:
                load_manifest(self.folder)
            except RunError as error:
                set_aside(self.path, error)
        text = manifest.text().encode()
        if not self.path.is_file() or self.path.read_bytes() != text:
            write_atomically(self.path, text)


def _is_whole(path: Path, sha256: str) -> bool:
    return path.stem.partition("-")[2] == sha256[:DIGITS]

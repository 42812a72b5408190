"""Artifacts: files that follow from their inputs, made once, found again by their key, whole or not there."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import ClassVar, TypeVar

from ood_lab.files.lock import held

T = TypeVar("T")


class Artifact(ABC):
    """Something on the disk that can be made again from what its key names.

    Whatever `make` writes is written beside its place and renamed (`ood_lab.files.storage`), so that a process that is
    killed leaves an artifact whole or not there.
    """

    # Whether runs share it, so that making it takes a lock of its own; in a run's folder the folder's lock does.
    shared: ClassVar[bool] = False

    @property
    @abstractmethod
    def key(self) -> str:
        """Digits that name all that it depends on."""

    @property
    @abstractmethod
    def path(self) -> Path:
        """Where it lies; its name holds the key, unless its folder's does."""

    def is_complete(self) -> bool:
        """Whether it is there; whether it can be read is seen when it is (see `read`)."""
        return self.path.is_file()

    @abstractmethod
    def make(self) -> None:
        """Make what is missing of it."""

    def ensure(self) -> Path:
        """Its path, made first where it is not complete. A second process waits for the first."""
        if not self.is_complete():
            with self._alone():
                if not self.is_complete():
                    self.make()
        return self.path

    def read(self, reader: Callable[[Path], T], damage: tuple[type[Exception], ...]) -> T:
        """What a reader gives for it, made first where it is not complete.

        A file that can't be read is set aside, which is said, and made again: whatever wrote into it, it can be.

        Args:
            reader: of its path.
            damage: the errors by which the reader tells a damaged file.
        """
        path = self.ensure()
        try:
            return reader(path)
        except damage:
            pass
        with self._alone():
            try:
                if path.is_file():  # which another process may have made again meanwhile, or only set aside
                    return reader(path)
            except damage as error:
                set_aside(path, error)
            self.make()
        return reader(path)

    def _alone(self) -> AbstractContextManager[None]:
        """While it is made: of processes that share it one at a time."""
        if not self.shared:
            return nullcontext()
        return held(self.path.with_name(f".{self.path.name}.lock"), self.path.name)


def set_aside(path: Path, why: object) -> None:
    """Keep a damaged file under another name, and say so: it is made again."""
    number = 1
    while (kept := path.with_name(f"{path.name}.damaged{'' if number == 1 else f'-{number}'}")).exists():
        number += 1
    path.replace(kept)
    print(f"note: {path} can't be read ({why}); kept as {kept.name} and made again", file=sys.stderr, flush=True)

"""Which images a run was trained on and scored, kept beside it as `images.json`, and what has changed since.

For each set (the ID set's splits by their names, an OOD set by its own) one entry for each state in which it was met,
the first first. Feature keys hold names and sizes of files; where those are equal and the bytes are not, the entry's
`edition` tells the states apart.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ood_lab.errors import RequestError
from ood_lab.files.fingerprint import Fingerprint, contents, fingerprint
from ood_lab.files.storage import write_atomically

FILE = "images.json"
READ_GB = 50  # some minutes on a local disk


@dataclass
class State:
    """One state of a set's files.

    Args:
        names, times, files: see `Fingerprint`.
        contents: digest of their bytes; None until they are read for it, at the end of a run.
        edition: "" for the first state with these names and sizes.
        features: keys of the features that were taken from it.
    """

    names: str
    times: str
    files: int
    contents: str | None = None
    edition: str = ""
    features: list[str] = field(default_factory=list)


class ImageRecord:
    """The record of one run.

    Args:
        run_dir: its folder.
        cache: where digests of contents are kept for other runs (see `contents`).

    Raises:
        RequestError: something else changed the file.
    """

    def __init__(self, run_dir: Path, cache: Path) -> None:
        self.path, self.cache = run_dir / FILE, cache
        try:
            stored = json.loads(self.path.read_text()) if self.path.is_file() else {}
            self.states = {name: [State(**state) for state in states] for name, states in stored.items()}
        except (ValueError, TypeError, AttributeError):
            raise RequestError(
                f"{self.path} was changed by something else and can't be read; put back what it was, or move "
                f"{run_dir} away"
            ) from None

    def state(self, name: str, files: Sequence[Path], now: Fingerprint) -> State | None:
        """The state in which the files were met before; None where they were never met so.

        Files of the same names and sizes but other times are read: a copy is what it was.
        """
        alike = [state for state in self.states.get(name, []) if state.names == now.names]
        for state in alike:
            if state.times == now.times:
                return state
        known = [state for state in alike if state.contents is not None]
        if known:
            digest = contents(files, name, self.cache)
            for state in known:
                if state.contents == digest:
                    state.times = now.times
                    self._write()
                    return state
        return None

    def met(self, name: str, files: Sequence[Path], now: Fingerprint) -> State:
        """The files' state, entered where it is new."""
        found = self.state(name, files, now)
        if found is None:
            alike = any(state.names == now.names for state in self.states.get(name, []))
            digest = contents(files, name, self.cache) if alike else None
            found = State(*now, contents=digest, edition=(digest or "")[:12])
            self.states.setdefault(name, []).append(found)
            self._write()
        return found

    def first(self, name: str) -> State | None:
        """The state in which a set was met first."""
        return next(iter(self.states.get(name, [])), None)

    def knows(self, name: str) -> bool:
        """Whether a set was met at all; a run from before there were records has met none."""
        return name in self.states

    def forget(self, name: str) -> None:
        """Begin a set's entries anew."""
        self.states.pop(name, None)

    def features(self, state: State, key: str) -> None:
        """Enter the key of features taken from a state."""
        if key not in state.features:
            state.features.append(key)
            self._write()

    def complete(self, name: str, files: Sequence[Path], most_gb: float = READ_GB) -> None:
        """Read the bytes of a set whose state lacks their digest, unless a file has changed since it was entered.

        A set of more than `most_gb` is not read: its times decide alone.
        """
        if all(state.contents for state in self.states.get(name, [])):
            return
        now = fingerprint(files)
        if sum(file.stat().st_size for file in files) > most_gb * 2**30:
            return
        for state in self.states.get(name, []):
            if state.contents is None and state.times == now.times:
                state.contents = contents(files, name, self.cache)
                self._write()

    def changed(self, name: str, key: str) -> tuple[int, int] | None:
        """Images at first and now, where the features named by `key` are not of the first state."""
        states = self.states.get(name, [])
        now = next((state for state in states if key in state.features), None)
        return None if now is None or now is states[0] else (states[0].files, now.files)

    def _write(self) -> None:
        stored = {name: [asdict(state) for state in states] for name, states in self.states.items()}
        write_atomically(self.path, json.dumps(stored, indent=1).encode())

"""Progress with the time left: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")
LOG_SECONDS = 15.0
STANDING_SECONDS = 60.0  # between lines of a log while no step ends
SHOW_AFTER_SECONDS = 2.0
# In a pipe or a file tables have the width that they need.
stdout = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 200)


class Meter:
    """Counts steps towards a known total; says nothing about work that is over within two seconds."""

    def __init__(self, description: str, total: int, done: int = 0, console: Console | None = None) -> None:
        self.description, self.total, self.done, self.first = description, total, done, done
        self.note = ""
        self._began = self._logged = self._ended = time.monotonic()
        self._shown: int | None = None
        self._bar: Progress | None = None
        self._console = console
        self._live = (console.file if console else sys.stdout).isatty()

    def advance(self, steps: int = 1, note: str | None = None) -> None:
        """Count `steps`; `note` is shown behind the bar."""
        self.done += steps
        self.note = self.note if note is None else note
        now = time.monotonic()
        self._ended = now if steps else self._ended
        if self._live:
            if self._bar is None and now - self._began > SHOW_AFTER_SECONDS:
                self._start_bar()
            if self._bar is not None:
                self._bar.update(self._bar.task_ids[0], completed=self.done, note=self.note)
        elif now - self._logged > (STANDING_SECONDS if self.done == self._shown else LOG_SECONDS):
            self._logged, self._shown = now, self.done
            text = "  ".join(
                part for part in (self.description, f"{self.done}/{self.total}", self._left(now), self.note) if part
            )
            print(text, flush=True, file=self._console.file if self._console else None)

    def _left(self, now: float) -> str:
        """The time left, by the steps that have ended; nothing where these can't tell."""
        if self.done == self.first:
            return ""
        each = (self._ended - self._began) / (self.done - self.first)
        left = each * (self.total - self.done) - (now - self._ended)
        return f"{clock(left)} left" if left >= 0 else ""

    def _start_bar(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console or stdout,
        )
        self._bar.add_task(self.description, total=self.total, completed=self.done, note=self.note)
        self._bar.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Iterate with progress."""
    size = total if total is not None else len(items) if isinstance(items, Sized) else 0
    with Meter(description, size) as meter:
        for item in items:
            yield item
            meter.advance()

"""What one command reads of the disk, read once: a command sees one state of it, and asks no folder twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

_read: ContextVar[dict[str, Any] | None] = ContextVar("read by this command", default=None)


@contextmanager
def one_command() -> Iterator[None]:
    """Within it, `read_once` keeps what it reads; the next command looks at the disk again."""
    outer = _read.get()
    token = _read.set({} if outer is None else outer)
    try:
        yield
    finally:
        _read.reset(token)


def read_once(name: str, read: Callable[[], T], keep: Callable[[T], bool] = lambda _: True) -> T:
    """What `read` gives; within `one_command` the first time alone.

    Args:
        name: of what is read; one name, one thing.
        keep: whether it is small enough to be kept.
    """
    known = _read.get()
    if known is not None and name in known:
        value: T = known[name]
        return value
    value = read()
    if known is not None and keep(value):
        known[name] = value
    return value

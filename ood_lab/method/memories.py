"""The memories that a method's parts share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ood_lab.errors import RequestError
from ood_lab.parts import Dimensions, Memory, Parts


def memories_of(parts: Parts) -> dict[str, Memory]:
    """One memory of each name that terms or the synthesizer read, shared by all that ask for the same.

    Raises:
        RequestError: two ask for one name with different options.
    """
    wanted = [term.keeps() for term in parts.terms.values()]
    if parts.synthesizer is not None:
        wanted.append(parts.synthesizer.keeps())
    makers: dict[str, Callable[[Dimensions], Memory]] = {}
    for name, make in (pair for memories in wanted for pair in memories.items()):
        other = makers.setdefault(name, make)
        if _options(other) != _options(make):
            raise RequestError(
                f"two parts ask for the memory {name!r} with different options ({_options(other)}, {_options(make)}); "
                "give them the same"
            )
    return {name: makers[name](parts.dims) for name in sorted(makers)}


def _options(make: Callable[[Dimensions], Memory]) -> Any:
    return (make.func, make.args, make.keywords) if isinstance(make, partial) else make

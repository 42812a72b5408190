"""How long runs will take, by those of the same kind that are done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ood_lab.config import Request, RequestError
from ood_lab.config.identity import prefix
from ood_lab.progress import clock
from ood_lab.run_dir import is_trained, saved_leaves, seconds_of
from ood_lab.sweep.order import in_waves


def estimate(requests: Sequence[Request], workers: int) -> str:
    """What is to be done of the requests and of what they depend on, in words."""
    works = [work for wave in in_waves(requests) for work in wave]
    new = [work for work in works if not is_trained(work.requests[0])]
    kinds = [_kind(work.requests[0]) for work in new]
    seconds = {kind: _median(kind) for kind in set(kinds)}
    known = [found for kind in kinds if (found := seconds[kind]) is not None]
    if not works:
        return "Nothing to do."
    kinds_of_work = {
        "to be trained": sum(work.asked for work in new),
        "that they depend on": sum(not work.asked for work in new),
        "to be scored only": len(works) - len(new),
    }
    text = f"To do: {', '.join(f'{count} {name}' for name, count in kinds_of_work.items() if count)}."
    if known:
        some = "" if len(known) == len(new) else f" for {len(known)} of them"
        text += f" About {clock(sum(known) / min(workers, len(new)))}{some}, by earlier runs of the same kind."
    if len(known) < len(new):
        text += f" {len(new) - len(known)} of a kind never run here, so without an estimate."
    return text


@dataclass(frozen=True)
class Kind:
    """What a run's time depends on: method, data, network and epochs."""

    output: Path
    prefix: str
    leaves: tuple[tuple[str, Any], ...]


def _kind(request: Request) -> Kind:
    return Kind(request.run_dir.parent, prefix(request.composed), _shape(request.leaves))


def _shape(leaves: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple((k, repr(v)) for k, v in sorted(leaves.items()) if k.startswith(("backbone.", "trainer.")))


def _median(kind: Kind) -> float | None:
    folders = kind.output.glob(f"{kind.prefix}-s*")
    found = [seconds for folder in folders if (seconds := seconds_of(folder)) is not None and _is_of(kind, folder)]
    return median(found) if found else None


def _is_of(kind: Kind, folder: Path) -> bool:
    try:
        leaves = saved_leaves(folder)
    except RequestError:  # another run's folder, edited by somebody: it tells nothing, and is not asked for
        return False
    return leaves is not None and _shape(leaves) == kind.leaves

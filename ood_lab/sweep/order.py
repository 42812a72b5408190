"""In which order runs are made: what others depend on first, each run once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ood_lab.config import Request
from ood_lab.run_dir import outstanding


@dataclass
class Work:
    """All that is asked of one run.

    Args:
        requests: they differ in what they want scored.
        asked: whether a request is one of those that were asked for, or only stood on.
    """

    run_id: str
    requests: list[Request]
    asked: bool

    @property
    def needs(self) -> set[str]:
        return {need.run_id for request in self.requests for need in request.needs}

    @property
    def left(self) -> list[Request]:
        """The requests that still want something. Tasks other than training are always carried out."""
        return [r for r in self.requests if r.cfg.task.name != "train" or outstanding(r)]


def in_waves(requests: Sequence[Request]) -> list[list[Work]]:
    """What is to be done: everything in one wave can be made at once, after the waves before it."""
    works: dict[str, Work] = {}
    depth: dict[str, int] = {}
    for request, asked, level in _with_needs(requests):
        work = works.setdefault(request.run_id, Work(request.run_id, [], False))
        work.asked = work.asked or asked
        depth[request.run_id] = max(level, depth.get(request.run_id, 0))
        if request.overrides not in [other.overrides for other in work.requests]:
            work.requests.append(request)
    waves: dict[int, list[Work]] = {}
    for run_id, work in works.items():
        if work.left:
            waves.setdefault(depth[run_id], []).append(work)
    return [waves[level] for level in sorted(waves)]


def _with_needs(requests: Sequence[Request]) -> Iterator[tuple[Request, bool, int]]:
    """(request, whether it was asked for, how many runs lie below it), needs before what depends on them."""
    for request in requests:
        for need in request.needs:
            yield from ((r, False, level) for r, _, level in _with_needs([need]))
        yield request, True, _depth(request)


def _depth(request: Request) -> int:
    return max((1 + _depth(need) for need in request.needs), default=0)

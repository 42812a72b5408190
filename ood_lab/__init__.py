"""ood_lab: experiments on out-of-distribution detection with outlier synthesis."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ood_lab.results.store import Results

__version__ = "0.1.0"


def run(overrides: list[str] | None = None) -> Results:
    """Run one request from Python: what `python -m ood_lab <overrides>` does.

    Raises:
        ood_lab.config.RequestError: the request is wrong; nothing was started.
        ood_lab.config.RunError: the run stopped; what it had reported done stays valid.
    """
    from ood_lab.config import prepare

    request = prepare(overrides or [])
    from ood_lab.task import execute

    return execute(request)

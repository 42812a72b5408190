"""What a command is about that names no experiment: the first run."""

from __future__ import annotations

from collections.abc import Sequence

FIRST_RUN = "experiment=first_run"
# What says how, where and by which detectors, but not what is trained on what.
ABOUT_NO_EXPERIMENT = (
    "seed", "trainer", "scorer", "figure", "tuning", "logger", "paths", "id_rate", "bootstrap", "index", "note",
    "local_radius", "workers", "dry_run",
)  # fmt: skip
TASKS = ("task=train", "task=evaluate", "task=report", "task=export")


def with_first_run(overrides: Sequence[str]) -> list[str]:
    """The overrides with `FIRST_RUN`, where none of them says what is trained on what."""
    for text in overrides:
        key = text.lstrip("+~").partition("=")[0].partition(".")[0]
        if key not in ABOUT_NO_EXPERIMENT and text not in TASKS:
            return list(overrides)
    return [FIRST_RUN, *overrides]

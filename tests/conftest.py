"""Which worker runs which tests: those of a file on one, files that plan the same tables on one, the longest first."""

from __future__ import annotations

from pathlib import Path

import pytest

LONGEST_FIRST = (
    "test_two_devices", "test_end_to_end", "test_outlier_steps", "test_synthesize", "test_full_scale", "test_resume",
    "test_scoring", "test_image_record", "test_strange_names", "test_selection", "test_parts", "test_measures",
    "test_during_training", "test_cli",
)  # fmt: skip


# Composed configurations are kept in a process, so that the same tables are planned faster a second time.
TOGETHER = {"test_full_scale_greg": "test_full_scale", "test_plan": "test_full_scale", "test_spec": "test_full_scale"}


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by file, in which the order stays, and group for `--dist loadgroup`."""
    items.sort(key=lambda item: _place(Path(item.path).stem))
    for item in items:
        folder, name = Path(item.path).parent.name, Path(item.path).stem
        item.add_marker(pytest.mark.xdist_group(TOGETHER.get(name, f"{folder}/{name}")))


def _place(name: str) -> int:
    name = TOGETHER.get(name, name)
    return LONGEST_FIRST.index(name) if name in LONGEST_FIRST else len(LONGEST_FIRST)

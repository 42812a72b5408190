"""The order of the tests: files that take long first, so that no worker is left alone with one at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

LONGEST_FIRST = (
    "test_two_devices", "test_end_to_end", "test_synthesize", "test_outlier_steps", "test_full_scale",
    "test_full_scale_greg", "test_plan", "test_scoring", "test_image_record", "test_parts", "test_resume",
    "test_strange_names", "test_selection", "test_measures", "test_during_training", "test_cli",
    "test_decoded_outliers", "test_full_scale_bood", "test_image_source",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by file; within a file the order stays (the Makefile gives a whole file to one worker)."""
    items.sort(key=lambda item: _place(Path(item.path).stem))


def _place(name: str) -> int:
    return LONGEST_FIRST.index(name) if name in LONGEST_FIRST else len(LONGEST_FIRST)

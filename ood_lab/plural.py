"""Counts in sentences."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Such as "1 run", "2,000 images" and "3 classes"."""
    ending = "" if number == 1 else "es" if noun.endswith(("s", "x", "tch", "sh")) else "s"
    return f"{number:,} {noun}{ending}"

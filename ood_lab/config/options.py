"""What an override affects, from the marks of the options in `schema` and of the groups here."""

from __future__ import annotations

from ood_lab.config.affects import COMPARABILITY, FEATURES, NOTHING, SCORES, WEIGHTS, Affects
from ood_lab.config.signature import signature

# The class in `schema` that declares the options of a section; "" stands for those at the root.
SECTIONS = {
    "": "Root",
    "paths": "Paths",
    "task": "Task",
    "trainer": "Trainer",
    "init": "Init",
    "protocol": "Protocol",
    "logger": "Logger",
    "tuning": "Tuning",
    "dataset.recipe": "Recipe",
}
# Choosing in these groups, and their options without a mark; whatever is not named here affects all.
GROUPS = {
    "scorer": SCORES | COMPARABILITY,
    "tuning": SCORES | COMPARABILITY,
    "protocol": SCORES | COMPARABILITY,
    "trainer": NOTHING,  # its options have marks, and its files set options that paper and release leave open
    "figure": NOTHING,
    "logger": NOTHING,
    "paths": NOTHING,
    "task": NOTHING,
}


def affected_by(key: str) -> Affects:
    """What an override of a group or of an option affects."""
    section = next((name for name in SECTIONS if name and key.startswith(f"{name}.")), "")
    marks = signature(f"ood_lab.config.schema.{SECTIONS[section]}").affects
    option = key.removeprefix(f"{section}.")
    if option in marks:
        return marks[option]
    return GROUPS.get(key.partition(".")[0], WEIGHTS | FEATURES | SCORES | COMPARABILITY)

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
    group, _, option = key.partition(".")
    section, name = (group, option) if group in SECTIONS else ("", key)
    marks = signature(f"ood_lab.config.schema.{SECTIONS[section]}").affects
    if name in marks and (section or not option):
        return marks[name]
    return GROUPS.get(group, WEIGHTS | FEATURES | SCORES | COMPARABILITY)

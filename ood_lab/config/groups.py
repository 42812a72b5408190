"""The groups of the configuration and their files."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from ood_lab.config.quoting import check_utf8
from ood_lab.errors import RequestError

# The groups of a method's parts, in the order in which terms are summed.
PART_GROUPS = ("head", "id_loss", "synthesizer", "selector", "perturbation", "outlier_loss", "regularizer", "mixing")
# Groups of which a request names several; each file sits in its own node, of the file's name.
LIST_GROUPS = ("id_loss", "regularizer", "scorer", "figure")
# Groups that a request may leave out: group=null.
OPTIONAL = (
    "experiment", "synthesizer", "selector", "perturbation", "outlier_loss", "mixing", "auxiliary", "pictures",
    "tuning", "producer", "generator", "anchors", "outliers", "decoder", "optimizer",
)  # fmt: skip
# Sets besides the ID set that training reads: images used as outliers, and pictures mixed into ID images.
TRAINED_ON = ("auxiliary", "pictures")
# What makes a set, as shards: the group of the part that a task is about.
SET_MAKERS = {"synthesize": "producer", "anchors": "anchors", "outliers": "outliers", "decode": "decoder"}
# What makes something else than a classifier.
MAKERS = {**SET_MAKERS, "train_generator": "generator"}
# A data set in another role: `auxiliary=x` is Hydra's `dataset@auxiliary=x`.
ROLES = dict.fromkeys(TRAINED_ON, "dataset")
PACKAGE = Path(__file__).resolve().parent.parent


def config_folder(path: str | Path | None) -> Path | None:
    """The folder of a user's own YAML files, as `--config-dir` names it.

    Raises:
        RequestError: there is no such folder.
    """
    if path is None:
        return None
    check_utf8(str(path), "--config-dir")
    folder = Path(path).expanduser()
    if not str(path) or not folder.is_dir():
        raise RequestError(f"--config-dir={path}: no such folder; give one that holds YAML files in group folders")
    return folder.absolute()


@cache
def config_dir() -> Path:
    """The folder of YAML files: inside the package in a wheel, beside it in a checkout."""
    for candidate in (PACKAGE / "conf", PACKAGE.parent / "conf"):
        if (candidate / "config.yaml").is_file():
            return candidate
    raise RequestError(f"no conf/config.yaml inside or beside {PACKAGE}; reinstall ood_lab")


def groups(folder: Path | None = None) -> dict[str, list[str]]:
    """Every config group of this project and its options; a user's --config-dir adds to both."""
    found = {name: set(options) for name, options in built_in_groups().items()}
    for group in PART_GROUPS:
        found.setdefault(group, set())
    for name, options in (_scan(folder) if folder else {}).items():
        found.setdefault(name, set()).update(options)
    for role, group in ROLES.items():
        found[role] = found[group]
    return {name: sorted(options, key=_in_numbers) for name, options in sorted(found.items())}


def _in_numbers(name: str) -> list[str | int]:
    """A key by which t2 sorts before t10."""
    return [int(part) if number % 2 else part for number, part in enumerate(re.split(r"(\d+)", name))]


@cache
def built_in_groups() -> dict[str, set[str]]:
    """The groups of this project alone."""
    return _scan(config_dir())


def _scan(root: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path in root.rglob("*.yaml"):
        parent = path.parent.relative_to(root).as_posix()
        if parent != ".":
            found.setdefault(parent, set()).add(path.stem)
    return found


def taken_names(folder: Path | None) -> dict[str, list[str]]:
    """The files of a user's folder that have the name of a built-in one, by group; tables and scales may have."""
    own = _scan(folder) if folder else {}
    taken = {g: sorted(n & built_in_groups().get(g, set())) for g, n in own.items() if g not in ("table", "scale")}
    return {group: names for group, names in taken.items() if names}


def config_file(group: str, name: str, folder: Path | None = None) -> Path | None:
    """`<group>/<name>.yaml`, a user's before the built-in one; None where there is neither."""
    paths = (root / group / f"{name}.yaml" for root in (folder, config_dir()) if root)
    return next((path for path in paths if path.is_file()), None)

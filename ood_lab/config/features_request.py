"""`task=evaluate features=FILE`: what the command line says about features of any network. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.types import Override

from ood_lab.config.check import check_groups, check_keys, check_output, check_values, parse
from ood_lab.config.compose import Composed, compose
from ood_lab.config.detectors import detectors
from ood_lab.config.experiment import Part
from ood_lab.config.groups import groups
from ood_lab.config.peers import PEERS, check_peers
from ood_lab.config.prepare import expand_all, keeps_default, line
from ood_lab.config.schema import Protocol
from ood_lab.config.signature import signature
from ood_lab.errors import RequestError

KEY = "features"
SUFFIXES = (".npz", ".safetensors")
# What such a request may name: the rest is about runs, a network or images.
ABOUT_RUNS = ("table", "scale", "dry_run", "workers")
READ = ("task", KEY, "scorer", "figure", "id_rate", "bootstrap", "index", "protocol", "paths.output")


@dataclass(frozen=True)
class EvaluationOptions:
    """How features are evaluated.

    Args:
        detectors: by name the node of each.
        figures: by name.
        protocol: whose conventions count; its image sets don't.
        id_rate, bootstrap: see `ood_lab.config.schema.Root`.
        values: of the configuration, those that were read.
    """

    detectors: Mapping[str, Mapping[str, Any]]
    figures: Mapping[str, Part]
    protocol: Protocol
    id_rate: float
    bootstrap: int
    values: Mapping[str, Any]

    def as_yaml(self, **about: Any) -> str:
        """The values, as a report shows them; `about` come first."""
        return yaml.safe_dump({**about, **self.values}, sort_keys=False, allow_unicode=True)


@dataclass(frozen=True)
class FeaturesRequest:
    """What is asked of a file of features.

    Args:
        path: of the file.
        output: the folder that runs are written to.
        overrides: the command line.
        typed: the same before `scorer=all` was written out.
    """

    path: Path
    options: EvaluationOptions
    output: Path
    overrides: tuple[str, ...]
    typed: tuple[str, ...]


def asks_for_features(overrides: Sequence[str]) -> bool:
    """Whether a command line names a file of features."""
    pairs = (text.lstrip("+").partition("=") for text in overrides)
    return any(key == KEY and value != "null" for key, _, value in pairs)


def features_request(overrides: Sequence[str], folder: Path | None = None, multirun: bool = False) -> FeaturesRequest:
    """Check a command line that names a file of features.

    Raises:
        RequestError: names the value, what was expected, and the remedy.
    """
    if multirun:
        raise RequestError("features=FILE is one evaluation; leave -m out")
    typed, overrides = tuple(overrides), [expand_all(text, folder) for text in overrides]
    for text in overrides:
        if text.partition("=")[0] in ABOUT_RUNS:
            raise RequestError(f"{text} is about runs, and features=FILE is one evaluation; leave it out")
    composed = _composed(overrides, folder, _check_read)
    if composed.choices["task"] != "evaluate":
        raise RequestError(f"features=FILE goes with task=evaluate, not with task={composed.choices['task']}")
    path = Path(str(composed.plain(KEY))).expanduser()
    if path.suffix.lower() not in SUFFIXES:
        raise RequestError(f"features={path}: expected a file ending in {' or '.join(SUFFIXES)}")
    if not path.is_file():
        raise RequestError(f"features={path}: no such file")
    named = any(text.startswith("scorer=") and text != "scorer=all" for text in typed)
    for name, node in composed.plain("scorer").items():
        if named and node.get("epsilon") and "changes_id" in signature(node["_target_"]).constants:
            raise RequestError(f"scorer={name} looks at changed images, and a file has features alone; leave it out")
    output = Path(composed.plain("paths.output"))
    check_output(output)
    return FeaturesRequest(path, _options(composed), output.absolute(), tuple(overrides), typed)


def evaluation_options(overrides: Sequence[str], folder: Path | None = None) -> EvaluationOptions:
    """The detectors, figures and conventions that a command line states.

    Raises:
        RequestError: names the value, what was expected, and the remedy.
    """
    return _options(_composed([expand_all(text, folder) for text in overrides], folder))


def _check_read(overrides: Sequence[Override]) -> None:
    """Refuse what an evaluation of given features does not read."""
    for override in overrides:
        key = override.key_or_group
        if not any(key == known or key.startswith(f"{known}.") for known in READ):
            raise RequestError(
                f"{line(override)!r} has no effect when features are given; remove it. features=FILE goes "
                f"with {', '.join(READ)}"
            )
        if key.startswith(("protocol.near", "protocol.far")):
            raise RequestError(
                f"{line(override)!r}: the OOD sets are those of the file; a near one is called near/NAME there"
            )


def _composed(
    overrides: Sequence[str], folder: Path | None, check: Callable[[Sequence[Override]], None] | None = None
) -> Composed:
    """The configuration of a command line, checked, also by `check` once its names are known to exist."""
    parsed, known = parse(overrides), groups(folder)
    check_groups(parsed, folder)
    if check is not None:
        check(parsed)
    check_keys(parsed, compose([line(o) for o in parsed if keeps_default(o, known)], folder=folder), folder)
    composed = compose(overrides, folder=folder)
    check_values(composed)
    return composed


def _options(composed: Composed) -> EvaluationOptions:
    nodes = composed.plain("scorer")
    if PEERS in nodes:
        check_peers(nodes[PEERS])
    values = {key: composed.plain(key) for key in ("scorer", "figure", "id_rate", "bootstrap", "index")}
    return EvaluationOptions(
        detectors=detectors(nodes, {}, ()),
        figures={name: Part.of("figure", name, node) for name, node in (values["figure"] or {}).items()},
        protocol=Protocol(**composed.plain("protocol")),
        id_rate=values["id_rate"],
        bootstrap=values["bootstrap"],
        values=values,
    )

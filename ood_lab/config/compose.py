"""Composing the configuration: Hydra's compose, plus the choices it made and the names it could have taken."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from ood_lab.config.groups import LIST_GROUPS, OPTIONAL, PACKAGE, ROLES, config_dir, config_file, groups
from ood_lab.config.quoting import PATHS, quoted, uninterpolated
from ood_lab.config.recipe import complete
from ood_lab.config.source import module_file
from ood_lab.config.yaml_file import read_yaml
from ood_lab.errors import RequestError

# Mappings to which a request may add entries of its own.
OPEN = (
    "protocol.transforms.",
    "dataset.exclude.",
    "auxiliary.exclude.",
    "pictures.exclude.",
    "scorer.pood.options.",
    "tuning.grids.",
    "init.weights.",
)


def _for_id_set(key: str, default: Any, *unlisted: Any, _root_: DictConfig) -> Any:
    """`${for_id_set:key,default}`: what a protocol says for the chosen ID set; the names of a set of counts.

    A third value is taken where the protocol doesn't list the ID set at all.
    """
    stated = _root_.protocol.sets.get(_root_.dataset.name)
    value = unlisted[0] if stated is None and unlisted else (stated or {}).get(key, default)
    return list(value) if OmegaConf.is_dict(value) else value


def _of_recipe(key: str, default: Any, *, _root_: DictConfig) -> Any:
    """`${of_recipe:key,default}`: what the ID set's recipe says, if it says something."""
    stated = (_root_.dataset.recipe or {}).get(key)
    return default if stated is None else stated


def _times(number: int, factor: int) -> int:
    """`${times:number,factor}`."""
    return int(number) * int(factor)


OmegaConf.register_new_resolver("times", _times, replace=True)
OmegaConf.register_new_resolver("for_id_set", _for_id_set, replace=True)
OmegaConf.register_new_resolver("of_recipe", _of_recipe, replace=True)


class Composed:
    """One composed configuration and the choice made in each group.

    Args:
        base: not to be written into.
        changes: values at the root that differ from `base`, set on a copy once that is asked for.
    """

    def __init__(
        self, base: DictConfig, choices: dict[str, str | list[str]], changes: Mapping[str, Any] | None = None
    ) -> None:
        self._base, self.choices, self._changes = base, choices, dict(changes or {})

    @cached_property
    def cfg(self) -> DictConfig:
        """The configuration, read-only."""
        if not self._changes:
            return self._base
        with _writable(deepcopy(self._base)) as cfg:
            cfg.update(uninterpolated(self._changes))
        return cfg

    @cached_property
    def whole(self) -> dict[str, Any]:
        """Everything as plain Python containers, interpolations resolved; not to be written into.

        Raises:
            OmegaConfBaseException: an interpolation can't be resolved.
        """
        whole = OmegaConf.to_container(self.cfg, resolve=True)
        assert isinstance(whole, dict)
        return {str(key): value for key, value in whole.items()}

    def changed(self, key: str, value: Any) -> Composed:
        """A copy with another value at the root, on which no choice depends.

        What only a resolver reads (`for_id_set` reads the protocol) keeps its value.
        """
        copy = Composed(self._base, self.choices, {**self._changes, key: value})
        copy._interpolations = self._interpolations
        if not self.is_read(key):
            copy.whole = {**self.whole, key: value}  # resolving everything again takes longer than all the rest
        return copy

    def is_read(self, key: str) -> bool:
        """Whether another value is interpolated from the value at the root that `key` names."""
        return any(key in text for text in self._interpolations)

    @cached_property
    def _interpolations(self) -> list[str]:
        """Those of the base, which all copies share: changed values have none."""
        return [text for text in _texts(OmegaConf.to_container(self._base, resolve=False)) if "${" in text]

    def plain(self, key: str) -> Any:
        """The subtree at `key` as plain Python containers, interpolations resolved; None where there is none."""
        try:
            node: Any = self.whole
        except OmegaConfBaseException:  # something elsewhere can't be resolved, which `check_values` says
            found = OmegaConf.select(self.cfg, key)
            return OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        return deepcopy(node)


@contextmanager
def _writable(cfg: DictConfig) -> Iterator[DictConfig]:
    OmegaConf.set_readonly(cfg, False)
    yield cfg
    OmegaConf.set_readonly(cfg, True)


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from _texts(child)


def target(group: str, name: str, folder: Path | None = None) -> str:
    """The class that a config file names, or the file that it varies; composing would take longer."""
    node = _read(group, name, folder)
    if "_target_" in node:
        return str(node["_target_"])
    varied = [entry for entry in node.get("defaults", []) if isinstance(entry, str) and entry != "_self_"]
    if not varied or varied[0].startswith("/"):
        raise RequestError(f"{group}={name}: its file names neither a class (_target_) nor another file that it varies")
    return target(group, varied[0].partition("@")[0], folder)


def choices_of(group: str, name: str, folder: Path | None = None) -> dict[str, list[str]]:
    """What a config file, and those that it varies, choose in other groups; lists, also of one."""
    chosen: dict[str, list[str]] = {}
    for entry in _read(group, name, folder).get("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            chosen |= choices_of(group, entry.partition("@")[0], folder)
        elif isinstance(entry, dict):
            ((key, value),) = entry.items()
            names = value if isinstance(value, list) else [] if value is None else [value]
            chosen[key.removeprefix("override /").partition("@")[0]] = [str(n) for n in names]
    return chosen


def only_chooses(group: str, name: str, folder: Path | None = None) -> bool:
    """Whether a config file does nothing but choose from other groups."""
    node = _read(group, name, folder)
    chosen = node.pop("defaults", [])
    return not node and all(isinstance(entry, dict) and next(iter(entry)).startswith("override ") for entry in chosen)


def _read(group: str, name: str, folder: Path | None) -> dict[str, Any]:
    path = config_file(group, name, folder)
    if path is None:
        raise RequestError(f"{group}={name}: no such {group}")
    try:
        node = read_yaml(path)
    except yaml.YAMLError as error:
        raise RequestError(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(node, dict):
        raise RequestError(f"{path}: expected keys and values, as in the built-in files of {group}")
    return node


def in_hydra(override: str) -> str:
    """An override in Hydra's own words: a role written out, a group left out, an entry added to an open mapping."""
    key, equals, value = override.partition("=")
    if key.startswith(OPEN):
        return f"++{override}"
    mark, name = ("~", key[1:]) if key.startswith("~") else ("", key)
    if name in OPTIONAL and value.strip().lower() == "null":
        mark, equals, value = "~", "", ""
    return f"{mark}{ROLES[name]}@{name}{equals}{value}" if name in ROLES else f"{mark}{name}{equals}{value}"


def compose(overrides: Sequence[str] = (), *, config_name: str = "config", folder: Path | None = None) -> Composed:
    """Compose `config_name` with `overrides`; works inside and outside a Hydra application. Not to be written into.

    Raises:
        RequestError: Hydra or OmegaConf refused; their message is kept, their traceback is not.
    """
    return _compose(tuple(overrides), config_name, folder, surroundings(folder))


def surroundings(folder: Path | None) -> int:
    """Changes with the environment and with the files of a user's folder: a notebook goes on while they are edited.

    The built-in files read variables of this program alone.
    """
    paths = sorted(folder.rglob("*.yaml")) if folder else []
    files = [(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in (*paths, *_own_modules(paths))]
    read = [(name, value) for name, value in sorted(os.environ.items()) if folder or name.startswith("OOD_LAB_")]
    return hash((*files, *read))


def _own_modules(paths: Sequence[Path]) -> list[Path]:
    """The modules of the classes that a user's files name: their defaults are part of the configuration."""
    targets = [found for path in paths for found in re.findall(r"_target_: *([\w.]+)\.\w+", path.read_text())]
    files = [module_file(name) for name in dict.fromkeys(targets) if not name.startswith(f"{PACKAGE.name}.")]
    return [file for file in files if file is not None]


@cache
def _compose(overrides: tuple[str, ...], config_name: str, folder: Path | None, state: int) -> Composed:
    """Hydra sets values after it has composed the groups: so do we, on a copy, and compose each choice of groups once.

    Composing takes 50 times as long as the copy, and the rows of a table differ in values mostly.
    """
    known = groups(folder)
    values = tuple(text for text in overrides if _key(text) not in known and not _key(text).startswith("hydra"))
    chosen = tuple(text for text in overrides if text not in values)
    # Without a user's folder the choices depend on no variable, and values are looked up when they are asked for.
    base = _compose_groups(chosen, config_name, folder, state if folder else 0)
    cfg = base.cfg
    if values:
        try:
            parsed = OverridesParser.create().parse_overrides([in_hydra(text) for text in values])
            with _writable(deepcopy(cfg)) as cfg:
                for override in parsed:
                    _apply(override, cfg)
        except (HydraException, OmegaConfBaseException) as error:
            raise RequestError(" ".join(str(error).split())) from None
    cfg = _with_home(cfg)
    return Composed(cfg, {**base.choices, **_lists(cfg)})


def _apply(override: Override, cfg: DictConfig) -> None:
    """Set, add or delete a value, as Hydra does with the overrides that choose no group."""
    key, value = override.key_or_group, override.value()
    if override.is_delete():
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(cfg, parent) if parent else cfg
        if node is None or name not in node:
            raise RequestError(f"~{key}: there is no such option to leave out")
        with open_dict(cfg):
            del node[name]
    elif override.is_add() and OmegaConf.select(cfg, key) is not None and not isinstance(value, dict | list):
        raise RequestError(f"+{key}: there is such an option; write {key}={value}")
    else:
        OmegaConf.update(cfg, key, value, merge=True, force_add=override.is_add() or override.is_force_add())


def _with_home(cfg: DictConfig) -> DictConfig:
    """The configuration with `~` in a path, wherever it comes from, as the user's home; a copy where there is one."""
    for key in PATHS:
        try:
            value = OmegaConf.select(cfg, key)
        except OmegaConfBaseException:  # which `check_values` says
            continue
        if isinstance(value, str) and value.startswith("~"):
            with _writable(deepcopy(cfg)) as cfg:
                OmegaConf.update(cfg, key, uninterpolated(os.path.expanduser(value)))  # noqa: PTH111 (keeps "~x")
    return cfg


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~").partition("@")[0]


@cache
def _compose_groups(overrides: tuple[str, ...], config_name: str, folder: Path | None, _state: int) -> Composed:
    hydra = GlobalHydra.instance()
    outer, hydra.hydra = hydra.hydra, None
    extra = [f"hydra.searchpath=[{quoted(str(folder))}]"] if folder else []  # read before OmegaConf sees it
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            cfg = hydra_compose(config_name, overrides=[*map(in_hydra, overrides), *extra], return_hydra_config=True)
            choices = OmegaConf.to_container(cfg.hydra.runtime.choices)
    except (HydraException, OmegaConfBaseException) as error:
        raise RequestError(" ".join(str(error).split())) from None
    finally:
        hydra.hydra = outer
    assert isinstance(choices, dict)
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    picked = {str(k).rpartition("@")[2]: v for k, v in choices.items() if not str(k).startswith("hydra/")}
    complete(cfg, picked, folder)
    OmegaConf.set_readonly(cfg, True)
    return Composed(cfg, {**picked, **_lists(cfg)})


def _lists(cfg: DictConfig) -> dict[str, list[str]]:
    """The choices of several, which Hydra does not record."""
    return {group: [str(name) for name in cfg[group]] for group in LIST_GROUPS if cfg.get(group) is not None}

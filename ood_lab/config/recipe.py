"""Completing a composed configuration: the recipe's values for the parts that are chosen, and defaults of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ood_lab.config.groups import LIST_GROUPS, PART_GROUPS, config_file, groups
from ood_lab.config.signature import signature
from ood_lab.config.suggest import nearest
from ood_lab.config.yaml_file import read_yaml
from ood_lab.errors import RequestError

METHOD = "ood_lab.method.base.Method"


def complete(cfg: DictConfig, choices: Mapping[str, Any], folder: Path | None) -> None:
    """Write into `cfg`: what a recipe says of a part counts only while that part is chosen.

    What an experiment or a file of one's own says of the part itself goes before the recipe's value.

    Raises:
        RequestError: the recipe has a value for an option that a part doesn't have.
    """
    OmegaConf.set_struct(cfg, False)
    for group in LIST_GROUPS:
        if cfg.get(group) is None:
            cfg[group] = {}
    if cfg.get("method") is not None:
        values = cfg.method.pop("values", None) or OmegaConf.create()
        stated = of_file("experiment", str(choices["experiment"]), folder) if choices.get("experiment") else {}
        cfg.method.setdefault("_target_", METHOD)
        _set_outliers_a_step(cfg, stated)
        if (optimizer := cfg.pop("optimizer", None)) is not None:
            cfg.method.optimizer = optimizer
        _check_mapping("method.values", values)
        for key, by_name in values.items():
            group = str(key)
            _check_known(f"method.values.{group}", group, PART_GROUPS, "group of parts")
            _check_mapping(f"method.values.{group}", by_name)
            for name, options in by_name.items():
                _check_known(f"method.values.{group}.{name}", str(name), groups(folder)[group], group)
                _check_mapping(f"method.values.{group}.{name}", options)
                node = cfg.get(group)
                if group in LIST_GROUPS:
                    node = None if node is None else node.get(name)
                elif choices.get(group) != name:
                    node = None
                if node is not None:
                    own = stated.get(group) or {}
                    _take_over(node, options, own.get(name, {}) if group in LIST_GROUPS else own, f"{group}.{name}")
        for node in (cfg.method, cfg.method.get("optimizer"), *_parts(cfg)):
            if OmegaConf.is_dict(node) and "_target_" in node:
                _with_defaults(node)
    OmegaConf.set_struct(cfg, True)


def _set_outliers_a_step(cfg: DictConfig, stated: Mapping[str, Any]) -> None:
    """A recipe's number of outlier images for each ID image, where nothing else says how many there are."""
    ratio = cfg.method.pop("outliers_per_image", None)
    if ratio is not None and "auxiliary_batch_size" not in (stated.get("trainer") or {}):
        cfg.trainer.auxiliary_batch_size = f"${{times:${{trainer.batch_size}},{ratio}}}"


def _check_known(key: str, name: str, known: Sequence[str], what: str) -> None:
    if name not in known:
        raise RequestError(f"{key}: no such {what}.{nearest(name, known)}")


def _check_mapping(key: str, value: Any) -> None:
    if not OmegaConf.is_dict(value):
        raise RequestError(
            f"{key}={value}: expected names below it, as in method.values.outlier_loss.equidistant.weight"
        )


def _parts(cfg: DictConfig) -> list[Any]:
    """The node of each part."""
    nodes: list[Any] = []
    for group in PART_GROUPS:
        node = cfg.get(group)
        nodes += list(node.values()) if group in LIST_GROUPS and node is not None else [node]
    return nodes


def _take_over(node: DictConfig, options: DictConfig, stated: Mapping[str, Any], part: str) -> None:
    """Set the recipe's options but those that an experiment states."""
    raw, wanted = OmegaConf.to_container(node), OmegaConf.to_container(options)
    assert isinstance(raw, dict)
    assert isinstance(wanted, dict)
    for key, value in wanted.items():
        if key not in raw and key not in signature(str(node["_target_"])).parameters:
            declared = signature(str(node["_target_"])).parameters
            raise RequestError(f"method.values.{part}.{key!s}: {part} has no such option.{nearest(str(key), declared)}")
        if key not in stated:
            node[key] = value


def of_file(group: str, name: str, folder: Path | None = None) -> dict[str, Any]:
    """The values that a part's own file has, with those of the file that it varies."""
    path = config_file(group, name, folder)
    if path is None:
        return {}
    node = read_yaml(path)
    values: dict[str, Any] = {}
    for entry in node.pop("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            values |= of_file(group, entry.partition("@")[0], folder)
    return {**values, **node}


def _with_defaults(node: DictConfig) -> None:
    try:
        defaults = signature(str(node["_target_"])).defaults
    except RequestError:  # which checking says
        return
    for key, value in defaults.items():
        if key not in node:
            node[key] = value

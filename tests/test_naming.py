"""The naming rule of the config groups: one module, one YAML file, one test file, all of one name."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path

import yaml

from ood_lab.config.compose import compose, target
from ood_lab.config.groups import LIST_GROUPS, MAKERS, PACKAGE, PART_GROUPS, config_dir
from ood_lab.config.signature import signature
from tests.cases import each

GROUPS = ("backbone", "dataset", "augmentation", *PART_GROUPS, "scorer", "figure", *MAKERS.values())
TESTS = Path(__file__).parent


def modules(group: str) -> list[str]:
    return sorted(p.stem for p in (PACKAGE / group).glob("*.py") if p.stem not in ("base", "__init__"))


def files(group: str) -> dict[str, dict]:
    return {p.stem: yaml.safe_load(p.read_text()) for p in sorted((config_dir() / group).glob("*.yaml"))}


def bases(group: str, entries: list) -> list[str]:
    """The configs of the same group that a defaults list extends."""
    names = []
    for entry in entries:
        if entry == "_self_":
            continue
        if isinstance(entry, dict):
            assert all(key.startswith("override ") for key in entry), f"{entry} changes another group without override"
            continue
        names.append(entry)
    return names


MODULES = [(group, name) for group in GROUPS for name in modules(group)]
FILES = [(group, name, node) for group in GROUPS for name, node in files(group).items()]
MAIN = [(group, name, node) for group, name, node in FILES if "_target_" in node]
VARIANTS = [(group, name, node) for group, name, node in FILES if "_target_" not in node]


@each("group", GROUPS)
def test_every_group_has_a_module_and_a_file(group: str) -> None:
    assert modules(group)
    assert files(group)


@each(("group", "name"), MODULES)
def test_each_module_has_the_yaml_of_its_name_with_its_target(group: str, name: str) -> None:
    node = files(group).get(name)
    assert node is not None, f"conf/{group}/{name}.yaml is missing"
    assert node["_target_"].rpartition(".")[0] == f"ood_lab.{group}.{name}"


@each(("group", "name"), MODULES)
def test_each_module_has_the_test_file_of_its_name(group: str, name: str) -> None:
    assert (TESTS / group / f"test_{name}.py").is_file(), f"tests/{group}/test_{name}.py is missing"


@each(("group", "name", "node"), MAIN)
def test_each_yaml_with_a_target_has_the_module_of_its_name(group: str, name: str, node: dict) -> None:
    assert name in modules(group)


@each(("group", "name", "node"), VARIANTS)
def test_every_other_yaml_extends_exactly_one_config_of_its_group(group: str, name: str, node: dict) -> None:
    extended = bases(group, node["defaults"])
    assert len(extended) == 1
    base, _, package = extended[0].partition("@")
    assert base in files(group)
    assert package == ("_here_" if group in LIST_GROUPS else "")
    assert node["defaults"][-1] == "_self_"


@each(("group", "name"), [(g, n) for g, n, _ in FILES if g in LIST_GROUPS])
def test_scorer_and_figure_files_name_their_own_package_first(group: str, name: str) -> None:
    first = (config_dir() / group / f"{name}.yaml").read_text().splitlines()[0]
    assert first == f"# @package {group}.{name}"


@each(("group", "name"), [(g, n) for g, n, _ in FILES])
def test_composed_keys_are_the_keyword_only_parameters(group: str, name: str) -> None:
    if group in LIST_GROUPS:
        node = compose(config_name=f"{group}/{name}").cfg[group][name]
    elif group == "dataset":
        node = compose([f"dataset={name}", "paths.data=x"], config_name="image_set").cfg.dataset
    elif group in MAKERS.values():  # which choose what they depend on
        node = compose([f"{group}={name}"]).cfg[group]
    else:
        node = compose(config_name=f"{group}/{name}").cfg[group]
    declared = signature(node["_target_"])
    module, _, cls = node["_target_"].rpartition(".")
    own = inspect.signature(getattr(import_module(module), cls)).parameters.values()
    assert {p.name for p in own if p.kind is p.KEYWORD_ONLY} <= set(declared.parameters)
    assert set(declared.parameters) - declared.optional <= set(node) - {"_target_"} <= set(declared.parameters)


RECIPES = files("method")


@each("name", RECIPES)
def test_a_recipe_is_a_row_of_parts_with_its_equation(name: str) -> None:
    node = RECIPES[name]
    assert "_target_" not in node, "a class only where the training loop differs"
    text = (config_dir() / "method" / f"{name}.yaml").read_text()
    varied = [entry for entry in node["defaults"] if isinstance(entry, str) and entry != "_self_"]
    assert varied or "#   L = " in text, "the equation stands at the top"
    for group, by_name in node.get("values", {}).items():
        for part, options in by_name.items():
            declared = signature(target(group, part)).parameters
            assert set(options) <= set(declared), f"{group}.{part}"


@each(("group", "name"), [(g, n) for g, n, _ in FILES if g == "dataset"])
def test_a_data_set_carries_the_name_of_its_file(group: str, name: str) -> None:
    assert compose([f"dataset={name}", "paths.data=x"], config_name="image_set").cfg.dataset.name == name

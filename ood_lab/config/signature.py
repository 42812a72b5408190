"""What a constructor accepts, read from its source with `ast`, so that a check never imports torch."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from ood_lab.config.compose import PACKAGE
from ood_lab.config.ranges import RANGES
from ood_lab.errors import RequestError


@dataclass(frozen=True)
class Signature:
    """The keyword-only parameters of a class are the keys of its YAML; the positional ones the program injects.

    `constants` are plain values that the class body assigns itself (what a method declares that it uses).
    """

    target: str
    parameters: dict[str, ast.expr]
    injected: tuple[str, ...] = ()
    constants: dict[str, Any] = field(default_factory=dict)


@cache
def module_tree(module: str) -> ast.Module:
    """The parsed source of one of this package's modules."""
    path = PACKAGE.parent / (module.replace(".", "/") + ".py")
    if not path.is_file():
        path = PACKAGE.parent / module.replace(".", "/") / "__init__.py"
    if not path.is_file():
        raise RequestError(f"_target_ names the module {module!r}, which does not exist")
    return ast.parse(path.read_text())


@cache
def signature(target: str) -> Signature:
    """Read the class that `target` ("package.module.Class") names.

    Its parameters are the keyword-only ones of its `__init__`, or, of a dataclass, its fields and those it inherits.

    Raises:
        RequestError: the module or the class does not exist.
    """
    module, _, name = target.rpartition(".")
    tree = module_tree(module)
    for node in tree.body:
        if not (isinstance(node, ast.ClassDef) and node.name == name):
            continue
        constants = {
            m.targets[0].id: m.value.value
            for m in node.body
            if isinstance(m, ast.Assign) and isinstance(m.targets[0], ast.Name) and isinstance(m.value, ast.Constant)
        }
        for member in node.body:
            if isinstance(member, ast.FunctionDef) and member.name == "__init__":
                pairs = {a.arg: a.annotation or ast.Name("Any") for a in member.args.kwonlyargs}
                return Signature(target, pairs, tuple(a.arg for a in member.args.args[1:]), constants)
        fields: dict[str, ast.expr] = {}
        injected: tuple[str, ...] = ()
        inherited: dict[str, Any] = {}
        for base in node.bases:
            parent = _imported(tree, module, base)
            if parent is not None:
                fields |= signature(parent).parameters
                injected += signature(parent).injected
                inherited |= signature(parent).constants
        if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
            fields |= {
                m.target.id: m.annotation
                for m in node.body
                if isinstance(m, ast.AnnAssign) and isinstance(m.target, ast.Name)
            }
        return Signature(target, fields, injected, inherited | constants)
    raise RequestError(f"_target_ names {target!r}, but {module} has no class {name!r}")


def _imported(tree: ast.Module, module: str, base: ast.expr) -> str | None:
    """The full name of a base class that this package defines; None for anything else."""
    if not isinstance(base, ast.Name):
        return None
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == base.id:
            return f"{module}.{base.id}"
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ood_lab."):
            for alias in node.names:
                if (alias.asname or alias.name) == base.id:
                    return f"{node.module}.{alias.name}"
    return None


def describe(annotation: ast.expr) -> str:
    """The annotation in words, for an error message."""
    match annotation:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return f"{describe(left)} or {describe(right)}"
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            return "one of " + ", ".join(str(v) for v in _literals(choices))
        case ast.Subscript(value=ast.Name(id=("list" | "tuple" | "Sequence")), slice=item):
            inner = item.elts[0] if isinstance(item, ast.Tuple) else item
            return f"a list, each entry {describe(inner)}"
        case ast.Subscript(value=ast.Name(id="dict")):
            return "a mapping"
        case ast.Constant(value=None):
            return "null"
        case ast.Name(id=name) if name in RANGES:
            return RANGES[name][0]
        case ast.Name(id=name):
            return f"a mapping with _target_ (a {name})"
    return ast.unparse(annotation)


def accepts(annotation: ast.expr, value: Any) -> bool:
    """Whether a plain configuration value fits the annotation."""
    match annotation:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return accepts(left, value) or accepts(right, value)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            return value in _literals(choices)
        case ast.Subscript(value=ast.Name(id=("list" | "tuple" | "Sequence")), slice=item):
            inner = item.elts[0] if isinstance(item, ast.Tuple) else item
            # A list of names or of mappings may be empty; a list of numbers has a meaning only with some.
            enough = ast.unparse(inner).startswith(("str", "dict")) or bool(value)
            return isinstance(value, list) and enough and all(accepts(inner, v) for v in value)
        case ast.Subscript(value=ast.Name(id="dict")):
            return isinstance(value, dict)
        case ast.Constant(value=None):
            return value is None
        case ast.Name(id=name) if name in RANGES:
            return RANGES[name][1](value)
        case ast.Name():
            return isinstance(value, dict) and "_target_" in value
    return True


def _literals(choices: ast.expr) -> list[Any]:
    items = choices.elts if isinstance(choices, ast.Tuple) else [choices]
    return [item.value for item in items if isinstance(item, ast.Constant)]

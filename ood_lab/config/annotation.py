"""What an annotation in a class's source says about the values of its YAML."""

from __future__ import annotations

import ast
from functools import reduce
from typing import Any

from ood_lab.config.ranges import RANGES
from ood_lab.config.source import definition, imported_module
from ood_lab.errors import RequestError

RANGES_MODULE = "ood_lab.config.ranges"
LISTS = {"list", "List", "tuple", "Tuple", "Sequence", "Iterable", "Collection"}
MAPPINGS = {"dict", "Dict", "Mapping"}
# What typing calls a list or a mapping, as `RANGES` does.
BUILT_IN = {**dict.fromkeys(LISTS, "list"), **dict.fromkeys(MAPPINGS, "dict")}


def resolved(annotation: ast.expr, module: str) -> ast.expr:
    """An annotation with its aliases followed, in the forms that `accepts` knows.

    Known are int, float, bool, str, None, Any, the names of `ranges`, Literal, unions and Optional, lists and mappings
    of these, Annotated (its first part), and classes; aliases of all these, quoted ones too.

    Args:
        module: in which it is written.

    Raises:
        RequestError: any other form; it is named.
    """
    match annotation:
        case ast.Constant(value=str(text)):
            return resolved(ast.parse(text, mode="eval").body, module)
        case ast.Constant(value=None):
            return annotation
        case ast.Name(id=name):
            return _name(name, module)
        case ast.Attribute(value=base, attr=name):
            return _attribute(ast.unparse(base), name, module)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return ast.BinOp(resolved(left, module), ast.BitOr(), resolved(right, module))
        case ast.Subscript(value=ast.Name() | ast.Attribute() as head, slice=inner):
            return _subscript(_spoken(head, module), inner, module)
    raise _unknown(ast.unparse(annotation), "this form is not known")


def _name(name: str, module: str) -> ast.expr:
    found = definition(name, module)
    if found is None:
        if name not in RANGES and name not in BUILT_IN:
            raise _unknown(name, f"{module} neither defines nor imports it by name")
        return ast.Name(BUILT_IN.get(name, name))
    if found.module == RANGES_MODULE or found.value is None or isinstance(found.value, ast.ClassDef):
        return ast.Name(BUILT_IN.get(found.name, found.name))
    return resolved(found.value, found.module)


def _attribute(base: str, name: str, module: str) -> ast.expr:
    known = imported_module(base, module)
    if known is None:
        raise _unknown(f"{base}.{name}", f"{module} doesn't import {base}")
    if known == RANGES_MODULE or known.split(".")[0] in ("typing", "collections"):
        return ast.Name(BUILT_IN.get(name, name))
    return ast.Name(name)  # a class: what a module of another package holds is seen when it is built


def _spoken(head: ast.expr, module: str) -> str:
    """The name of what is subscripted, where it is defined."""
    if isinstance(head, ast.Attribute):
        return head.attr
    assert isinstance(head, ast.Name)
    found = definition(head.id, module)
    return head.id if found is None else found.name


def _subscript(head: str, inner: ast.expr, module: str) -> ast.expr:
    parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
    if head == "Literal":
        return ast.Subscript(ast.Name("Literal"), inner)
    if head in ("Annotated", "Final"):
        return resolved(parts[0], module)
    if head == "Optional":
        return ast.BinOp(resolved(inner, module), ast.BitOr(), ast.Constant(None))
    if head == "Union":
        return reduce(lambda a, b: ast.BinOp(a, ast.BitOr(), b), [resolved(part, module) for part in parts])
    if head in LISTS:
        return ast.Subscript(ast.Name("list"), resolved(parts[0], module))
    if head in MAPPINGS:
        return ast.Subscript(ast.Name("dict"), inner)
    raise _unknown(f"{head}[{ast.unparse(inner)}]", "this form is not known")


def _unknown(text: str, why: str) -> RequestError:
    return RequestError(
        f"the annotation {text} can't be checked: {why}. Use int, float, bool, str, None, Literal, a list or a mapping "
        "of these, a name of ood_lab.config.ranges, a class, or an alias of one of them"
    )


def describe(annotation: ast.expr) -> str:
    """The annotation in words, for an error message."""
    match annotation:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return f"{describe(left)} or {describe(right)}"
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            return "one of " + ", ".join(str(v) for v in _literals(choices))
        case ast.Subscript(value=ast.Name(id="list"), slice=item):
            return f"a list, each entry {describe(item)}"
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
    """Whether a plain configuration value fits the (resolved) annotation."""
    match annotation:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return accepts(left, value) or accepts(right, value)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            return value in _literals(choices)
        case ast.Subscript(value=ast.Name(id="list"), slice=item):
            # A list of names or of mappings may be empty; a list of numbers has a meaning only with some.
            enough = ast.unparse(item).startswith(("str", "dict")) or bool(value)
            return isinstance(value, list) and enough and all(accepts(item, v) for v in value)
        case ast.Subscript(value=ast.Name(id="dict")):
            return isinstance(value, dict)
        case ast.Constant(value=None):
            return value is None
        case ast.Name(id=name) if name in RANGES:
            return RANGES[name][1](value)
        case ast.Name():
            return isinstance(value, dict) and "_target_" in value
    raise AssertionError(f"not a resolved annotation: {ast.unparse(annotation)}")


def _literals(choices: ast.expr) -> list[Any]:
    items = choices.elts if isinstance(choices, ast.Tuple) else [choices]
    return [ast.literal_eval(item) for item in items]

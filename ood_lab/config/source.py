"""The source of a class that a `_target_` names, anywhere on the Python path, found and read without importing it."""

from __future__ import annotations

import ast
import copy
import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.utils import get_class

from ood_lab.config.groups import PACKAGE
from ood_lab.errors import RequestError


def module_file(module: str) -> Path | None:
    """The file of a module; None where there is none, or none in Python.

    `find_spec` imports the parents of a dotted name: it is asked for the first part alone, and the rest is looked up
    in the folders where that lies.
    """
    first, *rest = module.split(".")
    if first == PACKAGE.name:
        return _file_in([PACKAGE.parent], [first, *rest])
    try:
        spec = find_spec(first)
    except (ImportError, ValueError):  # no name of a module; __main__ in a notebook
        return None
    if spec is None:
        return None
    if rest:
        return _file_in([Path(place) for place in spec.submodule_search_locations or ()], rest)
    return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None


def _file_in(places: list[Path], parts: list[str]) -> Path | None:
    for place in places:
        base = place.joinpath(*parts)
        for file in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
            if file.is_file():
                return file
    return None


def module_tree(module: str) -> ast.Module:
    """The parsed source of a module.

    Raises:
        RequestError: it isn't found, or isn't Python; the module is named.
    """
    file = module_file(module)
    if file is None:
        raise RequestError(
            f"_target_ names the module {module!r}, which is not on the Python path. Start in the folder that holds "
            f"{module.split('.')[0]}, add that folder to PYTHONPATH, or install the package (pip install -e FOLDER)"
        )
    return _parsed(file, file.stat().st_mtime_ns)


@cache
def _parsed(file: Path, _changed: int) -> ast.Module:
    try:
        return ast.parse(file.read_bytes())
    except SyntaxError as error:
        raise RequestError(f"{file}, line {error.lineno}: {error.msg}") from None


def statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """What a module's body defines, also below `if` and `try`; the last first, since it counts."""
    for node in reversed(tree.body):
        if isinstance(node, ast.If | ast.Try):
            others = [part for handler in getattr(node, "handlers", ()) for part in handler.body]
            yield from reversed([*node.body, *node.orelse, *others])
        else:
            yield node


@dataclass(frozen=True)
class Definition:
    """Where a name comes from, imports followed.

    Args:
        module, name: where it is defined, or as far as it can be followed.
        value: a class, or the value given to the name; None where the source isn't at hand, or isn't needed (typing).
    """

    module: str
    name: str
    value: ast.ClassDef | ast.expr | None


def definition(name: str, module: str) -> Definition | None:
    """The definition of a name that is used in a module; None where it is neither defined nor imported there."""
    for node in statements(module_tree(module)):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return Definition(module, name, node)
        value = assigned(node, name)
        if value is not None:
            return Definition(module, name, value)
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _imported(alias.name, absolute_name(node, module))
    return None


def assigned(node: ast.stmt, name: str) -> ast.expr | None:
    """The value that a statement gives to a name: an assignment, or an alias of a type."""
    if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
        return node.value
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
        return node.value
    if type(node).__name__ == "TypeAlias" and node.name.id == name:  # type: ignore[attr-defined]
        return node.value  # type: ignore[attr-defined]
    return None


def imported_module(name: str, module: str) -> str | None:
    """The module that a name stands for in another one: `import a.b as name`, `from a import name`."""
    for node in statements(module_tree(module)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return alias.name
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return f"{absolute_name(node, module)}.{alias.name}"
    return None


def code_digest(target: str) -> str | None:
    """Eight digits of the code of a class of one's own: its module, and what that imports from the same folder of code.

    That is the packages around it, other modules of its package, and modules and packages beside that; nothing that is
    installed. Comments, docstrings and layout don't count. None for a class of this program, or one whose source is not
    found.
    """
    module = target.rpartition(".")[0]
    top = module.partition(".")[0]
    file = module_file(module)
    if top == PACKAGE.name or file is None:
        return None
    root = file.parents[module.count(".") + (file.name == "__init__.py")]
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = module_file(name)
        if name in found or file is None:
            continue
        found[name], imported = _code(file, file.stat().st_mtime_ns, name)
        if name.rpartition(".")[0]:
            waiting.append(name.rpartition(".")[0])
        waiting += [other for other in imported if _is_beside(other.partition(".")[0], top, root)]
    return hashlib.sha256("\n".join(f"{name} {found[name]}" for name in sorted(found)).encode()).hexdigest()[:8]


def _is_beside(other: str, top: str, root: Path) -> bool:
    """Whether a top-level module is that of a class, or lies beside it, and is not installed."""
    if "site-packages" in root.parts or other == PACKAGE.name:
        return False
    return other == top or (root / f"{other}.py").is_file() or (root / other / "__init__.py").is_file()


_imported_code: dict[str, str | None] = {}  # by module, as it was when this process imported it


def imported_class(target: str) -> Any:
    """The class that a `_target_` names.

    Raises:
        RequestError: its code has changed since this process imported it, which would go on to run the old one.
    """
    code = code_digest(target)
    if _imported_code.setdefault(target.rpartition(".")[0], code) != code:
        raise RequestError(
            f"{target}: its code has changed since this process imported it, and the old code would run under the "
            "name of the new. Start Python anew"
        )
    return get_class(target)


@cache
def _code(file: Path, changed: int, module: str) -> tuple[str, tuple[str, ...]]:
    """A module as it runs, without docstrings, comments and layout; and the modules that it may import."""
    tree = _parsed(file, changed)
    imported = tuple(dict.fromkeys(_imports(tree, module)))
    try:
        plain = copy.deepcopy(tree)
        for node in ast.walk(plain):
            body = getattr(node, "body", None)
            if isinstance(body, list):
                node.body = [part for part in body if not _is_text(part)]  # type: ignore[attr-defined]
        return ast.unparse(plain), imported  # the same under every version of Python, as `dump` is not
    except RecursionError:  # an expression of thousands of terms
        return file.read_text(errors="replace"), imported


def _is_text(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _imports(tree: ast.Module, module: str) -> Iterator[str]:
    """The modules that may be imported anywhere in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = absolute_name(node, module)
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def absolute_name(node: ast.ImportFrom, module: str) -> str:
    """The module that a `from ... import` names, dots in front resolved."""
    if not node.level:
        return node.module or ""
    file = module_file(module)
    is_package = file is not None and file.name == "__init__.py"
    parts = module.split(".")
    parent = parts[: len(parts) - node.level + is_package]
    return ".".join([*parent, *([node.module] if node.module else [])])


def _imported(name: str, module: str) -> Definition:
    readable = module.split(".")[0] not in sys.stdlib_module_names and module_file(module) is not None
    return (definition(name, module) if readable else None) or Definition(module, name, None)

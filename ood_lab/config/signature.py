"""What a constructor accepts, read from its source with `ast`, so that a check never imports torch."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from ood_lab.config.affects import Affects, declared
from ood_lab.config.annotation import resolved
from ood_lab.config.groups import PACKAGE
from ood_lab.config.source import assigned, definition, imported_module, module_file, module_tree, statements
from ood_lab.errors import RequestError

# What parts declare: read from the source, so it must be written out.
DECLARED = (
    "reads",
    "reads_whole",
    "reads_shifted",
    "reads_outliers",
    "waits_for_outliers",
    "memories",
    "views",
    "space",
    "gives",
    "scalars",
    "caveat",
    "at_most",
    "least_classes",
    "watched",
    "trained_through",
    "inherits",
    "passes",
    "reads_classes",
    "reads_latent",
    "models",
)


@dataclass(frozen=True)
class Signature:
    """The keyword-only parameters of a class are the keys of its YAML; the positional ones the program injects.

    `constants` are plain values that the class body, or that of a base, assigns (what a part declares that it reads).
    `affects` has what the parameters with a mark affect.
    `optional` parameters have a default and may be left out; `defaults` has those that are plain values.
    """

    target: str
    parameters: dict[str, ast.expr]
    injected: tuple[str, ...] = ()
    constants: dict[str, Any] = field(default_factory=dict)
    affects: dict[str, Affects] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()
    defaults: dict[str, Any] = field(default_factory=dict)


def signature(target: str) -> Signature:
    """Read the class that `target` ("package.module.Class") names; its module may lie anywhere on the Python path.

    Its parameters are the keyword-only ones of its `__init__`, or, of a dataclass, its fields and those it inherits.

    Raises:
        RequestError: the module or the class does not exist, or an annotation can't be checked.
    """
    module, _, name = target.rpartition(".")
    file = module_file(module) if module else None
    # A notebook goes on while a method is written.
    return _signature(target, module, name, file.stat().st_mtime_ns if file else 0)


@cache
def _signature(target: str, module: str, name: str, _changed: int) -> Signature:
    if not module:
        raise RequestError(f"_target_={target!r}: expected package.module.Class")
    node = next((n for n in statements(module_tree(module)) if isinstance(n, ast.ClassDef) and n.name == name), None)
    if node is None:
        raise RequestError(f"_target_ names {target!r}, but {module} has no class {name!r}")
    parents = [parent for base in node.bases if (parent := _parent(base, module)) is not None]
    constants: dict[str, Any] = {}
    for parent in reversed(parents):
        constants |= parent.constants
    for member in node.body:
        if isinstance(member, ast.Assign):
            names = [t.id for t in member.targets if isinstance(t, ast.Name)]
            constants |= dict.fromkeys(names, _plain(member.value)) if _is_plain(member.value) else {}
        if isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name) and _is_plain(member.value):
            constants[member.target.id] = _plain(member.value)
        lost = [name for name in DECLARED if (value := assigned(member, name)) is not None and not _is_plain(value)]
        if lost:
            raise RequestError(
                f"{target}: {lost[0]} is read without running the class: write it out, as in {lost[0]} = ('logits',)"
            )
    own = next((m for m in node.body if isinstance(m, ast.FunctionDef) and m.name == "__init__"), None)
    parameters: dict[str, ast.expr] = {}
    injected: tuple[str, ...] = ()
    defaults: dict[str, ast.expr | None] = {}
    affects: dict[str, Affects] = {}
    annotations: dict[str, ast.expr | None] = {}
    inherited = [parent for parent in parents if own is None or own.args.kwarg is not None]  # what is passed on
    for parent in inherited:
        parameters |= parent.parameters
        affects |= parent.affects
        defaults |= dict.fromkeys(parent.optional)
    known = {name: value for parent in inherited for name, value in parent.defaults.items()}
    if own is not None:
        annotations = {a.arg: a.annotation for a in own.args.kwonlyargs}
        pairs = zip(own.args.kwonlyargs, own.args.kw_defaults, strict=True)
        for argument, value in pairs:
            defaults.pop(argument.arg, None)  # the base's, where it is declared anew
            known.pop(argument.arg, None)
            defaults |= {argument.arg: value} if value is not None else {}
        injected = tuple(a.arg for a in own.args.args[1:])
        for parent in parents if own.args.vararg is not None else []:
            injected = (*injected, *parent.injected[len(injected) :])
    else:
        for parent in parents:
            injected += parent.injected
        if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
            for member in node.body:
                if isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name) and _is_field(member):
                    annotations[member.target.id] = member.annotation
                    defaults |= {member.target.id: member.value} if member.value is not None else {}
    parameters |= {name: _checked(annotation, name, target, module) for name, annotation in annotations.items()}
    affects |= {name: mark for name, annotation in annotations.items() if (mark := declared(annotation)) is not None}
    known |= {name: _plain(value) for name, value in defaults.items() if value is not None and _is_plain(value)}
    return Signature(target, parameters, injected, constants, affects, frozenset(defaults), known)


def _is_plain(value: ast.expr | None) -> bool:
    """Whether a value is written out: a constant, or a tuple or list of such."""
    if isinstance(value, ast.Tuple | ast.List):
        return all(_is_plain(item) for item in value.elts)
    if isinstance(value, ast.UnaryOp):
        return isinstance(value.op, ast.USub) and _is_plain(value.operand)
    return isinstance(value, ast.Constant)


def _plain(value: ast.expr | None) -> Any:
    found = ast.literal_eval(value) if value is not None else None
    return list(found) if isinstance(found, tuple) else found


def _is_field(member: ast.AnnAssign) -> bool:
    """Whether an annotated line of a dataclass is an option: no class variable, no `_: KW_ONLY`."""
    spelled = ast.unparse(member.annotation)
    return "ClassVar" not in spelled and not spelled.endswith("KW_ONLY")


def _checked(annotation: ast.expr | None, parameter: str, target: str, module: str) -> ast.expr:
    try:
        return ast.Name("Any") if annotation is None else resolved(annotation, module)
    except RequestError as error:
        raise RequestError(f"{target}, parameter {parameter}: {error}") from None


def _parent(base: ast.expr, module: str) -> Signature | None:
    """The signature of a base class; None for one that declares nothing to this program (nn.Module, ABC)."""
    if isinstance(base, ast.Attribute):
        there = imported_module(ast.unparse(base.value), module)
        found = definition(base.attr, there) if there is not None and module_file(there) is not None else None
    else:
        found = definition(base.id, module) if isinstance(base, ast.Name) else None
    if found is None or not isinstance(found.value, ast.ClassDef):
        return None
    try:
        return signature(f"{found.module}.{found.name}")
    except RequestError:
        if found.module.split(".")[0] in (PACKAGE.name, module.split(".")[0]):
            raise
        return None  # a class of somebody else's, not written for this

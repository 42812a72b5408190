"""Checking the detectors of a request: what each needs, and what is searched for it."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ood_lab.config.annotation import accepts, describe
from ood_lab.config.compose import Composed, choices_of, target
from ood_lab.config.groups import groups, nearest
from ood_lab.config.identity import nodes_of, read_by, reads_projections
from ood_lab.config.parts import TERM_GROUPS
from ood_lab.config.peers import PEERS, check_peers
from ood_lab.config.signature import signature
from ood_lab.errors import RequestError

EVERYWHERE = ("method", "penultimate", "projection")  # spaces of every network


def check_scorers(composed: Composed, folder: Path | None = None) -> None:
    """Refuse a detector that the method can't feed, and a search that can't be made.

    Raises:
        RequestError: see above.
    """
    scorers = composed.plain("scorer")
    for name, node in scorers.items():
        _check_space(name, node, composed)
        if node.get("activations") == "val" and not composed.cfg.protocol.id_val:
            raise RequestError(f"scorer.{name}.activations=val: protocol.id_val=0 keeps no ID images for validation")
        if node.get("index") == "faiss" and find_spec("faiss") is None:
            raise RequestError("index=faiss: faiss is not installed; pip install faiss-cpu, or use index=torch")
    _check_local_radius(composed, scorers, folder)
    if PEERS in scorers:
        check_peers(scorers[PEERS])
    tuning = composed.plain("tuning")
    if tuning is not None:
        _check_tuning(composed)
        for name, grid in tuning["grids"].items():
            known = groups(folder)["scorer"]
            if name not in known:
                raise RequestError(f"tuning.grids.{name}: no such scorer.{nearest(name, known)}")
            if name == PEERS:
                raise RequestError(f"tuning.grids.{PEERS}: detectors of pytorch-ood are not tuned; set {PEERS}.options")
            if name in scorers:
                _check_grid(name, grid, scorers[name])


def _check_local_radius(composed: Composed, scorers: dict[str, Any], folder: Path | None) -> None:
    """Detectors whose scores are differentiated must be there, and be functions of the images as they are."""
    searched = (composed.plain("tuning") or {"grids": {}})["grids"]
    for name in composed.plain("local_radius"):
        if name.partition(".")[0] == PEERS:
            raise RequestError(f"local_radius={name}: detectors of pytorch-ood are not differentiated; leave it out")
        if name not in scorers:
            known = groups(folder)["scorer"]
            remedy = "; add it to scorer" if name in known else f".{nearest(name, known)}"
            chosen = f"scorer=[{','.join(scorers)}]"
            raise RequestError(f"local_radius={name}: no detector of this request ({chosen}){remedy}")
        if scorers[name].get("epsilon") or "epsilon" in searched.get(name, {}):
            raise RequestError(
                f"local_radius={name}: this detector scores changed images; give scorer.{name}.epsilon=0 and no search "
                "for it, or leave it out"
            )
        if scorers[name].get("index") == "faiss":
            raise RequestError(f"local_radius={name}: faiss gives no gradients; use scorer.{name}.index=torch")


def as_declared(node: dict[str, Any]) -> dict[str, Any]:
    """A detector's options with whole numbers as fractions where these are declared: 90 and 90.0 are one value."""
    declared = signature(node["_target_"]).parameters
    return {
        key: float(value) if type(value) is int and _is_fraction(declared.get(key)) else value
        for key, value in node.items()
    }


def _is_fraction(annotation: ast.expr | None) -> bool:
    return isinstance(annotation, ast.Name) and accepts(annotation, 1) and accepts(annotation, 0.5)


def _check_space(name: str, node: dict[str, Any], composed: Composed) -> None:
    """A detector in a space of its own needs a head, or a method, that gives it."""
    chosen = composed.choices["method"]
    gives = {
        given
        for key in ("head", "method")
        for given in signature(str(composed.plain(f"{key}._target_"))).constants.get("gives", ())
    }
    linear = signature(str(composed.plain("head._target_"))).constants.get("linear", True)
    if not linear and "head" in signature(node["_target_"]).constants.get("needs", ()):
        raise RequestError(
            f"scorer={name} passes features through a linear classifier, and the logits of head="
            f"{composed.choices['head']} are none; leave it out"
        )
    space = node.get("space") or signature(node["_target_"]).constants.get("space", "penultimate")
    if space == "projection" and not reads_projections(composed):
        raise RequestError(
            f"scorer.{name}.space=projection: method={chosen} trains no projection; "
            "use space=method (the projection where there is one) or space=penultimate"
        )
    if space not in (*EVERYWHERE, *gives):
        head = composed.choices["head"]
        raise RequestError(
            f"scorer={name} reads {space}, which method={chosen} (head={head}) does not give; {_remedy(node)}"
        )
    nodes = [node for group in TERM_GROUPS for node in nodes_of(composed, group)]
    through = _trained_through(str(composed.plain("head._target_")), space)
    if through and not any(through & read_by(term["_target_"]) for term in nodes):
        raise RequestError(
            f"scorer={name} would score what nothing trains: no term of method={chosen} reads {min(through)}; leave it "
            f"out, or {_remedy(node)}"
        )


def _remedy(scorer: dict[str, Any]) -> str:
    works = [method for method in groups()["method"] if serves(method, scorer)]
    return f"use method={' or method='.join(works)}" if works else "no built-in method provides it"


def serves(method: str, scorer: dict[str, Any]) -> bool:
    """Whether a built-in recipe's network gives, trained, what a detector reads; others give what every one does."""
    space = scorer.get("space") or signature(scorer["_target_"]).constants.get("space", "penultimate")
    if space in EVERYWHERE:
        return True
    if method not in groups()["method"]:
        return False
    chosen = choices_of("method", method)
    head = target("head", chosen.get("head", ["linear"])[0])
    if space not in signature(head).constants.get("gives", ()):
        return False
    through = _trained_through(head, space)
    terms = [target(group, term) for group in TERM_GROUPS for term in {"id_loss": ["ce"], **chosen}.get(group, [])]
    return not through or any(through & read_by(term) for term in terms)


def _trained_through(head: str, space: str) -> set[str]:
    """Of what a term must read something for this output of a head to be trained; empty where that is no question."""
    return {read for given, read in signature(head).constants.get("trained_through", ()) if given == space}


def _check_tuning(composed: Composed) -> None:
    """There must be data to tune on."""
    protocol = composed.plain("protocol")
    if protocol["validation"] and protocol["id_val"]:
        return
    lacking = (
        "OOD validation set (protocol.validation)" if protocol["id_val"] else "ID validation image (protocol.id_val)"
    )
    raise RequestError(
        f"tuning={composed.choices['tuning']}: protocol={composed.choices['protocol']} declares no {lacking}, so that "
        "it would be tuned on test data. Leave tuning out: detectors then have their papers' values"
    )


def _check_grid(name: str, grid: dict[str, Any], node: dict[str, Any]) -> None:
    """A grid names options of its detector, and values that they take."""
    options = signature(node["_target_"]).parameters
    for option, values in grid.items():
        path = f"tuning.grids.{name}.{option}"
        if option not in options:
            raise RequestError(f"{path}: scorer {name} has no such option.{nearest(option, options)}")
        expected = options[option]
        if not isinstance(values, list) or not values or not all(accepts(expected, v) for v in values):
            raise RequestError(f"{path}={values}: expected a list of values, each {describe(expected)}")

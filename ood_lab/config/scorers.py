"""Checking the detectors of a request: what each needs, and what is searched for it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from ood_lab.config.annotation import accepts, describe
from ood_lab.config.compose import choices_of, target
from ood_lab.config.experiment import Experiment, Part
from ood_lab.config.groups import groups
from ood_lab.config.identity import read_by, reads_projections
from ood_lab.config.parts import TERM_GROUPS
from ood_lab.config.peers import PEERS, check_peers
from ood_lab.config.signature import signature
from ood_lab.config.suggest import nearest
from ood_lab.errors import RequestError

EVERYWHERE = ("method", "penultimate", "projection")  # spaces of every network


def check_scorers(experiment: Experiment) -> None:
    """Refuse a detector that the method can't feed, and a search that can't be made.

    Raises:
        RequestError: see above.
    """
    for name, scorer in experiment.scorer.items():
        _check_space(scorer, experiment)
        if scorer.get("activations") == "val" and not experiment.protocol.id_val:
            raise RequestError(f"scorer.{name}.activations=val: protocol.id_val=0 keeps no ID images for validation")
        if scorer.get("index") == "faiss" and find_spec("faiss") is None:
            raise RequestError("index=faiss: faiss is not installed; pip install faiss-cpu, or use index=torch")
    _check_local_radius(experiment)
    if PEERS in experiment.scorer:
        check_peers(experiment.scorer[PEERS].node)
    if experiment.tuning is not None:
        _check_tuning(experiment)
        for name, grid in experiment.tuning.grids.items():
            known = groups(experiment.config_dir)["scorer"]
            if name not in known:
                raise RequestError(f"tuning.grids.{name}: no such scorer.{nearest(name, known)}")
            if name == PEERS:
                raise RequestError(f"tuning.grids.{PEERS}: detectors of pytorch-ood are not tuned; set {PEERS}.options")
            if name in experiment.scorer:
                _check_grid(name, grid, experiment.scorer[name])


def _check_local_radius(experiment: Experiment) -> None:
    """Detectors whose scores are differentiated must be there, and be functions of the images as they are."""
    searched = experiment.tuning.grids if experiment.tuning is not None else {}
    for name in experiment.local_radius:
        if name.partition(".")[0] == PEERS:
            raise RequestError(f"local_radius={name}: detectors of pytorch-ood are not differentiated; leave it out")
        scorer = experiment.scorer.get(name)
        if scorer is None:
            known = groups(experiment.config_dir)["scorer"]
            remedy = "; add it to scorer" if name in known else f".{nearest(name, known)}"
            chosen = f"scorer=[{','.join(experiment.scorer)}]"
            raise RequestError(f"local_radius={name}: no detector of this request ({chosen}){remedy}")
        if scorer.get("epsilon") or "epsilon" in searched.get(name, {}):
            raise RequestError(
                f"local_radius={name}: this detector scores changed images; give scorer.{name}.epsilon=0 and no search "
                "for it, or leave it out"
            )
        if scorer.get("index") == "faiss":
            raise RequestError(f"local_radius={name}: faiss gives no gradients; use scorer.{name}.index=torch")


def space_of(scorer: Part) -> str:
    """The space that a detector reads: as an option says, else as its class declares."""
    return str(scorer.get("space") or scorer.declared.get("space", "penultimate"))


def _check_space(scorer: Part, experiment: Experiment) -> None:
    """A detector in a space of its own needs a head, or a method, that gives it."""
    name, method, head = scorer.choice, experiment.choices["method"], experiment.head
    gives = {given for part in (head, experiment.method) for given in part.declared.get("gives", ())}
    if not head.declared.get("linear", True) and "head" in scorer.declared.get("requires", ()):
        raise RequestError(
            f"scorer={name} passes features through a linear classifier, and the logits of head={head.choice} are "
            "none; leave it out"
        )
    space = space_of(scorer)
    if space == "projection" and not reads_projections(experiment):
        raise RequestError(
            f"scorer.{name}.space=projection: method={method} trains no projection; "
            "use space=method (the projection where there is one) or space=penultimate"
        )
    if space not in (*EVERYWHERE, *gives):
        raise RequestError(
            f"scorer={name} reads {space}, which method={method} (head={head.choice}) does not give; {_remedy(scorer)}"
        )
    through = _trained_through(head.target, space)
    terms = [part for part in experiment.parts if part.group in TERM_GROUPS]
    if through and not any(through & read_by(term.target) for term in terms):
        raise RequestError(
            f"scorer={name} would score what nothing trains: no term of method={method} reads {min(through)}; leave it "
            f"out, or {_remedy(scorer)}"
        )


def _remedy(scorer: Part) -> str:
    works = [method for method in groups()["method"] if serves(method, scorer)]
    return f"use method={' or method='.join(works)}" if works else "no built-in method provides it"


def serves(method: str, scorer: Part) -> bool:
    """Whether a built-in recipe's network gives, trained, what a detector reads; others give what every one does."""
    space = space_of(scorer)
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


def _check_tuning(experiment: Experiment) -> None:
    """There must be data to tune on."""
    protocol, choices = experiment.protocol, experiment.choices
    if protocol.validation and protocol.id_val:
        return
    missing = "OOD validation set (protocol.validation)" if protocol.id_val else "ID validation image (protocol.id_val)"
    raise RequestError(
        f"tuning={choices['tuning']}: protocol={choices['protocol']} declares no {missing}, so that it would be tuned "
        "on test data. Leave tuning out: detectors then have their papers' values"
    )


def _check_grid(name: str, grid: Mapping[str, Any], scorer: Part) -> None:
    """A grid names options of its detector, and values that they take."""
    options = signature(scorer.target).parameters
    for option, values in grid.items():
        path = f"tuning.grids.{name}.{option}"
        if option not in options:
            raise RequestError(f"{path}: scorer {name} has no such option.{nearest(option, options)}")
        expected = options[option]
        if not isinstance(values, list) or not values or not all(accepts(expected, v) for v in values):
            raise RequestError(f"{path}={values}: expected a list of values, each {describe(expected)}")

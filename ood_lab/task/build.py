"""From a configuration to objects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class
from omegaconf import OmegaConf

from ood_lab.config.groups import LIST_GROUPS
from ood_lab.config.identity import order_of, part_name, reads_z
from ood_lab.config.parts import TERM_GROUPS
from ood_lab.datamodule import DataModule, Normalise, Sizes
from ood_lab.head.base import Head
from ood_lab.method.base import Method
from ood_lab.parts import Dimensions, Parts, Term
from ood_lab.pixels import Reading
from ood_lab.random import derive_seed


def build(node: Any, *args: Any, **injected: Any) -> Any:
    """The object that a node's `_target_` names, its keys as keyword arguments; nodes below it are built first.

    Hydra's `instantiate` would resolve `${` in the names of files.
    """
    plain: Any = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    options = {key: _built(value) for key, value in plain.items() if key != "_target_"}
    return get_class(plain["_target_"])(*args, **options, **injected)


def _built(value: Any) -> Any:
    if isinstance(value, dict):
        return build(value) if "_target_" in value else {key: _built(child) for key, child in value.items()}
    return [_built(child) for child in value] if isinstance(value, list) else value


def build_method(cfg: Any) -> Method:
    """The network and its parts, initialised from the run's seed alone, always in the same order."""
    torch.manual_seed(derive_seed(cfg.seed, "weights"))
    classes = cfg.dataset.recipe.num_classes
    head = head_class(cfg)
    backbone = build(cfg.backbone, classes + head.EXTRA)
    dims = Dimensions(classes, backbone.feature_dim, cfg.head.projection_dim)
    synthesizer = build(cfg.synthesizer) if cfg.get("synthesizer") is not None else None
    sources = [] if synthesizer is None else [cfg.synthesizer]
    nodes = (cfg.head, *sources, *(node for _, _, node in _term_nodes(cfg)))
    projects = any(reads_z(str(node._target_)) for node in nodes)
    parts = Parts(
        backbone=backbone,
        head=build(cfg.head, backbone.feature_dim, projects, classes),
        terms=_terms(cfg, dims),
        classes=classes,
        seed=cfg.seed,
        dims=dims,
        synthesizer=synthesizer,
        selector=build(cfg.selector) if cfg.get("selector") is not None else None,
        perturbation=build(cfg.perturbation) if cfg.get("perturbation") is not None else None,
    )
    method: Method = build(cfg.method, parts)
    return method


def head_class(cfg: Any) -> type[Head]:
    """The class of the head."""
    found: type[Head] = get_class(cfg.head._target_)
    return found


def _term_nodes(cfg: Any) -> Iterator[tuple[str, str, Any]]:
    """(group, name, node) of each term, in the order in which they are summed."""
    for group in TERM_GROUPS:
        node = cfg.get(group)
        if node is None:
            continue
        if group in LIST_GROUPS:
            plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
            assert isinstance(plain, dict)
            names = sorted(plain, key=lambda name: (order_of(group, plain[name]), name))
            yield from ((group, str(name), node[name]) for name in names)
        else:
            yield group, part_name(group, str(node._target_)).rpartition(".")[2].lower(), node


def _terms(cfg: Any, dims: Dimensions) -> dict[str, Term]:
    terms: dict[str, Term] = {}
    for group, name, node in _term_nodes(cfg):
        term: Term = build(node, dims)
        term.group, term.name = group, name
        terms[name] = term
    return terms


def build_reading(cfg: Any) -> Reading:
    """How the run reads image sets."""
    recipe, trainer = cfg.dataset.recipe, cfg.trainer
    return Reading(recipe.resize, recipe.side, Path(cfg.paths.cache).absolute(), trainer.cache_gb, trainer.workers)


def build_data(cfg: Any, views: int) -> DataModule:
    """The ID set, and the auxiliary set where there is one, served in batches."""
    trainer = cfg.trainer
    return DataModule(
        build(cfg.dataset),
        build(cfg.augmentation),
        build_reading(cfg),
        auxiliary=build(cfg.auxiliary) if cfg.get("auxiliary") is not None else None,
        normalise=Normalise(list(cfg.protocol.mean), list(cfg.protocol.std)),
        views=views,
        sizes=Sizes(trainer.batch_size, trainer.auxiliary_batch_size, trainer.eval_batch_size, _candidates(cfg)),
        stream=cfg.dataset.recipe.serve == "streaming",
        id_val=cfg.protocol.id_val,
        seed=cfg.seed,
        device=device(cfg),
    )


def _candidates(cfg: Any) -> int | None:
    """Candidates that a step is served; None where all that it is served are taken."""
    selector = cfg.get("selector")
    return selector.candidates or 0 if selector is not None and "candidates" in selector else None


def device(cfg: Any) -> torch.device:
    """Where the network and resident images live."""
    return torch.device("cuda" if cfg.trainer.accelerator == "gpu" else "cpu")

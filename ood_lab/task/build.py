"""From a configuration to objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class
from omegaconf import OmegaConf

from ood_lab.datamodule import DataModule, Normalise, Sizes
from ood_lab.method.base import Method
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
    """The network and its objective, initialised from the run's seed alone."""
    torch.manual_seed(derive_seed(cfg.seed, "weights"))
    classes = cfg.dataset.recipe.num_classes
    backbone = build(cfg.backbone, classes)
    extra = {"synthesizer": build(cfg.synthesizer)} if cfg.get("synthesizer") is not None else {}
    method: Method = build(cfg.method, backbone, classes, cfg.seed, **extra)
    return method


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
        sizes=Sizes(trainer.batch_size, trainer.auxiliary_batch_size, trainer.eval_batch_size),
        stream=cfg.dataset.recipe.serve == "streaming",
        id_val=cfg.protocol.id_val,
        seed=cfg.seed,
        device=device(cfg),
    )


def device(cfg: Any) -> torch.device:
    """Where the network and resident images live."""
    return torch.device("cuda" if cfg.trainer.accelerator == "gpu" else "cpu")

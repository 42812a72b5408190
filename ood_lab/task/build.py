"""From a configuration to objects."""

from __future__ import annotations

from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from ood_lab.datamodule import ResidentDataModule
from ood_lab.method.base import Method
from ood_lab.random import derive_seed


def build(node: Any, *args: Any, **injected: Any) -> Any:
    """The object that a node's `_target_` names, its keys as keyword arguments."""
    plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    return instantiate(plain, *args, **injected, _convert_="all")


def build_method(cfg: Any) -> Method:
    """The network and its objective, initialised from the run's seed alone."""
    torch.manual_seed(derive_seed(cfg.seed, "weights"))
    classes = cfg.dataset.recipe.num_classes
    backbone = build(cfg.backbone, classes)
    extra = {"synthesizer": build(cfg.synthesizer)} if cfg.get("synthesizer") is not None else {}
    method: Method = build(cfg.method, backbone, classes, cfg.seed, **extra)
    return method


def build_data(cfg: Any, views: int) -> ResidentDataModule:
    """The ID set on the device, served in batches."""
    return ResidentDataModule(
        build(cfg.dataset),
        build(cfg.augmentation),
        views=views,
        batch_size=cfg.trainer.batch_size,
        eval_batch_size=cfg.trainer.eval_batch_size,
        seed=cfg.seed,
        device=device(cfg),
    )


def device(cfg: Any) -> torch.device:
    """Where the network and resident images live."""
    return torch.device("cuda" if cfg.trainer.accelerator == "gpu" else "cpu")

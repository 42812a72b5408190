"""Small parts, batches and methods for tests of what runs them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.backbone.resnet import ResNet
from ood_lab.head.linear import Linear
from ood_lab.id_loss.ce import CE
from ood_lab.id_loss.cider import CIDER
from ood_lab.memory import Bank
from ood_lab.method.base import Method
from ood_lab.moment import Progress
from ood_lab.optimizer import SGD
from ood_lab.outlier_loss.equidistant import Equidistant
from ood_lab.outlier_loss.logistic import Logistic
from ood_lab.outlier_loss.negatives import Negatives
from ood_lab.outlier_loss.outlier_exposure import OutlierExposure
from ood_lab.outlier_loss.paper_eq7 import PaperEq7
from ood_lab.outlier_loss.released import Released
from ood_lab.parts import Dimensions, Memories, Parts, Synthesizer, Term
from ood_lab.perturbation.base import OutlierImages
from ood_lab.types import Batch, Outliers

C, D, SIZE, M, TAU = 3, 6, 4, 0.9, 0.2
PROTOTYPED = {"temperature": TAU, "prototype_momentum": M}
OUTLIER_LOSSES = {
    "equidistant": partial(Equidistant, **PROTOTYPED),
    "paper_eq7": partial(PaperEq7, **PROTOTYPED),
    "negatives": partial(Negatives, **PROTOTYPED),
    "released": partial(Released, **PROTOTYPED),
    "logistic": Logistic,
    "outlier_exposure": OutlierExposure,
}


def unit(*shape: int, seed: int = 0) -> Tensor:
    """Random unit vectors."""
    return F.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


class Fixed(Synthesizer):
    """Always the same outliers; keeps what it was asked with."""

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.banks: list[Tensor] = []
        self.draws: list[float] = []

    def keeps(self) -> Memories:
        return {"bank": partial(Bank, size=SIZE)}

    def sample(self, kept: Mapping[str, Tensor], dims: Dimensions, generator: torch.Generator) -> Outliers:
        self.banks.append(kept["bank"].clone())
        self.draws.append(float(torch.rand((), generator=generator)))
        return Outliers(self.values, torch.zeros(len(self.values), dtype=torch.int64), {"marker": torch.tensor(3.5)})


def backbone(norm: str = "batch") -> ResNet:
    """An untrained network of 8 to 64 channels."""
    torch.manual_seed(0)
    return ResNet(C, block="basic", depths=[1, 1, 1, 1], width=8, stem="cifar", norm=norm)


def terms(*, cider: bool = True, outlier_loss: str | None = None, weight: float = 1.0, **ce: Any) -> list[Term]:
    """CE, with or without CIDER's terms (weights 0.5 and 2) and one on outliers."""
    dims = Dimensions(C, 64, D)
    made: list[Term] = [CE(dims, **ce)]
    names = ["ce"]
    if cider:
        made.append(CIDER(dims, w_compactness=0.5, w_dispersion=2.0, **PROTOTYPED))
        names.append("cider")
    if outlier_loss is not None:
        made.append(OUTLIER_LOSSES[outlier_loss](dims, weight=weight))
        names.append(outlier_loss)
    for term, name in zip(made, names, strict=True):
        term.group, term.name = "outlier_loss" if name == outlier_loss else "id_loss", name
    return made


def method(made: list[Term], synthesizer: Synthesizer | None = None, *, norm: str = "batch", **options: Any) -> Method:
    """The module of these terms, its prototypes set to unit vectors."""
    net = backbone(norm)
    projects = any("z" in (*term.reads, *term.reads_whole, *term.reads_outliers) for term in made)
    parts = Parts(
        backbone=net,
        head=Linear(net.feature_dim, projects, projection_dim=D),
        terms={term.name: term for term in made},
        classes=C,
        seed=7,
        dims=Dimensions(C, net.feature_dim, D),
        synthesizer=synthesizer,
    )
    optimizer = SGD(lr=0.1, momentum=0.0, weight_decay=0.0, warmup=0.0)
    module = Method(parts, stage="finetune", optimizer=optimizer, **options)
    for name, memory in module.memories.items():
        if name == "prototypes":
            memory.values.copy_(unit(C, D, seed=1))
    return module


def fill(module: Method) -> Method:
    """Fill its bank."""
    bank = module.memories["bank"]
    labels = torch.arange(C).repeat(SIZE)
    bank.store(unit(C * SIZE, D, seed=2), labels, labels.bincount().numpy(), bank.values)
    return module


def batch(rows: int = 8, seed: int = 0, outliers: int = 0) -> Batch:
    """Two views of each image, the labels repeated; with or without images of an auxiliary set."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(C, (rows,), generator=draw)
    images = torch.randn(2 * rows, 3, 8, 8, generator=draw)
    auxiliary = torch.randn(outliers, 3, 8, 8, generator=draw) if outliers else None
    return Batch(images, labels.repeat(2), auxiliary)


def images_of(data: Batch) -> OutlierImages | None:
    """The outlier images of a batch."""
    return None if data.auxiliary is None else OutlierImages(data.auxiliary)


def losses(module: Method, data: Batch, step: int = 0) -> dict[str, Tensor]:
    """The terms of one step, the memories written."""
    inputs = data.images if data.auxiliary is None else torch.cat([data.images, data.auxiliary])
    found, store = module.losses(data, module(inputs), Progress(step, 100, 10), images_of(data))
    store()
    return found


def gradient(module: Method, data: Batch, name: str = "total") -> Tensor:
    """Of one scalar, with respect to the backbone's weights."""
    module.zero_grad()
    losses(module, data)[name].backward()
    return torch.cat([p.grad.flatten() for p in module.backbone.parameters() if p.grad is not None])


def at(module: Method, step: int = 0, epoch: int = 0, epochs: int = 10, **options: Any) -> Method:
    """Give the module a trainer that stands somewhere in epochs of ten steps."""
    data = SimpleNamespace(steps_per_epoch=10, **options)
    module._trainer = SimpleNamespace(
        current_epoch=epoch, global_step=10 * epoch + step, world_size=1, max_epochs=epochs, datamodule=data,
        optimizers=[], log_every_n_steps=1,
    )  # fmt: skip
    return module

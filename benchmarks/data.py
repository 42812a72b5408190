"""Images a second of the training input, beside torchvision's DataLoader with PIL transforms and two workers.

    python benchmarks/data.py

Both read the same random 32x32 images from memory, augment them to normalised float batches of 128, and are timed in
turn in one process; the figure is the ratio of the medians. One thread here, two worker processes there.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from ood_lab.augmentation.base import Augmentation
from ood_lab.augmentation.crop_flip import CropFlip
from ood_lab.augmentation.simclr import SimCLR
from ood_lab.config.compose import compose
from ood_lab.images.pixels import Reading
from ood_lab.reader.base import Listing
from ood_lab.task.build import build
from ood_lab.training.datamodule import DataModule, Sizes
from ood_lab.training.normalise import Normalise

IMAGES, BATCH, STEPS, ROUNDS = 10_000, 128, 40, 5
MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]


class Source:
    """Random images in memory."""

    name = "random"

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.pixels = rng.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
        self.labels = rng.integers(0, 10, IMAGES)

    def listing(self, split: str, id_val: int = 0) -> Listing:
        return Listing(self.labels, tuple("abcdefghij"), "random", pixels=self.pixels)


class Usual(Dataset[tuple[torch.Tensor, int]]):
    """What the research codes do: one PIL image at a time."""

    def __init__(self, source: Source, transform: Callable[[Image.Image], torch.Tensor], views: int) -> None:
        self.source, self.transform, self.views = source, transform, views

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = Image.fromarray(self.source.pixels[index])
        return torch.stack([self.transform(image) for _ in range(self.views)]), int(self.source.labels[index])


def usual(source: Source, chain: list[Any], views: int) -> Iterable[Any]:
    transform = transforms.Compose([*chain, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    data = Usual(source, transform, views)
    return DataLoader(data, BATCH, shuffle=True, num_workers=2, drop_last=True, persistent_workers=True)


def ours(source: Source, augmentation: Augmentation, views: int) -> Iterable[Any]:
    data = DataModule(
        source,  # type: ignore[arg-type]
        augmentation,
        Reading(32, 32, Path("unused"), 1.0, 0),
        normalise=Normalise(MEAN, STD),
        views=views,
        sizes=Sizes(BATCH, BATCH, BATCH),
        seed=0,
        device=torch.device("cpu"),
    )
    loader = data.train_dataloader()
    return (loader.batch(epoch, step) for epoch in range(1000) for step in range(len(loader)))


def rate(batches: Iterable[Any]) -> float:
    """Images a second over STEPS batches, after two that warm up."""
    stream = iter(batches)
    for _ in islice(stream, 2):
        pass
    began = time.perf_counter()
    count = sum(1 for _ in islice(stream, STEPS))
    return count * BATCH / (time.perf_counter() - began)


def main() -> None:
    torch.set_num_threads(1)
    source = Source()
    simclr: SimCLR = build(compose(["method=ce", "augmentation=simclr"]).plain("augmentation"))
    jitter = transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)
    cases = {
        "crop + flip, one view": (
            CropFlip(padding=4, flip=0.5),
            [transforms.RandomCrop(32, 4), transforms.RandomHorizontalFlip()],
            1,
        ),
        "SimCLR, two views": (
            simclr,
            [
                transforms.RandomResizedCrop(32, (0.2, 1.0)),
                transforms.RandomHorizontalFlip(),
                transforms.RandomApply([jitter], 0.8),
                transforms.RandomGrayscale(0.2),
            ],
            2,
        ),
    }
    for name, (augmentation, chain, views) in cases.items():
        theirs, mine = [], []
        reference = usual(source, chain, views)
        for _ in range(ROUNDS):
            mine.append(rate(ours(source, augmentation, views)))
            theirs.append(rate(reference))
        a, b = statistics.median(mine), statistics.median(theirs)
        print(f"{name}: {a:,.0f} images/s, DataLoader with 2 workers {b:,.0f}, ratio {a / b:.1f}")


if __name__ == "__main__":
    main()

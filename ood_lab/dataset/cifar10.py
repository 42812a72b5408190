"""CIFAR-10 and CIFAR-100, as torchvision's python batches or as image folders."""

from __future__ import annotations

import torch
from torchvision import datasets

from ood_lab.dataset.base import ImageSet, Split, stratified
from ood_lab.dataset.image_folder import read_folder
from ood_lab.random import generator
from ood_lab.types import Images

VAL_IMAGES = 1000


class CIFAR(ImageSet):
    """50,000 training images; the 10,000 test images split into 1,000 for validation and 9,000 for test.

    OpenOOD v1.5 cuts the same sizes from the test set by a list of its own; here the 1,000 are drawn evenly from the
    classes by a fixed seed. The folder layout holds one folder a class below `<name>/train` and `<name>/test`.
    """

    def load(self, split: Split) -> Images:
        whole = self._read(train=split == "train")
        if split == "train":
            return whole
        classes = int(whole.labels.max()) + 1
        rows = stratified(whole.labels, VAL_IMAGES // classes, generator("cifar", "val"))
        keep = torch.zeros(len(whole.labels), dtype=torch.bool)
        keep[rows] = True
        keep = keep if split == "val" else ~keep
        return Images(whole.pixels[keep], whole.labels[keep])

    def _read(self, train: bool) -> Images:
        if self.layout() == "folder":
            part = "train" if train else "test"
            return read_folder(self.root, f"{self.name}/{part}")
        source = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[self.name]
        data = source(self.root, train=train)
        pixels = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
        return Images(pixels, torch.tensor(data.targets))

"""MNIST and sets in its idx format: the 10,000 test images."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from torchvision.datasets.mnist import read_image_file, read_label_file

from ood_lab.dataset.base import ImageSet, Split, stack
from ood_lab.types import Images


class MNIST(ImageSet):
    """28x28 grey images, resized to 32x32 RGB."""

    def load(self, split: Split) -> Images:
        images, labels = self.layouts[self.layout()]
        arrays = read_image_file(str(Path(self.root) / images)).numpy()
        return Images(stack(map(Image.fromarray, arrays)), read_label_file(str(Path(self.root) / labels)))

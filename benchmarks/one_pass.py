"""Twenty detectors over an ID set and five OOD sets: CPU time beside the extraction alone, and beside pytorch-ood 0.4.

    python benchmarks/one_pass.py [images]

ResNet-18 for 32x32, 10 classes, one thread; `images` in each of the six test sets (50 unless given), six times as
many for training. pytorch-ood has eighteen of the twenty (no Relation, and its GradNorm does not run on
a channels-last network); they are fitted by `fit(loader)` as its
documentation says, and evaluated by its `Benchmark`: once one detector at a time, once as a list with `cache=True`.
Counted is CPU time, and the images that go through the network.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from classifier import Classifier
from pytorch_ood import detector as peer
from pytorch_ood.benchmark.base import Benchmark
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, TensorDataset

from ood_lab.config.compose import compose
from ood_lab.evaluation.evaluator import Scoring, metric_rows
from ood_lab.evaluation.extract import Extracted, extract, features_path, load_features, save_features
from ood_lab.evaluation.scores import RunDetector, score_all
from ood_lab.images.pixels import Decoded
from ood_lab.scorer import build_scorer
from ood_lab.scorer.base import Scorer
from ood_lab.task.build import build
from ood_lab.training.evaluation_set import EvalLoader
from ood_lab.training.normalise import Normalise
from ood_lab.types import LinearHead

NAMES = (
    "msp", "maxlogit", "energy", "entropy", "gen", "gradnorm", "kl_matching", "openmax", "knn", "mahalanobis", "rmds",
    "vim", "react", "dice", "ash", "scale", "she", "nnguide", "fdbd", "relation",
)  # fmt: skip
OOD, CLASSES, BATCH = tuple("abcde"), 10, 50


class Counted(nn.Module):
    """The backbone, counting the images that it sees."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = build(compose(["backbone=resnet18"]).plain("backbone"), CLASSES).eval()
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        logits: Tensor = self.net(images).logits
        return logits

    def features(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        features: Tensor = self.net(images).features
        return features

    def maps(self, images: Tensor) -> Tensor:
        return self.features(images)[:, :, None, None]


class Sets:
    """Random pictures: uint8, and normalised for pytorch-ood."""

    def __init__(self, images: int, network: Counted) -> None:
        draw = np.random.default_rng(0)
        sizes = {"train": 6 * images, "val": images, "test": images, **dict.fromkeys(OOD, images)}
        self.pixels = {name: draw.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8) for name, n in sizes.items()}
        self.normalise = Normalise([0.5] * 3, [0.25] * 3)
        # A head under which the classes that an untrained network predicts are many.
        with torch.inference_mode():
            x = network.net(self.normalise(torch.from_numpy(self.pixels["train"][:100]))).features
            torch.nn.init.normal_(network.net.fc.weight, generator=torch.Generator().manual_seed(1))
            network.net.fc.weight.mul_(10 / x.std())
            network.net.fc.bias.copy_(-network.net.fc.weight @ x.mean(0))
        self.labels = {name: np.full(n, -1) for name, n in sizes.items()}
        for name in ("train", "val", "test"):
            with torch.inference_mode():
                parts = [
                    network.net(self.normalise(torch.from_numpy(p))).logits
                    for p in np.array_split(self.pixels[name], 8)
                ]
            self.labels[name] = torch.cat(parts).argmax(1).numpy()

    def dataset(self, name: str) -> TensorDataset:
        return TensorDataset(self.normalise(torch.from_numpy(self.pixels[name])), torch.from_numpy(self.labels[name]))


class OneRun:
    """Ours: one pass, everything from the saved features."""

    def __init__(self, sets: Sets, network: Counted, folder: Path) -> None:
        self.sets, self.folder = sets, folder
        self.method = Classifier(network.net)
        self.loaded: dict[str, Extracted] = {}

    def extract(self) -> None:
        for name, pixels in self.sets.pixels.items():
            loader = EvalLoader(
                Decoded(pixels), self.sets.labels[name], self.sets.normalise, BATCH, torch.device("cpu")
            )
            path = features_path(self.folder, name, "0" * 12)
            save_features(path, extract(self.method, loader, name), loader.images)
            self.loaded[name] = load_features(path)

    def of(self, name: str, scorer: Scorer | None = None) -> Extracted:
        return self.loaded[name]

    def score(self) -> None:
        scorers = {name: build_scorer(name) for name in NAMES}
        fc = self.method.backbone.fc
        head = LinearHead(fc.weight.detach(), fc.bias.detach())
        detectors = [RunDetector(name, scorer, "{}", "") for name, scorer in scorers.items()]
        scored, _ = score_all(detectors, self, ["val", "test", *OOD], head, self.folder)
        for scores in scored.values():
            list(metric_rows(scores, {key: {} for key in OOD}, Scoring(), {}))


class Theirs(Benchmark):
    """The same sets as pytorch-ood's benchmark."""

    ood_names: ClassVar = list(OOD)

    def __init__(self, sets: Sets) -> None:
        self.sets = sets

    def train_set(self) -> Dataset:
        return self.sets.dataset("train")

    def test_sets(self, known: bool = True, unknown: bool = True) -> list[Dataset]:
        return [ConcatDataset([self.sets.dataset("test"), self.sets.dataset(name)]) for name in OOD]


def peers(network: Counted) -> list[peer.MaxSoftmax]:
    """pytorch-ood's detectors as its documentation builds them."""
    fc = network.net.fc
    w, b = fc.weight.detach(), fc.bias.detach()
    from_maps = nn.Sequential(nn.Flatten(), fc)
    logits = [
        kind(network)
        for kind in (
            peer.MaxSoftmax,
            peer.MaxLogit,
            peer.EnergyBased,
            peer.Entropy,
            peer.GEN,
            peer.KLMatching,
            peer.OpenMax,
        )
    ]
    encoder = network.features
    width = w.shape[1]
    return [
        *logits,
        peer.KNN(encoder),
        peer.Mahalanobis(encoder),
        peer.RMD(encoder),
        peer.ViM(encoder, d=width // 2, w=w, b=b),
        peer.DICE(encoder, w=w, b=b, p=0.9),
        peer.SHE(encoder, fc),
        peer.NNGuide(encoder, fc),
        peer.fDBD(encoder, fc),
        peer.ReAct(network.maps, from_maps),
        peer.ASH(network.maps, from_maps),
        peer.SCALE(network.maps, from_maps),
    ]


def main() -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    images = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    network = Counted()
    sets = Sets(images, network)
    with tempfile.TemporaryDirectory() as name:
        ours = OneRun(sets, network, Path(name))
        began = time.process_time()
        ours.extract()
        extraction = time.process_time() - began
        ours.score()
        whole = time.process_time() - began
    count = sum(len(p) for p in sets.pixels.values())
    print(f"extraction alone        {extraction:8.1f} s CPU  {count:>8,} images")
    print(
        f"ours, 20 detectors      {whole:8.1f} s CPU  {count:>8,} images  {whole / extraction:6.2f} x extraction",
        flush=True,
    )
    if "--alone" in sys.argv:
        return
    for title, cached in (("a list, cache=True", True), ("one at a time, no cache", False)):
        network.seen = 0
        benchmark = Theirs(sets)
        began = time.process_time()
        detectors = peers(network)
        loader = DataLoader(benchmark.train_set(), batch_size=BATCH)
        for detector in detectors:
            if detector.requires_fit:
                detector.fit(loader)
        for group in [detectors] if cached else [[d] for d in detectors]:
            benchmark.evaluate(group if cached else group[0], loader_kwargs={"batch_size": BATCH}, cache=cached)
        taken = time.process_time() - began
        print(
            f"pytorch-ood, 18, {title:24}{taken:8.1f} s CPU  {network.seen:>8,} images  {taken / extraction:6.2f} x, "
            f"{taken / whole:.1f} x ours",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""CPU time of what learning from auxiliary outliers adds to a step or an epoch, beside a named alternative.

    OMP_NUM_THREADS=1 python benchmarks/outliers.py [rounds] [candidates]

CPU time of this process, one thread, alternatives in turn, medians of the ratios.

    penalty     a step with GReg's gradient penalty beside a step of the energy loss alone (ResNet-18, 8 + 8 images); as
                released: a further forward pass and torch's functional jacobian
    k-means     beside scikit-learn's with three starts, as GReg's code calls it, and the inertia of both
    posterior   beside one symmetric eigendecomposition of the same size
    pool        POEM's choice among candidates beside the features of the same images alone (a narrow network)
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn import functional as F

from ood_lab.autograd.twice_differentiable import twice_differentiable
from ood_lab.backbone.resnet import ResNet
from ood_lab.geometry.kmeans import inertia, kmeans, kmeans_faiss
from ood_lab.geometry.posterior import posterior
from ood_lab.loss.energy import energy, energy_margin
from ood_lab.loss.gradient_penalty import gradient_penalty
from ood_lab.selector.poem import POEM

M_IN, M_OUT = -25.0, -7.0
SEEDS = itertools.count()


def seconds(run: Callable[[], Any]) -> float:
    """CPU seconds of one call."""
    begin = time.process_time()
    run()
    return time.process_time() - begin


def compared(rounds: int, *runs: Callable[[], Any]) -> tuple[list[float], list[float]]:
    """Medians of the seconds, and of the ratios to the first, over rounds in which all take their turn."""
    for run in runs:
        run()
    found = [[seconds(run) for run in runs] for _ in range(rounds)]
    times = [statistics.median(column) for column in zip(*found, strict=True)]
    ratios = [statistics.median(row[i] / row[0] for row in found) for i in range(len(runs))]
    return times, ratios


def penalty(rounds: int) -> None:
    """The step with the penalty, ours and as released."""
    network = resnet(64)
    ids, outliers, labels = torch.randn(8, 3, 32, 32), torch.randn(8, 3, 32, 32), torch.arange(8)

    def losses(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = network(images).logits
        id_energy, ood_energy = energy(logits[:8]), energy(logits[8:])
        loss = F.cross_entropy(logits[:8], labels) + 0.1 * energy_margin(id_energy, ood_energy, M_IN, M_OUT)
        return loss, id_energy, ood_energy

    def plain() -> None:
        losses(torch.cat([ids, outliers]))[0].backward()

    def ours() -> None:
        inputs = ids.clone().requires_grad_(), outliers.clone().requires_grad_()
        with twice_differentiable(network):
            loss, id_energy, ood_energy = losses(torch.cat(inputs))
        everything = float("inf"), float("-inf")  # every image counts: the most that the penalty can cost
        (loss + gradient_penalty(id_energy, inputs[0], ood_energy, inputs[1], *everything)).backward()

    def released() -> None:
        both = torch.cat([ids, outliers])

        def score(images: Tensor) -> Tensor:
            scores = energy(network(images).logits)
            return scores[:8].mean() + scores[8:].mean()

        jacobian = torch.autograd.functional.jacobian(score, both, create_graph=True)
        (losses(both)[0] + jacobian.flatten(1).norm(dim=1).mean()).backward()

    times, ratios = compared(rounds, plain, ours, released)
    row("penalty step, ms", times[1], "energy step", times[0], ratios[1], "2.6")
    row("as released, ms", times[2], "energy step", times[0], ratios[2], "")


def clusters(rounds: int) -> None:
    """K-means of the sizes of GReg+'s steps on CIFAR and ImageNet."""
    warnings.filterwarnings("ignore")
    for count, dim in ((384, 512), (2953, 1024)):
        points = F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(0)).relu(), dim=1)
        array = points.numpy()
        best = statistics.mean(KMeans(64, n_init=3, random_state=s).fit(array).inertia_ for s in range(3))
        for name, find in (("torch", kmeans), ("faiss", kmeans_faiss)):

            def ours(find: Any = find, points: Tensor = points) -> Tensor:
                return find(points, 64, torch.Generator().manual_seed(next(SEEDS)))

            def theirs(array: Any = array) -> Any:
                return KMeans(64, n_init=3, random_state=next(SEEDS)).fit(array)

            times, ratios = compared(rounds, ours, theirs)
            worst = max(float(inertia(points, ours())) for _ in range(10)) / best
            what = f"k-means {count}x{dim}, {name}, ms (inertia at most {worst:.3f} of it)"
            row(what, times[0], "scikit-learn, 3 starts", times[1], ratios[1], "10", faster=True)


def regression(rounds: int) -> None:
    """The posterior at 512 dimensions."""
    rows = torch.randn(2_000, 512, dtype=torch.float64)
    gram, moment, draw = rows.T @ rows, rows.sum(0), torch.randn(512, dtype=torch.float64)
    times, ratios = compared(
        rounds, lambda: torch.linalg.eigh(gram), lambda: posterior(gram, moment, 20.0, 0.5).draw(draw)
    )
    row("posterior and draw at 512, ms", times[1], "one eigh", times[0], ratios[1], "3")


class Pool:
    """Passes over random images, with a tensor of them in memory."""

    def __init__(self, count: int) -> None:
        self.seed = self.run_seed = 0
        self.device = torch.device("cpu")
        self.network = resnet(8).eval()
        self.features = self.network.feature_dim
        self.images = torch.randint(0, 255, (count, 3, 32, 32), dtype=torch.uint8)

    def passed(self, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Places and features of these images."""
        with torch.inference_mode():
            for places in torch.arange(len(rows)).split(1_000):
                yield places, self.network(self.images[rows[places] % len(self.images)].float().div_(255)).features

    def of_id(self) -> Iterator[Tensor]:
        yield from (features for _, features in self.passed(torch.arange(50_000)))

    def of_auxiliary(self, rows: Tensor, what: str) -> Iterator[tuple[Tensor, Tensor]]:
        yield from self.passed(rows)

    def total(self, values: Tensor) -> Tensor:
        return values


def pool(rounds: int, candidates: int) -> None:
    """A choice among candidates, given the posterior's weights; both costs grow with their number."""
    passes, selector = Pool(20_000), POEM(pool=candidates)
    rows = torch.arange(candidates)
    (alone, chosen), (_, ratio) = compared(
        min(rounds, 3),
        lambda: [features.sum() for _, features in passes.passed(rows)],
        lambda: selector.choose(passes, rows, 8_000, 0),
    )
    row(f"{candidates:,} candidates, s", chosen / 1000, "their forward pass", alone / 1000, ratio, "1.1")


def resnet(width: int) -> ResNet:
    torch.manual_seed(0)
    return ResNet(10, depths=[2, 2, 2, 2], width=width, block="basic", stem="cifar", norm="batch")


def row(what: str, ours: float, other: str, theirs: float, ratio: float, target: str, faster: bool = False) -> None:
    """A row of the table."""
    spoken = f"{ratio:.1f} times faster" if faster else f"{ratio:.2f}"
    print(f"| {what} | {1000 * ours:.4g} | {other} | {1000 * theirs:.4g} | {spoken} | {target} |", flush=True)


def main(rounds: int = 9, candidates: int = 60_000) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print("| what | ours | beside | its | ratio | target |\n|---|---|---|---|---|---|")
    penalty(rounds)
    clusters(rounds)
    regression(rounds)
    pool(rounds, candidates)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

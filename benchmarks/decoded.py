"""CPU time of BOOD's boundary search and of decoding outliers, each beside the work that it can't do without.

    OMP_NUM_THREADS=1 python benchmarks/decoded.py [rounds]

CPU time of this process, one thread, alternatives in turn, medians of the ratios.

    search      50,000 embeddings of 768 numbers and norm 5, 100 classes, K = 100, c = 2, beside the products with the
                anchors that these steps need: two for each step of each embedding, in blocks of the same size; and one
                embedding at a time by autograd, of which the first are timed and all counts compared
    decoding    a set of images sampled as the embedded decoder does, noise and shards included, beside the evaluations
                of the network alone
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
from generated import compared, seconds
from torch import Tensor
from torch.nn import functional as F

from ood_lab.diffusion.network import Denoiser, Shape
from ood_lab.diffusion.sampling import sample, starting_noise
from ood_lab.evaluation.cost import Alive
from ood_lab.files.shards import ShardedSet
from ood_lab.sampling.boundary import ROWS, AnchorClassifier, Walk, walk

N, D, C, NORM = 50_000, 768, 100, 5.0
STEP, MAX_STEPS, FURTHER, TEMPERATURE = 0.015, 100, 2, 0.1
ALONE = 100  # embeddings that are walked one at a time


def space() -> tuple[Tensor, Tensor, AnchorClassifier]:
    """Embeddings around the anchors of their classes, as an encoder gives them: almost all are classified right."""
    draw = torch.Generator().manual_seed(0)
    anchors = F.normalize(torch.randn(C, D, generator=draw), dim=1)
    labels = torch.randint(C, (N,), generator=draw)
    noise = torch.randn(N, D, generator=draw) * 2 * torch.rand(N, 1, generator=draw) / D**0.5
    return NORM * F.normalize(anchors[labels] + noise, dim=1), labels, AnchorClassifier(anchors, TEMPERATURE)


def products(h: Tensor, weights: Tensor, anchors: Tensor, counts: Tensor) -> None:
    """The two products of every step, of as many rows as are on their way."""
    for start in range(0, len(h), ROWS):
        left = counts[start : start + ROWS] + FURTHER * (counts[start : start + ROWS] < MAX_STEPS)
        for taken in range(int(left.max()) + 1):
            rows = int((left >= taken).sum())
            if rows:
                h[start : start + rows] @ anchors.T
                weights[start : start + rows] @ anchors


def alone(h_D: Tensor, label: int, classifier: AnchorClassifier) -> int:
    """The steps of one embedding, with autograd's gradient, in float64."""
    anchors, point = classifier.anchors.double(), h_D.double()
    for taken in range(MAX_STEPS + 1):
        point = point.detach().requires_grad_()
        logits = F.normalize(point, dim=0) @ anchors.T / classifier.temperature
        if int(logits.argmax()) != label:
            return taken
        loss = F.cross_entropy(logits[None], torch.tensor([label]))
        (gradient,) = torch.autograd.grad(loss, point)
        point = point + STEP * gradient.sign()
    return MAX_STEPS


def search(rounds: int) -> None:
    h, labels, classifier = space()
    run = partial(walk, h, labels, classifier, step=STEP, max_steps=MAX_STEPS, further=FURTHER)
    with Alive() as alive:
        found: Walk = run()
    weights = torch.rand(N, C)
    (plain, ours), ratio = compared(rounds, lambda: products(h, weights, classifier.anchors, found.counts), run)
    print(f"| boundary search | its products | {plain:.1f} s | {ours:.1f} s | {ratio:.2f} | 3 |")
    counted: list[int] = []
    slow = seconds(lambda: counted.extend(alone(h[i], int(labels[i]), classifier) for i in range(ALONE)))
    same = counted == found.counts[:ALONE].tolist()
    total = slow / max(1, sum(counted)) * int(found.counts.sum())
    print(
        f"counts of the first {ALONE} as one at a time in float64: {same}; that would take {total:,.0f} s; "
        f"{len(found.counts.unique())} distinct counts, median {int(found.counts.median())}, "
        f"{int((~found.crossed).sum()):,} never cross; {alive.peak / 2**20:,.0f} MiB of tensors at the peak besides "
        "the embeddings"
    )


def decoding(rounds: int) -> None:
    shape = Shape(side=32, condition=D, widths=(32, 64), blocks=1, attention=(), groups=8)
    network, steps, count, batch = Denoiser(shape).eval(), 20, 128, 64
    outliers = torch.randn(count, D)

    def evaluations() -> None:
        with torch.no_grad():
            for _ in range(count // batch):
                for _ in range(steps):
                    network(torch.randn(2 * batch, 3, 32, 32), torch.full((2 * batch,), 500), torch.randn(2 * batch, D))

    def produce(start: int, stop: int) -> dict[str, object]:
        made = []
        for first in range(start, stop, batch):
            last = min(first + batch, stop)
            noise = starting_noise(0, first, last, (3, 32, 32))
            made.append(sample(network, outliers[first:last], noise, steps=steps, guidance=2.0))
        return {"images": torch.cat(made).permute(0, 2, 3, 1).numpy()}

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            ShardedSet(Path(folder), "key", count, batch, produce).make()  # type: ignore[arg-type]

    (plain, made), ratio = compared(rounds, evaluations, ours)
    print(
        f"| {count} images decoded, as shards | the network alone | {plain:.1f} s | {made:.1f} s | {ratio:.3f} | 1.03 |"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    print("| what | beside | it takes | ours takes | ratio | target |\n|---|---|---|---|---|---|")
    search(rounds)
    decoding(rounds)
    print(f"median of {rounds} rounds; torch {torch.__version__}")

"""CPU time of AOE's attack, ARES's stages and losses, fractals and BigGAN's samples, each beside a named alternative.

    OMP_NUM_THREADS=1 python benchmarks/generated.py [rounds]

CPU time of this process, one thread, alternatives in turn, medians of the ratios.

    attack      training with AOE beside the same training with Outlier Exposure: every step, data included
    expansion   ARES's mixtures and the choice of the least likely (M = 10,000, D = 128) beside their arithmetic alone:
                one lerp, one covariance, one Cholesky factor, one product with its inverse, one topk
    stages      seconds an epoch of CIFAR-10's size (390 steps of 128 images) of Escape, Expansion, Estimation, and of
                the three losses with their gradients (ARES, Figure 5)
    fractals    images a second at 32x32
    samples     `produce` of the BigGAN producer beside the bare generator in a loop, at the CIFAR size
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ood_lab.biggan.networks import Generator
from ood_lab.config import prepare
from ood_lab.images.fractal import block
from ood_lab.mixing.escape import Escape
from ood_lab.outlier_loss.jensen_shannon import JensenShannon
from ood_lab.outlier_loss.nce import NCE
from ood_lab.outlier_loss.weighted_energy_logistic import WeightedEnergyLogistic
from ood_lab.parts import Dimensions, Rows, Term, View, WholeBatch
from ood_lab.producer.biggan import BigGAN
from ood_lab.runs.claim import claim
from ood_lab.synthesizer.range_expansion import RangeExpansion
from ood_lab.task.build import build_method
from ood_lab.task.train import _train

M, D, TAKE, STEPS = 10_000, 128, 128, 390


def seconds(run: Callable[[], Any]) -> float:
    """CPU seconds of one call."""
    begin = time.process_time()
    run()
    return time.process_time() - begin


def compared(rounds: int, *runs: Callable[[], Any]) -> tuple[list[float], float]:
    """Medians of the seconds, and of the ratio of the last to the first."""
    for run in runs:
        run()
    found = [[seconds(run) for run in runs] for _ in range(rounds)]
    ratio = statistics.median(row[-1] / row[0] for row in found)
    return [statistics.median(column) for column in zip(*found, strict=True)], ratio


def trained(method: str, width: int) -> float:
    """CPU seconds of so many epochs of training."""
    with tempfile.TemporaryDirectory() as folder:
        experiment = claim(
            prepare(
                [
                    f"method={method}", "init=random", "auxiliary=fractals", "auxiliary.count=200", "trainer.threads=1",
                    "trainer.auxiliary_batch_size=128", f"backbone.width={width}", "trainer.max_epochs=3",
                    f"paths.output={folder}",
                ]
            )
        )  # fmt: skip
        network = build_method(experiment)
        return seconds(lambda: _train(experiment, network, []))


def attack(rounds: int) -> None:
    for width in (16, 64):
        trained("oe", width)
        found = [(trained("oe", width), trained("aoe", width)) for _ in range(rounds)]
        plain, ours = (statistics.median(column) for column in zip(*found, strict=True))
        ratio = statistics.median(b / a for a, b in found)
        print(
            f"| AOE's training, width {width} | Outlier Exposure's | {plain:.2f} s | {ours:.2f} s | {ratio:.2f} | 1.5 |"
        )


def source() -> RangeExpansion:
    return RangeExpansion(
        queue_size=M, pool=M, take=TAKE, alpha=2.0, shares="pair", expansion=True, estimation="lowest", ridge=1e-4
    )


def arithmetic(queue: Tensor, share: Tensor, order: Tensor) -> Tensor:
    points = torch.lerp(queue[order], queue, share)
    centred = points - points.mean(0)
    factor = torch.linalg.cholesky(centred.T @ centred / len(points) + 1e-4 * torch.eye(D))
    inverse = torch.linalg.solve_triangular(factor, torch.eye(D), upper=False)
    return points[(centred @ inverse.T).square().sum(1).topk(TAKE).indices]


def expansion(rounds: int) -> None:
    draw = torch.Generator().manual_seed(0)
    queue = torch.randn(M, D, generator=draw) @ torch.randn(D, D, generator=draw)
    share, order, made = torch.rand(M, 1), torch.randperm(M), source()
    dims = Dimensions(10, D, D)
    (plain, ours), ratio = compared(
        10 * rounds,
        lambda: arithmetic(queue, share, order),
        lambda: made.sample({"feature_queue": queue}, dims, draw),
    )
    times = f"{1e3 * plain:.1f} ms | {1e3 * ours:.1f} ms"
    print(f"| Expansion and Estimation | their arithmetic | {times} | {ratio:.2f} | 1.5 |")


def stages(rounds: int) -> None:
    draw, made = torch.Generator().manual_seed(0), source()
    escape = Escape(rounds=4, mix="blend", alpha=3.0, shares="image", p_clean=0.0, severity=3.0, colour=False)
    images, pictures = torch.rand(128, 3, 32, 32), torch.randint(0, 256, (500, 3, 36, 36), dtype=torch.uint8)
    queue = torch.randn(M, D, generator=draw)
    mixed = made.expanded(queue, draw)
    ids, outliers = (torch.randn(count, 1, requires_grad=True) for count in (128, TAKE))
    labels, places = torch.zeros(128, dtype=torch.int64), torch.arange(128)
    rows = Rows(energy=ids)
    view = View(
        id=rows,
        labels=labels,
        kept={},
        outliers=Rows(energy=outliers),
        whole=WholeBatch(rows, labels, places, 1),
    )
    dims = Dimensions(10, D, D)
    losses: dict[str, Term] = {
        "JSD": JensenShannon(
            dims, objective="reciprocal", epsilon=1.0, middle="moments", printed=False, outliers="head"
        ),
        "CE": WeightedEnergyLogistic(dims, hidden=0, reduction="joint"),
        "NCE": NCE(dims, temperature=0.5),
    }

    def gradients(term: Term) -> None:
        torch.autograd.grad(term.loss(view), (ids, outliers))

    runs: dict[str, Callable[[], Any]] = {
        "Escape": lambda: escape.apply(images, pictures, escape.draw(128, 500, draw)),
        "Expansion": lambda: made.expanded(queue, draw),
        "Estimation": lambda: made.estimated(mixed, draw),
        **{f"loss: {name}": partial(gradients, term) for name, term in losses.items()},
    }
    for name, run in runs.items():
        (taken,), _ = compared(5 * rounds, run)
        print(f"| {name} | an epoch of {STEPS} steps | | {STEPS * taken:.2f} s | | |")


def fractals(rounds: int) -> None:
    (taken,), _ = compared(rounds, lambda: block(3, 32, 0))
    print(f"| fractals at 32x32 | | | {100 / taken:.0f} images/s | | 200 |")


def samples(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "generator.safetensors"
        network = Generator(10, 256, 128)
        for _ in range(3):  # singular vectors
            network(torch.randn(2, 128), torch.tensor([0, 1]))
        save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
        producer = BigGAN(
            count=256,
            shard_items=256,
            batch=64,
            seed=0,
            z_std=2.0,
            bn_mode="batch",
            weights=str(path),
            key=None,
            needs={},
        )
        bare = producer.network

        @torch.no_grad()
        def loop() -> None:
            for _ in range(2):
                bare(torch.randn(64, 128), torch.arange(64) % 10)

        (plain, ours), ratio = compared(rounds, loop, lambda: producer.produce(0, 128))
        print(
            f"| BigGAN's samples | the bare generator | {128 / plain:.0f} images/s | {128 / ours:.0f} images/s | "
            f"{1 / ratio:.2f} | 0.9 |"
        )


def main(rounds: int = 3) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print("| what | beside | it takes | ours takes | ratio | target |\n|---|---|---|---|---|---|", flush=True)
    for part in (expansion, stages, fractals, samples, attack):
        part(rounds)


if __name__ == "__main__":
    main(*(int(override) for override in sys.argv[1:]))

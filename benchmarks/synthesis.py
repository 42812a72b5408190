"""CPU time of one batch of outliers, each source beside its own arithmetic or beside another source.

    OMP_NUM_THREADS=1 python benchmarks/synthesis.py [--classes 10 100] [--repeats 10] [--naive]

One thread, ratios within this run, growth with the number of classes. Settings of HamOS's tables: bank 1000, D 128,
k 200 (1,000 classes: bank 100, D 256, k 100), N_adj 4, L 3, R 5; VOS 200 and NPOS 400 outliers a class in penultimate
space of the same D. What stands beside each source is the plainest torch code:

    hmc             its matrix products and exponentials, same shapes, nothing else
    rmhmc, mmala    HMC and MALA with as many gradients; random_walk: HMC with as many proposals
    gaussian_tail   the tied covariance alone
    knn_boundary    the candidates' search alone: normalise, multiply with the class's rows, k-th largest

`--naive` adds HamOS's chains one by one, as Algorithm 1 reads: a sort for each neighbour, all kernel values for each
class, gradient and energy computed anew at both ends of every step.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.geometry.sphere import geodesic_step, project_to_tangent
from ood_lab.synthesizer.base import FromBank, FromChains, class_midpoints
from ood_lab.synthesizer.gaussian_tail import GaussianTail
from ood_lab.synthesizer.hmc import HMC
from ood_lab.synthesizer.knn_boundary import KNNBoundary
from ood_lab.synthesizer.random_walk import RandomWalk
from ood_lab.synthesizer.rmhmc import RMHMC

ADJACENT, ROUNDS, LEAPFROG, STEP, KAPPA, MARGIN = 4, 5, 3, 0.1, 2.0, 0.1


def clustered_bank(classes: int, seed: int = 0) -> Tensor:
    """Unit features around random directions, about as tight as a fine-tuned network's (cosine .8 to the mean)."""
    rows, dim = (1000, 128) if classes < 1000 else (100, 256)
    draw = torch.Generator().manual_seed(seed)
    centres = F.normalize(torch.randn(classes, 1, dim, generator=draw), dim=-1)
    return F.normalize(centres + 0.75 * dim**-0.5 * torch.randn(classes, rows, dim, generator=draw), dim=-1)


def neighbours_of(bank: Tensor) -> int:
    """k of HamOS's tables."""
    return 200 if bank.shape[1] == 1000 else 100


def sampler(kind: type[FromChains], bank: Tensor, density: str = "paper", **more: Any) -> Callable[[int], Any]:
    """A draw from the bank by seed."""
    made = kind(
        neighbor=neighbours_of(bank), adjacent=ADJACENT, rounds=ROUNDS, step_size=STEP, momentum="standard",
        centroids="unit", kappa=KAPPA, margin=MARGIN, density=density, midpoint_noise=0.0, **more,
    )  # fmt: skip
    return drawn(made, bank)


def chain_arithmetic(bank: Tensor) -> Callable[[int], Any]:
    """The products of R L + 1 k-NN evaluations (two classes a chain) and of R + 1 kernel densities."""
    classes, _, dim = bank.shape
    z = F.normalize(torch.randn(classes * ADJACENT, dim), dim=1)
    asked = torch.randn(classes, 2 * ADJACENT, dim)

    def run(_: int) -> None:
        for _evaluation in range(ROUNDS * LEAPFROG + 1):
            for queries, rows in zip(asked, bank, strict=True):
                torch.mm(queries, rows.T)
        for _evaluation in range(ROUNDS + 1):
            for block in (KAPPA * z).split(128):
                for rows in bank:
                    torch.mm(block, rows.T).exp_()

    return run


def covariance(bank: Tensor) -> Callable[[int], Any]:
    """Class-centred rows times themselves."""

    def run(_: int) -> Tensor:
        centred = (bank - bank.mean(1, keepdim=True)).flatten(0, 1)
        return centred.T @ centred / len(centred)

    return run


def candidate_search(bank: Tensor, anchors: int, candidates: int, k: int) -> Callable[[int], Any]:
    """The distance of given candidates of each class to their k-th neighbour in it."""
    given = torch.randn(anchors * candidates, bank.shape[2])

    def run(_: int) -> None:
        for rows in bank:
            similarity = F.normalize(given, dim=1) @ F.normalize(rows, dim=1).T
            similarity.topk(k, dim=1).values[:, -1].topk(200, largest=False)

    return run


def naive_batch(bank: Tensor, density: str, chains: int) -> float:
    """CPU seconds for `chains` chains one by one, scaled to all of them."""
    start, pairs = class_midpoints(bank, ADJACENT)
    draw = torch.Generator().manual_seed(1)
    k = neighbours_of(bank)
    began = time.process_time()
    for chain in range(chains):
        z, members = start[chain], [bank[c] for c in pairs[chain].tolist()]

        def potential(z: Tensor, members: list[Tensor] = members) -> tuple[Tensor, Tensor]:
            near = torch.stack([rows[(rows - z).norm(dim=1).sort().indices[k - 1]] for rows in members])
            away = z - near
            d = away.norm(dim=1)
            return -(d.mean()).log(), -(away / d[:, None]).sum(0) / d.sum()

        def surprise(z: Tensor) -> Tensor:
            kernels = [(KAPPA * (rows @ z)).exp() for rows in bank]
            if density == "paper":
                p = torch.stack([kernel.mean() for kernel in kernels])
                return -(p / p.sum()).max().log()
            p = torch.stack([(w.sort(descending=True).values[:k] / w.max()).mean() for w in kernels])
            return -p.softmax(0).max().log()

        threshold = surprise(z) - MARGIN
        for _ in range(ROUNDS):
            q = project_to_tangent(z, torch.randn(bank.shape[2], generator=draw))
            before = potential(z)[0] + q.square().sum() / 2
            new = z
            for _ in range(LEAPFROG):
                q = q - STEP / 2 * project_to_tangent(new, potential(new)[1])
                new, q = geodesic_step(new, q, STEP)
                q = q - STEP / 2 * project_to_tangent(new, potential(new)[1])
            after = potential(new)[0] + q.square().sum() / 2
            if torch.rand((), generator=draw) < (before - after).exp() and surprise(new) > threshold:
                z = new
    return (time.process_time() - began) * len(start) / chains


def pair(ours: Callable[[int], Any], beside: Callable[[int], Any], repeats: int) -> tuple[list[float], list[float]]:
    """CPU milliseconds of both, in turns, the first turn left out."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 1):
        for compute, found in zip((ours, beside), times, strict=True):
            began = time.process_time()
            compute(repeat)
            found.append(1000 * (time.process_time() - began))
    return times[0][1:], times[1][1:]


Compute = Callable[[int], Any]


def comparisons(bank: Tensor) -> list[tuple[str, Compute, str, Compute]]:
    """Each source, and what stands beside it."""
    rows = bank.shape[1]
    hmc = sampler(HMC, bank, leapfrog_steps=LEAPFROG)
    mala = sampler(HMC, bank, leapfrog_steps=1)
    released = sampler(HMC, bank, "released", leapfrog_steps=LEAPFROG)
    riemann: dict[str, Any] = {"states": 3, "shrinkage": 0.5}
    rmhmc = sampler(RMHMC, bank, leapfrog_steps=LEAPFROG, **riemann)
    mmala = sampler(RMHMC, bank, leapfrog_steps=1, **riemann)
    npos = KNNBoundary(
        neighbor=300, boundary=min(200, rows), anchors=2, candidates=600, per_anchor=200, deviation=0.1,
        keeping="each", bank_size=rows,
    )  # fmt: skip
    vos = [GaussianTail(per_class=count, draws=10_000, ridge=1e-4) for count in (1, 200)]
    return [
        ("hmc", hmc, "its arithmetic", chain_arithmetic(bank)),
        ("hmc, density released", released, "hmc", hmc),
        ("rmhmc", rmhmc, "hmc", hmc),
        ("mmala", mmala, "mala", mala),
        ("random_walk", sampler(RandomWalk, bank), "hmc", hmc),
        ("gaussian_tail, 1", drawn(vos[0], bank), "covariance", covariance(bank)),
        ("gaussian_tail, 200", drawn(vos[1], bank), "covariance", covariance(bank)),
        ("knn_boundary", drawn(npos, bank), "candidates' search", candidate_search(bank, 2, 600, min(300, rows))),
    ]


def drawn(source: FromBank, bank: Tensor) -> Compute:
    """A draw from the bank by seed."""
    return lambda seed: source.draw(bank, torch.Generator().manual_seed(seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--only", nargs="+", help="sources, all by default")
    parser.add_argument("--naive", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'classes':>7} {'source':<22} {'ours, CPU ms':>26} {'beside it':<20} {'CPU ms':>8} {'ratio':>6}")
    for classes in arguments.classes:
        bank = clustered_bank(classes)
        for name, ours, other, beside in comparisons(bank):
            if arguments.only and name not in arguments.only:
                continue
            mine, theirs = pair(ours, beside, arguments.repeats)
            spread = f"{median(mine):.1f} ({min(mine):.1f} to {max(mine):.1f})"
            ratio = median(a / b for a, b in zip(mine, theirs, strict=True))
            print(f"{classes:>7} {name:<22} {spread:>26} {other:<20} {median(theirs):>8.1f} {ratio:>6.2f}", flush=True)
        if arguments.naive:
            naive = 1000 * naive_batch(bank, "paper", chains=8)
            print(f"{classes:>7} {'hmc':<22} {'':>26} {'chains one by one':<20} {naive:>8.0f}", flush=True)


if __name__ == "__main__":
    main()

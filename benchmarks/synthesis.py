"""CPU time of one batch of HamOS outliers, at 10 and 100 classes, beside the naive loop.

    OMP_NUM_THREADS=1 python benchmarks/synthesis.py [--classes 10 100] [--repeats 10] [--no-naive]

Setting of HamOS on CIFAR: buffer 1000, D 128, k 200, N_adj 4, L 3, R 5, one thread. `paper` and `released` are the
two readings of the margin's density. The naive loop evaluates each chain by itself, as Algorithm 1 reads: a sort for
each neighbour, all kernel values for each class, gradient and energy computed anew at both ends of every step.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch.nn import functional as F

from ood_lab.sphere import geodesic_step, project_to_tangent
from ood_lab.synthesizer.base import class_midpoints
from ood_lab.synthesizer.hmc import HMC

SETTING = {"neighbor": 200, "leapfrog_steps": 3, "step_size": 0.1, "kappa": 2.0, "margin": 0.1}
ADJACENT, ROUNDS, BUFFER, DIM = 4, 5, 1000, 128


def clustered_bank(classes: int, seed: int = 0) -> torch.Tensor:
    """Unit features around random directions, about as tight as a fine-tuned network's (cosine .8 to the mean)."""
    draw = torch.Generator().manual_seed(seed)
    centres = F.normalize(torch.randn(classes, 1, DIM, generator=draw), dim=-1)
    return F.normalize(centres + 0.066 * torch.randn(classes, BUFFER, DIM, generator=draw), dim=-1)


def naive_batch(bank: torch.Tensor, density: str, chains: int) -> float:
    """CPU seconds for `chains` chains one by one, scaled to all of them."""
    start, pairs = class_midpoints(bank, ADJACENT)
    draw = torch.Generator().manual_seed(1)
    began = time.process_time()
    for chain in range(chains):
        z, members = start[chain], [bank[c] for c in pairs[chain].tolist()]

        def potential(z: torch.Tensor, members: list[torch.Tensor] = members) -> tuple[torch.Tensor, torch.Tensor]:
            near = torch.stack(
                [rows[(rows - z).norm(dim=1).sort().indices[SETTING["neighbor"] - 1]] for rows in members]
            )
            away = z - near
            d = away.norm(dim=1)
            return -(d.mean()).log(), -(away / d[:, None]).sum(0) / d.sum()

        def surprise(z: torch.Tensor) -> torch.Tensor:
            kernels = [(SETTING["kappa"] * (rows @ z)).exp() for rows in bank]
            if density == "paper":
                p = torch.stack([k.mean() for k in kernels])
                return -(p / p.sum()).max().log()
            p = torch.stack([(k.sort(descending=True).values[: SETTING["neighbor"]] / k.max()).mean() for k in kernels])
            return -p.softmax(0).max().log()

        threshold = surprise(z) - SETTING["margin"]
        for _ in range(ROUNDS):
            q = project_to_tangent(z, torch.randn(DIM, generator=draw))
            before = potential(z)[0] + q.square().sum() / 2
            new = z
            for _ in range(SETTING["leapfrog_steps"]):
                q = q - SETTING["step_size"] / 2 * project_to_tangent(new, potential(new)[1])
                new, q = geodesic_step(new, q, SETTING["step_size"])
                q = q - SETTING["step_size"] / 2 * project_to_tangent(new, potential(new)[1])
            after = potential(new)[0] + q.square().sum() / 2
            if torch.rand((), generator=draw) < (before - after).exp() and surprise(new) > threshold:
                z = new
    return (time.process_time() - began) * len(start) / chains


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--no-naive", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'classes':>7} {'density':>9} {'outliers':>8} {'ours, CPU ms':>22} {'naive loop, CPU ms':>19} {'ratio':>6}")
    for classes in arguments.classes:
        bank = clustered_bank(classes)
        for density in ("paper", "released"):
            sampler = HMC(
                adjacent=ADJACENT,
                rounds=ROUNDS,
                momentum="standard",
                centroids="unit",
                density=density,
                midpoint_noise=0.0,
                **SETTING,
            )
            times, outliers = [], None
            for repeat in range(arguments.repeats + 1):
                began = time.process_time()
                outliers = sampler.draw(bank, torch.Generator().manual_seed(repeat))
                times.append(1000 * (time.process_time() - began))
            times = sorted(times[1:])  # the first warms the caches
            median = times[len(times) // 2]
            ours = f"{median:.0f} ({times[0]:.0f} to {times[-1]:.0f})"
            line = f"{classes:>7} {density:>9} {len(outliers.values):>8} {ours:>22}"
            if not arguments.no_naive:
                naive = 1000 * naive_batch(bank, density, chains=8)
                line += f" {naive:>19.0f} {naive / median:>6.0f}"
            print(line, flush=True)


if __name__ == "__main__":
    main()

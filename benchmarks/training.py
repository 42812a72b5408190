"""What `Trainer.fit` and the module of parts cost beside a bare loop of the same network on the same batches.

    OMP_NUM_THREADS=1 python benchmarks/training.py [rounds]

CPU time of this process, one thread, the two in turn, median of the ratios; images of the digits, batches of 128.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time

import torch
from torch.nn import functional as F

from ood_lab.config import Experiment, prepare
from ood_lab.loss.cider import compactness, dispersion, update_prototypes
from ood_lab.runs.claim import claim
from ood_lab.task.build import build_data, build_method
from ood_lab.task.train import _train
from ood_lab.types import Batch

STEPS = {16: 60, 64: 12}


def trained(experiment: Experiment) -> float:
    """CPU seconds of the program's own training."""
    method = build_method(experiment)
    begin = time.process_time()
    _train(experiment, method, [])
    return time.process_time() - begin


def bare(experiment: Experiment) -> float:
    """CPU seconds of the plainest loop: batches, forward pass, loss, backward pass, SGD; and validation an epoch."""
    method = build_method(experiment)
    begin = time.process_time()
    data = build_data(experiment, method.views)
    data.trainer = _Standing()
    loader = data.train_dataloader()
    network, project = method.backbone, method.head.project
    optimizer = torch.optim.SGD(method.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, nesterov=True)
    prototypes = torch.zeros(10, 128)
    if method.views == 2:
        network.eval()
        with torch.no_grad():
            for batch in data.train_sample(100):
                prototypes.index_add_(0, batch.labels, project(network(batch.images).features))
        prototypes = F.normalize(prototypes, dim=1)
    for epoch in range(experiment.trainer.max_epochs):
        network.train()
        for step in range(len(loader)):
            batch: Batch = loader.batch(epoch, step)
            features, logits = network(batch.images)
            loss = F.cross_entropy(logits, batch.labels)
            if method.views == 2:
                z = project(features)
                moved = update_prototypes(prototypes, z, batch.labels, 0.95)
                prototypes = moved.detach()
                loss = loss + 0.5 * compactness(z, batch.labels, prototypes, 0.1) + dispersion(moved, 0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            for batch in data.val_dataloader():
                network(batch.images)
    return time.process_time() - begin


class _Standing:
    """A trainer on one device."""

    global_rank, world_size = 0, 1


def main(rounds: int = 5) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print("| method | width | bare loop, CPU s | Trainer.fit, CPU s | ratio | target |\n|---|---|---|---|---|---|")
    for name in ("ce", "cider"):
        for width, steps in STEPS.items():
            ratios, plain, ours = [], [], []
            for number in range(rounds + 1):
                with tempfile.TemporaryDirectory() as folder:
                    experiment = prepare(
                        [
                            f"method={name}", "init=random", f"backbone.width={width}", "trainer.threads=1",
                            f"trainer.max_epochs={max(1, steps // 9)}", f"paths.output={folder}", f"seed={number}",
                        ]
                    )  # fmt: skip
                    experiment = claim(experiment)
                    both = [bare(experiment), trained(experiment)]
                if number:  # the first warms up
                    plain.append(both[0])
                    ours.append(both[1])
                    ratios.append(both[1] / both[0])
            middle = [statistics.median(values) for values in (plain, ours, ratios)]
            print(f"| {name} | {width} | {middle[0]:.2f} | {middle[1]:.2f} | {middle[2]:.3f} | 1.05 |", flush=True)


if __name__ == "__main__":
    main(*(int(override) for override in sys.argv[1:]))

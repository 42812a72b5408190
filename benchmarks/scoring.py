"""CPU time of detectors, metrics and neighbour search on saved features, and the memory of a large bank.

    python benchmarks/scoring.py

One thread. 50,000 training rows and 1,000 to score, 512 features, 100 classes; each of ours beside pytorch-ood's on the
same tensors in the same run, medians of `ROUNDS`. The bank is searched in a process of its own, whose largest resident
set is read from the system.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TRAIN, ROWS, WIDTH, CLASSES, ROUNDS = 50_000, 1_000, 512, 100, 5
BANK, BANK_WIDTH = 128_000, 2_048  # a tenth of ImageNet's rows
DETECTORS = (
    "msp", "maxlogit", "energy", "entropy", "gen", "gradnorm", "kl_matching", "openmax", "knn", "mahalanobis", "rmds",
    "vim", "react", "dice", "ash", "scale", "she", "line", "nnguide", "fdbd", "relation",
)  # fmt: skip
PEERS = {
    "msp": "MaxSoftmax", "maxlogit": "MaxLogit", "energy": "EnergyBased", "entropy": "Entropy", "gen": "GEN",
    "gradnorm": "GradNorm", "kl_matching": "KLMatching", "openmax": "OpenMax", "knn": "KNN",
    "mahalanobis": "Mahalanobis", "rmds": "RMD", "vim": "ViM", "react": "ReAct", "dice": "DICE", "ash": "ASH",
    "scale": "SCALE", "she": "SHE", "nnguide": "NNGuide", "fdbd": "fDBD",
}  # fmt: skip


def cpu(work: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """Median CPU milliseconds."""
    taken = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        taken.append(1e3 * (time.process_time() - began))
    return statistics.median(taken)


def detectors() -> None:
    import torch

    from ood_lab.scorer import build_scorer
    from ood_lab.types import FeatureSet, LinearHead

    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(CLASSES, WIDTH, generator=draw) / WIDTH**0.5
    head = LinearHead(weight, torch.zeros(CLASSES))

    def features(rows: int) -> FeatureSet:
        classes = torch.randint(CLASSES, (rows,), generator=draw)
        x = (torch.randn(rows, WIDTH, generator=draw) + 4 * weight[classes] * WIDTH**0.5).relu()
        logits = x @ weight.T
        return FeatureSet(x, logits, logits.argmax(1))

    train, data = features(TRAIN), features(ROWS)
    print(f"{'':14}{'fit, ms':>10}{'1,000 rows, ms':>16}{'pytorch-ood: fit':>18}{'1,000 rows':>12}{'ratio':>8}")
    for name in DETECTORS:
        ours = build_scorer(name, **({"alpha": 1.0} if name == "nnguide" else {}))
        with torch.inference_mode():
            fit = cpu(lambda ours=ours: ours.fit(train, head=head), 1)
            scored = cpu(lambda ours=ours: ours.score(data))
        line = f"{name:14}{fit:10.0f}{scored:16.2f}"
        if name in PEERS:
            options = {"ViM": {"d": WIDTH // 2}, "DICE": {"p": 0.9}}
            theirs = build_scorer("pood", detectors=[PEERS[name]], options=options)
            with torch.inference_mode():
                fit = cpu(lambda theirs=theirs: theirs.fit(train, head=head), 1)
                peer = cpu(lambda theirs=theirs: theirs.score(data), 3)
            line += f"{fit:18.0f}{peer:12.2f}{peer / scored:8.1f}"
        print(line, flush=True)


def metrics() -> None:
    import numpy as np
    import torch
    from pytorch_ood.metrics import OODMetrics
    from sklearn.metrics import auc, precision_recall_curve, roc_auc_score, roc_curve

    from ood_lab.evaluation.metrics import intervals, ood_metrics

    draw = np.random.default_rng(0)
    ids, oods = draw.normal(size=10_000), draw.normal(1, 1, 26_000)
    scores, is_ood = np.concatenate([ids, oods]), np.repeat([0, 1], [10_000, 26_000])

    def scikit_learn() -> None:
        roc_auc_score(is_ood, scores)
        for label, values in ((is_ood, scores), (1 - is_ood, -scores)):
            precision, recall, _ = precision_recall_curve(label, values)
            auc(recall, precision)
            roc_curve(label, values, drop_intermediate=False)

    def pytorch_ood() -> None:
        kept = OODMetrics()
        kept.update(torch.from_numpy(scores), torch.from_numpy(-is_ood))
        kept.compute()

    ours, drawn = cpu(lambda: ood_metrics(ids, oods), 21), cpu(lambda: intervals(ids, oods, 10, draw)) / 10
    print(f"\nfive metrics of 10,000 + 26,000 scores: {ours:.1f} ms; a bootstrap draw {drawn:.1f} ms; ", end="")
    print(f"scikit-learn {cpu(scikit_learn):.1f} ms; pytorch-ood {cpu(pytorch_ood):.1f} ms")


def neighbours() -> None:
    import faiss
    import torch
    from torch.nn import functional as F

    from ood_lab.index import build_index

    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    bank, queries = (F.normalize(torch.randn(n, WIDTH, generator=draw).relu(), dim=1) for n in (TRAIN, ROWS))
    flat = faiss.IndexFlatL2(WIDTH)
    flat.add(bank.numpy())
    engines = {name: build_index(bank, name) for name in ("torch", "faiss")}
    for k in (50, 1_000):
        reference = cpu(lambda k=k: flat.search(queries.numpy(), k), 3)
        taken = {name: cpu(lambda e=engine, k=k: e.kth_distance(queries, k), 3) for name, engine in engines.items()}
        shown = "; ".join(f"index={name} {ms:.0f} ms ({ms / reference:.2f} x)" for name, ms in taken.items())
        print(f"k = {k}, 1,000 queries in 50,000 x 512: faiss IndexFlatL2, one call, {reference:.0f} ms; {shown}")


def memory(child: bool) -> None:
    size = BANK * BANK_WIDTH * 4 / 2**20
    if not child:
        done = subprocess.run([sys.executable, __file__, "bank"], capture_output=True, text=True, check=True)
        before, after = (float(v) for v in done.stdout.split()[-2:])
        grown = after - before
        print(f"bank of {BANK:,} x {BANK_WIDTH:,}, {size:.0f} MiB: resident set +{grown:.0f} MiB, {grown / size:.2f} x")
        return
    import torch

    from ood_lab.evaluation.extract import load_features, save_features
    from ood_lab.scorer import build_scorer

    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        path = Path(folder) / "train-000000000000.safetensors"
        part = BANK // 16
        labels = torch.zeros(part, dtype=torch.int64)
        batches = (
            {"features": torch.rand(part, BANK_WIDTH, generator=draw), "logits": torch.zeros(part, 2), "labels": labels}
            for _ in range(16)
        )
        save_features(path, batches, BANK)
        before = _peak()
        train = load_features(path).features("penultimate")
        knn = build_scorer("knn", k=50).fit(train)
        knn.score(train._replace(features=train.features[:300].clone(), logits=train.logits[:300]))
        print(before, _peak())


def _peak() -> float:
    """Largest resident set so far, MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        memory(child=True)
    else:
        detectors()
        metrics()
        neighbours()
        memory(child=False)

"""Peak memory of an evaluation against the number of test images: it should not grow.

    python benchmarks/memory.py

Each size runs in a process of its own: images in PNG files, decoded into the cache, through a ResNet, features to
disk, every detector, scores. Counted is anonymous memory (RssAnon), sampled every 10 ms; pages of the mapped cache and
feature files, which the system takes back when it needs them, are not.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

SIZES = (1_000, 4_000, 16_000)


def anonymous_mib() -> float:
    """Anonymous resident memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise OSError("this system does not tell anonymous memory")


def child(count: int) -> None:
    import numpy as np
    import torch
    from classifier import Classifier
    from PIL import Image

    from ood_lab.config.compose import compose
    from ood_lab.evaluation.extract import Extracted, extract, features_path, load_features, save_features
    from ood_lab.evaluation.scores import RunDetector, score_all
    from ood_lab.images.pixels import Reading
    from ood_lab.reader import folder
    from ood_lab.scorer import build_scorer
    from ood_lab.task.build import build
    from ood_lab.training.evaluation_set import EvalLoader
    from ood_lab.training.normalise import Normalise

    torch.set_num_threads(1)
    network = build(compose(["backbone=narrow", "backbone.width=32"]).plain("backbone"), 10)
    method = Classifier(network)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        rng = np.random.default_rng(0)
        for part, size in (("train", 1000), ("test", count)):
            for i in range(size):
                path = root / part / str(i % 10) / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path, compress_level=1)
        peak, running = [anonymous_mib()], True

        def watch() -> None:
            while running:
                peak[0] = max(peak[0], anonymous_mib())
                time.sleep(0.01)

        thread = threading.Thread(target=watch)
        thread.start()
        reading = Reading(36, 32, root / "cache", 8.0, 0)
        sets = {}
        for part in ("train", "test"):
            listing = folder.read(root, {"folder": part})
            loader = EvalLoader(
                reading.open(listing, part), listing.labels, Normalise([0.5] * 3, [0.25] * 3), 250, torch.device("cpu")
            )
            path = features_path(root, part, "0" * 12)
            save_features(path, extract(method, loader, part), loader.images)
            sets[part] = load_features(path)

        class Kept:
            def of(self, name: str, scorer: object = None) -> Extracted:
                return sets[name]

        scorers = {name: build_scorer(name) for name in ("msp", "energy", "knn", "mahalanobis")}
        detectors = [RunDetector(name, scorer, "{}", "") for name, scorer in scorers.items()]
        score_all(detectors, Kept(), ["test"], network.head, root)
        running = False
        thread.join()
        print(f"{peak[0]:.0f}")


def main() -> None:
    if len(sys.argv) > 1:
        child(int(sys.argv[1]))
        return
    for count in SIZES:
        done = subprocess.run([sys.executable, __file__, str(count)], capture_output=True, text=True, check=True)
        print(f"{count:>6,} test images: peak {done.stdout.split()[-1]} MiB")


if __name__ == "__main__":
    main()

"""Own images: what it costs to see whether files have changed, and how soon a finished run shows its table."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from PIL import Image

from ood_lab.files.fingerprint import contents, fingerprint
from ood_lab.reader import folder
from ood_lab.reader.scope import one_command, read_once

FILES, CLASSES = 100_000, 100
FAST = ["method=ce", "backbone.width=4", "trainer.max_epochs=0", "trainer.threads=1", "scorer=[msp]", "figure=[roc]"]


def seconds(act: Callable[[], object], times: int = 5) -> float:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        act()
        taken.append(time.perf_counter() - began)
    return median(taken)


def plainly(root: Path) -> str:
    """The same fingerprint as a script would take it."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    about = [(str(p.relative_to(root)), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return hashlib.sha256(repr(about).encode()).hexdigest()


def fingerprints(root: Path) -> None:
    """Of 100,000 small files in 100 class folders, on a local disk whose entries are in memory."""
    for number in range(FILES):
        path = root / f"class{number % CLASSES:03d}" / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(number % 251) * 8)
    source = {"folder": "."}
    listing = folder.read(root, source)
    listed, plain = seconds(lambda: folder.read(root, source)), seconds(lambda: plainly(root), 3)
    taken = seconds(lambda: fingerprint(listing.files))
    with one_command():
        again = seconds(lambda: read_once("fingerprint", lambda: fingerprint(listing.files)))
    print(f"{FILES:,} files: listed in {listed:.2f} s, fingerprint {taken:.2f} s (target 1), asked again {again:.4f} s")
    print(f"rglob and Path.stat, as a script would: {plain:.2f} s, {plain / (listed + taken):.1f} times both")
    read = seconds(lambda: contents(listing.files, "x", root / ".none"), 1)
    print(f"their contents, read once where times differ: {read:.2f} s")


def finished(output: Path) -> None:
    """The table of a finished run, from the command to the prompt, beside importing torch and Lightning alone."""
    command = [sys.executable, "-m", "ood_lab", *FAST, f"paths.output={output}"]
    subprocess.run(command, capture_output=True, check=True)
    shown = [seconds(lambda: subprocess.run(command, capture_output=True, check=True), 1) for _ in range(5)]
    imports = [sys.executable, "-c", "import torch, lightning, matplotlib.pyplot"]
    imported = [seconds(lambda: subprocess.run(imports, capture_output=True, check=True), 1) for _ in range(5)]
    print(
        f"finished run: {min(shown):.2f} to {max(shown):.2f} s (target 2); importing torch, Lightning and matplotlib "
        f"alone {min(imported):.2f} to {max(imported):.2f} s"
    )


def finished_on_files(root: Path, output: Path) -> None:
    """The same of a run on 100,000 image files of one's own, all of which are looked at."""
    for split, count in (("train", FILES - 1000), ("test", 1000)):
        for number in range(count):
            path = root / split / f"class{number % 10}" / f"{number:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if number < 100:
                Image.new("RGB", (8, 8), (number, 2 * number, 99)).save(path)
            else:
                path.write_bytes((path.parent / f"{number % 100:06d}.png").read_bytes())
    own = ["dataset=image_folder", f"dataset.root={root}", "protocol.far=[gaussian_noise]", "dataset.recipe.side=8"]
    command = [sys.executable, "-m", "ood_lab", *FAST, *own, "dataset.recipe.resize=8", f"paths.output={output}"]
    first = seconds(lambda: subprocess.run(command, capture_output=True, check=True), 1)
    shown = [seconds(lambda: subprocess.run(command, capture_output=True, check=True), 1) for _ in range(5)]
    print(f"finished run on {FILES:,} files: {min(shown):.2f} to {max(shown):.2f} s (target 3), {first:.0f} s at first")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        finished(Path(place) / "out")
        fingerprints(Path(place) / "images")
        finished_on_files(Path(place) / "own", Path(place) / "out")

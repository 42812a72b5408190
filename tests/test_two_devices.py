"""Two processes train what one trains with the whole batch: data, auxiliary stream, prototypes, bank."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor

from tests.two_devices import train

SMALL = [
    "backbone.width=4",
    "trainer.max_epochs=1",
    "trainer.threads=1",
    "dataset.recipe.bank_size=20",
    "dataset.recipe.neighbor=5",
    "init=random",
]

FRACTALS = ("auxiliary=fractals", "auxiliary.count=60", "auxiliary.native_side=16", "augmentation=crop_flip")
SLOW = "method.optimizer.lr=0.001"  # so that a difference in the last digit does not grow
EVERY_IMAGE = ("regularizer=[gradient]", "regularizer.gradient.m_in=null", "regularizer.gradient.m_out=null")
CASES = {
    "oe and its gradients": (
        "method=oe", *FRACTALS, *EVERY_IMAGE, "trainer.batch_size=300", "trainer.auxiliary_batch_size=20",
    ),
    # Each step sums the gradients of two batches, and the average is of steps, not of batches.
    "accumulated and averaged": (
        "method=oe", *FRACTALS, "trainer.batch_size=150", "trainer.auxiliary_batch_size=20", "trainer.accumulate=2",
        "trainer.ema=0.9",
    ),
    # Candidates of both devices are compared, and each trains on its share of what is chosen.
    "greg_plus": (
        "method=greg_plus", *FRACTALS, *EVERY_IMAGE, "regularizer.gradient.reading=sample", "selector.candidates=40",
        "selector.clusters=5", "trainer.auxiliary_batch_size=20", "trainer.batch_size=300", SLOW,
    ),
    "dos": (
        "method=dos", *FRACTALS, "selector.candidates=40", "selector.clusters=5", "trainer.auxiliary_batch_size=20",
        "trainer.batch_size=300", SLOW,
    ),
    # Each device attacks its own outliers, by the energy of its own rows.
    "aoe": ("method=aoe", *FRACTALS, "trainer.batch_size=300", "trainer.auxiliary_batch_size=20", SLOW),
    # Both keep one queue of features, and mix the same pictures into their shares of the ID images.
    "ares": (
        "method=ares", "pictures=fractals", "pictures.count=20", "pictures.native_side=36", "outlier_loss.start=0",
        "outlier_loss.weight=1.0", "synthesizer.queue_size=250", "synthesizer.pool=60", "synthesizer.take=20",
        "trainer.batch_size=300", SLOW,
    ),
    # Both devices pass their shares of the pool before an epoch, and have the same rows.
    "poem": (
        "method=poem", *FRACTALS, "selector.pool=50", "selector.take=20", "trainer.auxiliary_batch_size=12",
        "trainer.batch_size=598", "trainer.max_epochs=3", SLOW,
    ),
    # Each plays the whole game of the GAN with the images of both, and trains on its share of what is made.
    # Adam moves a weight whose gradient is nearly 0 by the sign of a rounding error; a low rate keeps that small.
    "gan": (
        "method=gan", "synthesizer.side=16", "synthesizer.width=8", "trainer.batch_size=300",
        "method.optimizer.lr=3e-5",
    ),
    "mixed images": ("method=openmix", *FRACTALS, "trainer.batch_size=300", SLOW),
    "mixed images with statistics of their own": ("method=mixoe", *FRACTALS, "trainer.batch_size=300"),
    # The projector idles in the first step, the logistic head while the bank fills: no weight decay moves them.
    "parts that start late": (
        "method=hamos", "synthesizer=random_walk", "outlier_loss=logistic", "id_loss.cider.start=0.5",
        "trainer.batch_size=598", "method.optimizer.weight_decay=0.1",
    ),
    # Two steps, the second with outliers: at HamOS's rate and temperature a difference in the last digit grows
    # about tenfold every two steps, on one device as on two.
    "hamos": ("method=hamos", "outlier_loss.weight=1.0", "trainer.batch_size=598", "trainer.max_epochs=1"),
    "rmhmc": ("method=hamos", "synthesizer=rmhmc", "outlier_loss.weight=1.0", "trainer.batch_size=598"),
    # Rows, also of turned images, are compared with those of all devices.
    "contrastive": (
        "method=csi_contrast", "id_loss=[ce,supcon,simclr,palm,csi,csi_joint]", "trainer.batch_size=300",
    ),
    # One mean over ID rows, which devices share, and outliers, which all have.
    "vos mixed as in ronf": (
        "method=ronf", "outlier_loss.weight=1.0", "outlier_loss.hidden=4", "trainer.batch_size=598",
    ),
    "npos": (
        "method=npos", "synthesizer.boundary=10", "synthesizer.candidates=30", "synthesizer.per_anchor=10",
        "outlier_loss.weight=1.0", "trainer.batch_size=598",
    ),
}  # fmt: skip
BATCH_NORM = "with batch norm"
FINAL = "final."  # begins the names of what the run would store


States = dict[int, dict[str, list[dict[str, Tensor]]]]


def trained(folder: Path) -> States:
    """The state of every device after each case, on one device (in this process) and on two (a pair of processes)."""
    found = {}
    for devices in (1, 2):
        here = folder / str(devices)
        here.mkdir()
        more = [f"trainer.devices={devices}"]
        requests = {name: [*SMALL, *words, "backbone.norm=group", *more] for name, words in CASES.items()}
        if devices > 1:
            requests[BATCH_NORM] = [*SMALL, "method=ce", *more]
        if devices == 1:
            for name, overrides in requests.items():
                train(name, here, overrides)
        else:
            command = [sys.executable, "-m", "tests.two_devices", str(here), json.dumps(requests)]
            done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-3000:]
        found[devices] = {
            name: [torch.load(here / f"{name}.rank{n}.pt", weights_only=True) for n in range(devices)]
            for name in requests
        }
    return found


def weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in state.items() if not k.startswith(("accuracy.", "means."))}


def test_two_devices_train_what_one_trains_with_the_whole_batch(tmp_path: Path) -> None:
    """With group normalisation; with batch normalisation the devices still agree in their parameters."""
    states = trained(tmp_path)
    for case in CASES:
        first, second = (weights(state) for state in states[2][case])
        alone = weights(states[1][case][0])
        final = {name for name in first if name.startswith(FINAL)}  # which the first device alone gives
        assert final
        assert first.keys() == alone.keys() == second.keys() | final
        for name, value in first.items():
            assert name in final or torch.equal(value, second[name]), f"{case}: {name}"
            # Adam divides by the gradient's size: a rounding near zero is one of a whole step, 2e-4.
            near = 1e-4 if "image_source." in name else 1e-5
            torch.testing.assert_close(value, alone[name], atol=near, rtol=1e-5, msg=f"{case}: {name}")
    averaged = states[2]["accumulated and averaged"][0]
    assert not torch.equal(averaged[f"{FINAL}backbone.fc.weight"], averaged["backbone.fc.weight"])
    first, second = states[2][BATCH_NORM]
    parameters = [k for k in weights(second) if "running" not in k and "num_batches" not in k]
    assert parameters
    assert all(torch.equal(first[k], second[k]) for k in parameters)


def test_a_whole_run_on_two_devices_ends_with_its_table_once(tmp_path: Path) -> None:
    experiment = [*SMALL, "method=ce", "trainer.devices=2", f"paths.output={tmp_path}", "figure=[training_curves]"]
    command = [sys.executable, "-m", "ood_lab", *experiment]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert sum(line.startswith("ID accuracy   ") for line in done.stdout.splitlines()) == 1
    assert "on 2 devices" in done.stdout
    (run,) = tmp_path.glob("ce-*")
    assert (run / "DONE").is_file()

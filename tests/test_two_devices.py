"""Two processes train what one trains with the whole batch: data, auxiliary stream, prototypes, bank."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

SMALL = [
    "backbone.width=8",
    "trainer.max_epochs=1",
    "trainer.threads=1",
    "dataset.recipe.bank_size=20",
    "dataset.recipe.neighbor=5",
    "init=random",
]


def trained(folder: Path, devices: int, *overrides: str) -> list[dict[str, Tensor]]:
    """The state of every device after training."""
    folder.mkdir()
    request = [*SMALL, *overrides, f"trainer.devices={devices}", f"paths.output={folder}/outputs"]
    command = [sys.executable, str(Path(__file__).with_name("two_devices.py")), str(folder), *request]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(devices)]


def weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in state.items() if not k.startswith(("accuracy.", "means."))}


@pytest.mark.parametrize(
    "overrides",
    [
        (
            "method=oe",
            "auxiliary=fractals",
            "auxiliary.count=300",
            "auxiliary.native_side=16",
            "regularizer=[gradient]",
            "regularizer.gradient.m_in=100",
            "regularizer.gradient.m_out=-100",
        ),
        # The projector idles in the first step, the logistic head while the bank fills: no weight decay moves them.
        (
            "method=hamos",
            "outlier_loss=logistic",
            "id_loss.cider.start=0.5",
            "trainer.batch_size=598",
            "method.optimizer.weight_decay=0.1",
        ),
        # Two steps, the second with outliers: at HamOS's rate and temperature a difference in the last digit grows
        # about tenfold every two steps, on one device as on two.
        ("method=hamos", "outlier_loss.weight=1.0", "trainer.batch_size=598", "trainer.max_epochs=1"),
    ],
    ids=["oe and its gradients", "parts that start late", "hamos"],
)
def test_with_group_norm_the_devices_agree_and_are_one_with_the_whole_batch(
    overrides: tuple[str, ...], tmp_path: Path
) -> None:
    first, second = trained(tmp_path / "two", 2, *overrides, "backbone.norm=group")
    (alone,) = trained(tmp_path / "one", 1, *overrides, "backbone.norm=group")
    first, second, alone = weights(first), weights(second), weights(alone)
    assert first.keys() == second.keys() == alone.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
        torch.testing.assert_close(value, alone[name], atol=1e-5, rtol=1e-5, msg=name)


def test_with_batch_norm_the_devices_agree_in_their_parameters(tmp_path: Path) -> None:
    first, second = trained(tmp_path / "two", 2, "method=ce")
    parameters = [k for k in weights(first) if "running" not in k and "num_batches" not in k]
    assert parameters
    assert all(torch.equal(first[k], second[k]) for k in parameters)


def test_a_whole_run_on_two_devices_ends_with_its_table_once(tmp_path: Path) -> None:
    request = [*SMALL, "method=ce", "trainer.devices=2", f"paths.output={tmp_path}", "figure=[training_curves]"]
    command = [sys.executable, "-m", "ood_lab", *request]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("ID accuracy") == 1
    assert "on 2 devices" in done.stdout
    (run,) = tmp_path.glob("ce-*")
    assert (run / "DONE").is_file()
    again = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert again.returncode == 0
    assert "devices" not in again.stdout

"""Folders may be called anything: one name with all that Hydra, OmegaConf, glob, rich and shells know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ood_lab
from ood_lab.__main__ import main

NAME = "ü a,b(1) lr=0.1 it's c[1] [red] c#1 ${x} \\${y} *? True"
SMALL = [
    "backbone.width=4", "trainer.max_epochs=1", "trainer.threads=1", "scorer=[msp]", "figure=[]",
    "protocol.far=[gaussian_noise]", "dataset.recipe.epochs.pretrain=1",
]  # fmt: skip
OWN = """
defaults: [image_folder, _self_]
name: mine
root: ${paths.data}/mine
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder of that name with a small set, and a configuration beside it."""
    home = tmp_path / NAME
    for rank, name in enumerate(("a", NAME)):
        for split, count in (("train", 12), ("test", 10)):
            folder = home / "mine" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = np.random.default_rng([rank, i, count]).integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i} {NAME}.png")
    (home / "conf/dataset").mkdir(parents=True)
    (home / "conf/dataset/mine.yaml").write_text(OWN)
    return home


def test_a_whole_run_lies_in_such_a_folder(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Images, results, a needed run in a process of its own, its table again, a detector, a checkpoint."""
    own = ["dataset=image_folder", f"dataset.root={home}/mine", f"paths.output={home}/out", *SMALL]
    synthesis = ["dataset.recipe.bank_size=8", "dataset.recipe.neighbor=2"]
    assert main(["method=hamos", *synthesis, *own]) == 0
    first = capsys.readouterr().out
    assert f"report: {home}/out/hamos-mine-" in first
    assert main(["method=hamos", *synthesis, *own]) == 0
    assert capsys.readouterr().out.partition("report:")[2] == first.partition("report:")[2]
    (ce,) = (home / "out").glob("ce-mine-*")
    assert len(ood_lab.load_detector(ce, "msp").score([Image.new("RGB", (40, 40))])) == 1
    weights = home / "w.safetensors"
    weights.write_bytes((ce / "checkpoints/final.safetensors").read_bytes())
    assert main(["method=ce", *own, "trainer.max_epochs=0", f"init.checkpoint={weights}"]) == 0


def test_paths_of_the_environment_a_configuration_and_a_sweep(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OOD_LAB_DATA", str(home))
    monkeypatch.setenv("OOD_LAB_OUTPUT", str(home / "out"))
    command = ["method=ce", "dataset=mine", f"--config-dir={home}/conf", *SMALL]
    assert main(command) == 0
    assert main(["-m", "seed=0,1", *command]) == 0
    assert "of 2 seeds" in capsys.readouterr().out
    assert len(list((home / "out").glob("ce-mine-narrow-s*/DONE"))) == 2
    assert main(["task=data", "dataset=mine", "method=ce", f"--config-dir={home}/conf"]) == 0
    assert "missing" not in capsys.readouterr().out

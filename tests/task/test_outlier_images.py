"""The outlier images of a finished run: their change, energies and distances by hand; made once and found again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import ood_lab
from ood_lab.config import prepare
from ood_lab.evaluation.frechet import frechet_distance
from ood_lab.task.build import build_data
from ood_lab.task.features import trained_method
from ood_lab.task.outlier_images import IMAGES, OutlierImages

SMALL = [
    "init=random", "backbone.width=4", "trainer.max_epochs=1", "trainer.threads=1", "auxiliary=fractals",
    "auxiliary.count=40", "auxiliary.native_side=16", "scorer=[energy]", "figure=[outlier_images]",
]  # fmt: skip


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outlier_images")
    for method in ("aoe", "oe"):
        ood_lab.run([f"method={method}", *SMALL, f"paths.output={folder}"])
    return folder


def test_of_aoe_they_are_moved_down_the_energy_by_growing_steps(output: Path) -> None:
    experiment = prepare(["method=aoe", *SMALL, f"paths.output={output}"])
    artifact = OutlierImages(experiment)
    assert artifact.path.is_file(), "the figure has asked for them"
    found = artifact.load()
    assert found["strengths"].tolist() == pytest.approx([0, 0.125, 0.25, 0.5, 1])
    assert found["pictures"].shape == (5, 8, 32, 32, 3)
    assert found["energy/before"].shape == found["energy/after"].shape == (40,)
    assert (found["asked"] == -1).all()
    data, method = build_data(experiment), trained_method(experiment).eval()
    rows = torch.randperm(40, generator=ood_lab.random.generator(0, "outlier images"))[:IMAGES]
    pixels = next(iter(data.auxiliary_images.plain(rows, 40)))
    assert np.array_equal(found["pictures"][0], pixels[:8].permute(0, 2, 3, 1).numpy())
    with torch.no_grad():
        seen = method.extract(data.normalise(pixels))
        of_training = method.extract(next(iter(data.evaluation_loader("train"))).images)["features"]
    assert found["energy/before"] == pytest.approx(-seen["logits"].logsumexp(1).numpy(), rel=1e-5)
    assert found["energies"][0] == pytest.approx(found["energy/before"][:8], rel=1e-5)
    assert found["distance"][0] > found["distance/id"][0] > 0
    assert frechet_distance(seen["features"], of_training) == pytest.approx(float(found["distance"][0]), rel=0.5)


def test_without_a_change_there_is_one_row_and_nothing_is_made_twice(output: Path) -> None:
    request = ["method=oe", *SMALL, f"paths.output={output}"]
    artifact = OutlierImages(prepare(request))
    made, found = artifact.path.stat().st_mtime_ns, artifact.load()
    assert found["strengths"].tolist() == [0]
    assert np.array_equal(found["energy/before"], found["energy/after"])
    ood_lab.run([*request, "task=report"])
    assert artifact.path.stat().st_mtime_ns == made

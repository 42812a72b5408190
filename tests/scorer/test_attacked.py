"""The detectors of logits under an attack on OOD images: against a plain loop, and what is attacked."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

import ood_lab
from ood_lab.config import RequestError
from ood_lab.evaluation.extract import perturbed
from ood_lab.scorer import build_scorer
from ood_lab.scorer.base import InputScorer
from tests.scorer.case import TEST
from tests.scorer.test_odin import Smooth


def test_its_scores_are_those_of_the_detector_that_is_attacked() -> None:
    for of, other in (("energy", "energy"), ("msp", "msp")):
        ours, theirs = build_scorer("attacked", of=of).score(TEST), build_scorer(other).score(TEST)
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_each_pixel_moves_by_epsilon_to_where_the_loss_of_outlier_exposure_grows() -> None:
    network = Smooth().double()
    images = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    std = torch.tensor([0.2, 0.25, 0.5], dtype=torch.float64).view(1, 3, 1, 1)
    attacked = build_scorer("attacked", epsilon=0.01)
    assert isinstance(attacked, InputScorer)
    moved = perturbed(network, images, attacked.objective, attacked.epsilon, std)
    torch.testing.assert_close((moved - images).abs(), (0.01 / std).expand_as(images))

    @torch.no_grad()
    def loss(x: torch.Tensor) -> float:
        """The cross-entropy of the prediction to the uniform distribution, less the uniform one's own entropy."""
        chances = network.net(x[None])[0].softmax(0).tolist()
        return -sum(math.log(chance) for chance in chances) / len(chances)

    for image, step in zip(images, moved - images, strict=True):
        for place in torch.ones_like(image).nonzero():
            nudge = torch.zeros_like(image)
            nudge[tuple(place)] = 1e-6
            slope = loss(image + nudge) - loss(image - nudge)
            assert math.copysign(1, slope) == math.copysign(1, float(step[tuple(place)]))


def test_ood_images_are_attacked_and_no_others(tmp_path: Path) -> None:
    small = ["method=ce", "init=random", "backbone.width=4", "trainer.max_epochs=1", "trainer.threads=1"]
    request = [*small, "scorer=[energy,attacked]", "protocol.near=[]", "figure=[]", f"paths.output={tmp_path}"]
    results = ood_lab.run([*request, "scorer.attacked.epsilon=0.1"])
    changed = {path.name.rpartition("-")[0] for path in results.run_dir.glob("features/attacked/*")}
    assert changed == {"photos", "gaussian_noise"}
    unarmed = ood_lab.run([*request, "scorer.attacked.epsilon=0"])
    of_photos = [row for row in unarmed.rows if row["metric"] == "auroc" and row["ood_set"] == "photos"]
    plain = next(row["value"] for row in of_photos if row["scorer"] == "energy")
    found = {json.loads(row["options"])["epsilon"]: row["value"] for row in of_photos if row["scorer"] == "attacked"}
    assert found[0] == pytest.approx(plain, abs=1e-4) != found[0.1]
    with pytest.raises(RequestError, match="is no detector to use"):
        ood_lab.load_detector(results.run_dir, "attacked")

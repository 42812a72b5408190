"""Every detector of pytorch-ood that works on features, on the same pass."""

from __future__ import annotations

import pytest
import torch
from pytorch_ood import detector as peer

from ood_lab.config.peers import usable
from ood_lab.scorer import build_scorer
from ood_lab.types import FeatureSet, LinearHead
from tests.cases import each
from tests.scorer.case import TEST, TRAIN, head

SINGLE = LinearHead(head().weight.float(), head().bias.float())
FIT, DATA = (FeatureSet(s.features.float(), s.logits.float(), s.labels) for s in (TRAIN, TEST))
REQUIRED = {"ViM": {"d": 6}, "DICE": {"p": 0.7}}


def scores_of(name: str) -> torch.Tensor:
    options = {name: REQUIRED.get(name, {})}
    with torch.inference_mode():
        return build_scorer("pood", detectors=[name], options=options).fit(FIT, head=SINGLE).score(DATA)


@each("name", usable())
def test_each_gives_a_number_for_each_row(name: str) -> None:
    scores = scores_of(name)
    assert scores.shape == (len(DATA.features),)
    assert scores.isfinite().all()
    assert scores.unique().numel() > len(scores) // 2


def test_the_numbers_are_those_of_calling_pytorch_ood_itself() -> None:
    weight, bias = SINGLE
    vim = peer.ViM(None, d=6, w=weight, b=bias).fit_features(FIT.features, FIT.labels)
    torch.testing.assert_close(scores_of("ViM"), vim.predict_features(DATA.features))
    torch.testing.assert_close(scores_of("MaxSoftmax"), peer.MaxSoftmax.score(DATA.logits))
    mahalanobis = peer.Mahalanobis(None).fit_features(FIT.features, FIT.labels)
    torch.testing.assert_close(scores_of("Mahalanobis"), mahalanobis.predict_features(DATA.features))


@each(
    ("detectors", "options", "message"),
    [
        (["ViM", "KNN"], {}, "one object scores with one detector; got ViM, KNN"),
        (["ViM"], {}, r"pood.ViM has no default for d; add scorer.pood.options.ViM=\{d: ...\}"),
        (["KNN"], {"KNN": {"kk": 3}}, "pood.KNN has no option kk"),
    ],
)
def test_what_cannot_be_built_is_said(detectors: list[str], options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_scorer("pood", detectors=detectors, options=options).fit(FIT, head=SINGLE)

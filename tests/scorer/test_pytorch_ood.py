"""Agreement with pytorch-ood 0.4 on fixed features, for every detector that both have."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytorch_ood import detector as peer
from scipy.stats import spearmanr
from torch import Tensor, nn

from ood_lab.evaluation.extract import perturbed
from ood_lab.scorer import build_scorer
from ood_lab.scorer.base import InputScorer
from ood_lab.types import FeatureSet, LinearHead
from tests.cases import each
from tests.scorer.case import TEST, TRAIN, head

SINGLE = LinearHead(head().weight.float(), head().bias.float())
FIT, DATA = (FeatureSet(s.features.float(), s.logits.float(), s.labels) for s in (TRAIN, TEST))
W, B = SINGLE
LINEAR = nn.Linear(W.shape[1], W.shape[0])
LINEAR.load_state_dict({"weight": W, "bias": B})


def maps(features: Tensor) -> Tensor:
    return features[:, :, None, None]


def to_logits(feature_maps: Tensor) -> Tensor:
    return LINEAR(feature_maps.flatten(1))


def fitted(detector: object) -> Callable[[Tensor], Tensor]:
    """The peer's scores for features, fitted on the training features."""
    detector.fit_features(FIT.features, FIT.labels)  # type: ignore[attr-defined]
    return detector.predict_features  # type: ignore[attr-defined, no-any-return]


def react() -> Tensor:
    threshold = float(torch.quantile(FIT.features, 0.9))
    return peer.ReAct(maps, to_logits, threshold=threshold).predict(DATA.features)


def kl_matching() -> Tensor:
    return peer.KLMatching(None).fit_logits(FIT.logits).predict_logits(DATA.logits)


def gradnorm() -> Tensor:
    return peer.GradNorm(LINEAR, param_filter=lambda name: "weight" in name).predict(DATA.features)


def openmax() -> Tensor:
    # It takes in training images that are classified wrongly; there are none.
    return (
        peer.OpenMax(None, tailsize=20, alpha=3)
        .fit_logits(FIT.logits, FIT.logits.argmax(1))
        .predict_logits(DATA.logits)
    )


PEERS: dict[str, tuple[dict[str, object], Callable[[], Tensor]]] = {
    "msp": ({}, lambda: peer.MaxSoftmax.score(DATA.logits.double()) + 1),
    "maxlogit": ({}, lambda: peer.MaxLogit.score(DATA.logits)),
    "energy": ({}, lambda: peer.EnergyBased.score(DATA.logits)),
    "entropy": ({}, lambda: peer.Entropy.score(DATA.logits)),
    "gen": ({"top_m": 3}, lambda: peer.GEN.score(DATA.logits, 0.1, 3)),
    "knn": ({"k": 5, "space": "penultimate"}, lambda: fitted(peer.KNN(None, k=5))(DATA.features)),
    "mahalanobis": ({}, lambda: fitted(peer.Mahalanobis(None))(DATA.features)),
    "rmds": ({}, lambda: fitted(peer.RMD(None))(DATA.features)),
    "vim": ({"dim": 6}, lambda: fitted(peer.ViM(None, d=6, w=W, b=B))(DATA.features)),
    "dice": ({"percentile": 70.0}, lambda: fitted(peer.DICE(None, W, B, 0.7))(DATA.features)),
    "she": ({}, lambda: fitted(peer.SHE(None, LINEAR))(DATA.features)),
    "fdbd": ({}, lambda: fitted(peer.fDBD(nn.Identity(), LINEAR))(DATA.features)),
    "nnguide": ({"k": 4, "alpha": 1.0}, lambda: fitted(peer.NNGuide(None, LINEAR, k=4))(DATA.features)),
    "react": ({"percentile": 90.0}, react),
    "scale": ({"percentile": 75.0}, lambda: peer.SCALE(maps, to_logits, percentile=0.75).predict(DATA.features)),
    "ash": (
        {"variant": "s", "percentile": 75.0},
        lambda: peer.ASH(maps, to_logits, variant="ash-s", percentile=0.75).predict(DATA.features),
    ),
    "kl_matching": ({}, kl_matching),
    "gradnorm": ({}, gradnorm),
}


@each("name", PEERS)
def test_both_rank_every_image_alike(name: str) -> None:
    options, theirs = PEERS[name]
    ours = build_scorer(name, **options).fit(FIT, head=SINGLE).score(DATA).double()
    with torch.no_grad():
        reference = theirs().double()
    correlation = spearmanr(ours.numpy(), reference.numpy()).statistic
    assert correlation == pytest.approx(1, abs=1e-9)


# Where its numbers are ours times a constant: it takes the mean of the top classes; it does not divide the covariance
# by the number of rows, and takes half the Mahalanobis distance (the exponent of the Gaussian).
ROWS = len(FIT.features)
FACTORS = {"gen": 1 / 3, "mahalanobis": 0.5 / ROWS, "rmds": 1 / ROWS}
# Where only the order is shared: the norm's constant, divergences clipped at another floor.
ORDER_ONLY = ("gradnorm", "kl_matching", "nnguide", "she", "fdbd")


@each("name", [name for name in PEERS if name not in ORDER_ONLY])
def test_the_numbers_are_theirs_up_to_a_known_constant(name: str) -> None:
    options, theirs = PEERS[name]
    ours = build_scorer(name, **options).fit(FIT, head=SINGLE).score(DATA).double()
    with torch.no_grad():
        torch.testing.assert_close(ours * FACTORS.get(name, 1.0), theirs().double(), rtol=1e-3, atol=1e-4)


def test_openmax_gives_the_probability_of_which_ours_is_the_log_odds() -> None:
    """Its Weibull fit is SciPy's search, ours solves the likelihood equation: they differ in the third digit."""
    rightly = FIT._replace(labels=FIT.logits.argmax(1))
    odds = build_scorer("openmax", tail=20, alpha=3).fit(rightly).score(DATA).double()
    theirs = openmax().double()
    torch.testing.assert_close(odds.sigmoid(), theirs, rtol=0, atol=0.01)
    assert spearmanr(odds.numpy(), theirs.numpy()).statistic > 0.99


def test_odin_moves_and_scores_images_alike() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 36, 5)).double()
    images, std = torch.randn(20, 3, 8, 8, dtype=torch.float64), [0.2, 0.25, 0.3]

    class Network:
        def eval(self) -> None: ...

        def extract(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": network(x)}

    ours = build_scorer("odin", temperature=10.0, epsilon=0.01)
    assert isinstance(ours, InputScorer)
    per_channel = torch.tensor(std, dtype=torch.float64).view(1, 3, 1, 1)
    moved = perturbed(Network(), images, ours.objective, ours.epsilon, per_channel)
    with torch.no_grad():
        logits = network(moved)
    theirs = peer.ODIN(network, eps=0.01, temperature=10.0, norm_std=std).predict(images)
    torch.testing.assert_close(ours.score(FeatureSet(logits, logits)), 1 + theirs.detach(), rtol=1e-9, atol=1e-12)

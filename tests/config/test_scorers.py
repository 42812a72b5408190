"""Requests about detectors that can't be met are refused before anything is run, with the remedy."""

from __future__ import annotations

import pytest

from ood_lab.config import RequestError, prepare
from ood_lab.config.detectors import TUNED
from ood_lab.results.store import options_text
from ood_lab.scorer import build_scorer
from tests.cases import each

TUNE = ["method=ce", "tuning=openood"]


@each(
    ("overrides", "message"),
    [
        (
            ["scorer=godin"],
            "scorer=godin reads numerator, which method=hamos (head=linear) does not give; use method=godin",
        ),
        (
            ["method=ce", "scorer=[msp,csi]"],
            "scorer=csi reads shifts, which method=ce (head=linear) does not give; use method=csi",
        ),
        (["index=fais"], "index='fais': expected one of torch, faiss"),
        (["id_rate=1"], "id_rate=1: expected a number between 0 and 1"),
        (["bootstrap=-1"], "bootstrap=-1"),
        (["trainer.eval_precision=bf16"], "expected one of 32-true, bf16-mixed"),
        (["scorer=[pood]", "scorer.pood.detectors=[Mahalanobi]"], "Did you mean 'Mahalanobis'?"),
        (["scorer=[pood]", "scorer.pood.detectors=[ODIN]"], "ODIN of pytorch-ood needs more than saved features"),
        (["scorer=[pood]", "scorer.pood.detectors=[]"], "name at least one"),
        (["scorer=[pood]", "scorer.pood.options.KNN={k: 3}"], "KNN is not among scorer.pood.detectors"),
        ([*TUNE, "protocol.validation=[]"], "declares no OOD validation set"),
        ([*TUNE, "protocol.id_val=0"], "declares no ID validation image"),
        ([*TUNE, "protocol.validation=[letters]"], "'letters' is a test set, too; nothing is tuned on test data"),
        ([*TUNE, "tuning.grids.knn.kk=[1]"], "tuning.grids.knn.kk: scorer knn has no such option"),
        (
            [*TUNE, "tuning.grids.knn.k=[0]"],
            "tuning.grids.knn.k=[0]: expected a list of values, each a whole number above 0",
        ),
        ([*TUNE, "tuning.grids.knn.k=[]"], "expected a list of values"),
        ([*TUNE, "tuning.grids.kn.k=[1]"], "tuning.grids.kn: no such scorer. Did you mean 'knn'?"),
        ([*TUNE, "tuning.grids.pood.options=[1]"], "detectors of pytorch-ood are not tuned"),
        (["scorer=[react]", "scorer.react.activations=val", "protocol.id_val=0"], "keeps no ID images for validation"),
        (["tuning=openod"], "Did you mean 'openood'?"),
    ],
)
def test_it_is_refused_with_the_remedy(overrides: list[str], message: str) -> None:
    with pytest.raises(RequestError) as error:
        prepare(overrides)
    assert message in str(error.value)


def test_without_pytorch_ood_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from ood_lab.config import peers

    peers.usable.cache_clear()
    monkeypatch.setattr(peers, "find_spec", lambda _: None)
    with pytest.raises(RequestError, match=r"pip install 'ood-lab\[pood\]'"):
        prepare(["scorer=[pood]"])
    peers.usable.cache_clear()


def test_each_peer_is_a_detector_of_its_own_with_its_own_options() -> None:
    asked = ["scorer=[knn,pood]", "scorer.pood.detectors=[ViM,GMM]", "scorer.pood.options.ViM={d: 20}"]
    nodes = prepare(asked).detectors
    assert list(nodes) == ["knn", "pood.ViM", "pood.GMM"]
    assert nodes["pood.ViM"]["options"] == {"ViM": {"d": 20}}
    assert nodes["pood.GMM"]["options"] == {}


def test_a_tuned_detector_is_another_one_and_the_run_is_the_same() -> None:
    plain, tuned = prepare(["method=ce"]), prepare(TUNE)
    assert tuned.run_id == plain.run_id
    assert tuned.detectors["knn"][TUNED]["sets"] == ["uniform_noise"]
    assert TUNED not in tuned.detectors["msp"]
    assert options_text(tuned.detectors["knn"]) != options_text(plain.detectors["knn"])
    assert tuned.use("uniform_noise").role == "validation"
    assert "uniform_noise" not in tuned.ood_sets


def test_whole_numbers_and_fractions_are_one_value() -> None:
    texts = {
        options_text(prepare(["scorer=[odin]", f"scorer.odin.temperature={t}"]).detectors["odin"]) for t in ("9", "9.0")
    }
    assert len(texts) == 1
    assert prepare(["scorer=[knn]", "scorer.knn.k=7"]).detectors["knn"]["k"] == 7
    assert build_scorer("odin", temperature=9).change() == build_scorer("odin", temperature=9.0).change()  # type: ignore[attr-defined]


def test_what_is_not_tuned_needs_no_validation_set() -> None:
    assert all(use.role != "validation" for use in prepare(["method=ce"]).image_sets)


def test_the_needed_run_is_scored_in_the_same_way() -> None:
    (need,) = prepare(["tuning=openood", "bootstrap=7", "id_rate=0.9", "index=faiss"]).prerequisites.values()
    assert (need.bootstrap, need.id_rate, need.index) == (7, 0.9, "faiss")
    assert TUNED in need.detectors["knn"]

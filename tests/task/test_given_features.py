"""Features of any network get every detector, metric and report: from Python and from a file, with the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import ood_lab
from ood_lab.__main__ import main
from ood_lab.errors import RequestError
from ood_lab.evaluation.metrics import ood_metrics
from ood_lab.results.store import read_rows, read_thresholds
from ood_lab.scorer import build_scorer
from ood_lab.types import FeatureSet, LinearHead
from tests.cases import each

RANDOM = np.random.default_rng(0)
CENTRES = RANDOM.normal(size=(3, 6)) * 3
LABELS, TEST_LABELS = np.arange(120) % 3, np.arange(60) % 3
TRAIN = (CENTRES[LABELS] + RANDOM.normal(size=(120, 6))).astype(np.float32)
TEST = (CENTRES[TEST_LABELS] + RANDOM.normal(size=(60, 6))).astype(np.float32)
NEAR = (CENTRES[RANDOM.integers(0, 3, 40)] * 0.5 + RANDOM.normal(size=(40, 6))).astype(np.float32)
FAR = (RANDOM.normal(size=(50, 6)) * 3).astype(np.float32)
HEAD = (CENTRES.astype(np.float32), (-0.5 * (CENTRES**2).sum(1)).astype(np.float32))
SETS: dict[str, Any] = {"train": (TRAIN, LABELS), "test": (TEST, TEST_LABELS), "ood": {"far": FAR, "close": NEAR}}
FILE = {
    "train/features": TRAIN, "train/labels": LABELS, "test/features": TEST, "test/labels": TEST_LABELS,
    "near/close/features": NEAR, "far/far/features": FAR, "head/weight": HEAD[0], "head/bias": HEAD[1],
}  # fmt: skip


def value(results: ood_lab.Results, scorer: str, ood_set: str, metric: str = "auroc") -> float:
    frame = results.frame()
    mine = frame[(frame.scorer == scorer) & (frame.ood_set == ood_set) & (frame.metric == metric)]
    return float(mine["value"].item())


def test_the_numbers_are_those_of_the_detector_and_of_scikit_learn() -> None:
    results = ood_lab.evaluate(**SETS, head=HEAD, near=["close"], scorer={"knn": {"k": 5}, "energy": {}})
    logits = TEST @ HEAD[0].T + HEAD[1]
    assert results.rows[0]["value"] == pytest.approx((logits.argmax(1) == TEST_LABELS).mean())
    import torch

    sets = [FeatureSet(torch.tensor(x), torch.tensor(x @ HEAD[0].T + HEAD[1])) for x in (TRAIN, TEST, NEAR)]
    knn = build_scorer("knn", k=5).fit(sets[0], head=LinearHead(*map(torch.tensor, HEAD)))
    ids, oods = knn.score(sets[1]).numpy(), knn.score(sets[2]).numpy()
    truth = np.r_[np.zeros(len(ids)), np.ones(len(oods))]
    assert value(results, "knn", "close") == pytest.approx(roc_auc_score(truth, np.r_[ids, oods]))
    for metric, expected in ood_metrics(ids, oods).items():
        assert value(results, "knn", "close", metric) == pytest.approx(expected)
    assert {row["group"] for row in results.rows if row["ood_set"] == "close"} == {"near"}
    assert {line.scorer for line in results.lines} == {"knn", "energy"}


def test_detectors_that_can_not_be_given_these_features_are_left_out_and_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = ood_lab.evaluate(TRAIN, TEST, {"far": FAR})
    assert {row["scorer"] for row in results.rows} == {"knn", "knn_penultimate"}
    assert "left out: mahalanobis, openmax, rmds, she (needs class labels of the training set)" in "\n".join(
        results.caption
    )
    assert "left out" in capsys.readouterr().err
    with pytest.raises(RequestError, match="scorer=msp needs logits, or a head that gives them"):
        ood_lab.evaluate(TRAIN, TEST, {"far": FAR}, scorer=["msp", "knn"])


@each(
    ("options", "words"),
    [
        ({"scorer": ["knnn"]}, "Did you mean 'knn'"),
        ({"scorer": {"knn": {"n": 5}}}, "has no option 'n'"),
        ({"scorer": {"knn": {"k": 0}}}, "k=0: expected"),
        ({"near": ["close", "clos"]}, "near=['clos']: no such OOD set"),
        ({"protocol": "classical"}, "no such protocol"),
        ({"id_rate": 1.5}, "id_rate=1.5"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError) as error:
        ood_lab.evaluate(**SETS, head=HEAD, **options)
    assert words in str(error.value)


def test_a_file_gives_the_same_numbers_and_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "mine.npz", **FILE)
    where = [f"features={tmp_path}/mine.npz", f"paths.output={tmp_path}/out"]
    assert main(["task=evaluate", *where, "scorer=[knn,energy,mcm]", "figure=[score_histogram,roc]"]) == 0
    (folder,) = (tmp_path / "out").iterdir()
    assert folder.name.startswith("features-mine-")
    stored = {(r["scorer"], r["ood_set"], r["metric"]): r["value"] for r in read_rows(folder)}
    results = ood_lab.evaluate(**SETS, head=HEAD, near=["close"], scorer=["knn", "energy", "mcm"])
    assert stored == {(r["scorer"], r["ood_set"], r["metric"]): r["value"] for r in results.rows}
    assert {row["scorer"] for row in read_thresholds(folder)} == {"knn", "energy", "mcm"}
    page = (folder / "report.html").read_text()
    assert page.count("<img") == 2 * 3
    assert (folder / "figures" / "roc.csv").is_file()
    out = capsys.readouterr().out
    assert "near: close; far: far" in out
    assert "given features" in out
    assert main(["task=evaluate", *where, "scorer=[knn,msp]", "figure=[]"]) == 0
    assert "1 of 2 detectors were scored before" in capsys.readouterr().out


def test_a_second_evaluation_reads_the_stored_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ood_lab.evaluate(**SETS, head=HEAD, scorer=["knn"], output=tmp_path / "out")
    monkeypatch.setattr("ood_lab.evaluation.scores.score", lambda *_: pytest.fail("scored again"))
    again = ood_lab.evaluate(**SETS, head=HEAD, scorer=["knn"], output=tmp_path / "out")
    assert again.rows == first.rows


def test_other_features_or_another_head_have_numbers_of_their_own(tmp_path: Path) -> None:
    sets: dict[str, Any] = {
        name: {"features": x, "logits": x @ HEAD[0].T + HEAD[1]} for name, x in (("train", TRAIN), ("test", TEST))
    }
    turned = (HEAD[0][:, ::-1].copy(), HEAD[1])
    for head in (HEAD, turned):
        for ood in (FAR, NEAR):
            given = {**sets, "ood": {"set": {"features": ood, "logits": ood @ HEAD[0].T + HEAD[1]}}, "head": head}
            kept = ood_lab.evaluate(**given, scorer=["react", "mcm"], output=tmp_path)
            assert kept.rows == ood_lab.evaluate(**given, scorer=["react", "mcm"]).rows
            assert ood_lab.load_results(kept.run_dir).rows == kept.rows
    assert len(list(tmp_path.iterdir())) == 4


@each(
    ("arguments", "words"),
    [
        (["task=evaluate", "features=nowhere.npz"], "features=nowhere.npz: no such file"),
        (["task=evaluate", "features=FILE.txt"], "expected a file ending in .npz or .safetensors"),
        (["features=FILE.npz"], "features=FILE goes with task=evaluate"),
        (["task=evaluate", "features=FILE.npz", "method=ce"], "'method=ce' has no effect when features are given"),
        (["task=evaluate", "features=FILE.npz", "protocol.near=[x]"], "called near/NAME"),
        (["task=evaluate", "features=FILE.npz", "scorer=[knnn]"], "Did you mean 'knn'"),
        (["task=evaluate", "features=FILE.npz", "scorer.knn.kk=3"], "has no 'kk'"),
        (["-m", "task=evaluate", "features=FILE.npz", "scorer.knn.k=3,4"], "leave -m out"),
        (["task=evaluate", "features=FILE.npz", "dry_run=true"], "dry_run=true is about runs"),
        (["task=evaluate", "features=FILE.npz", "scorer=[knn,odin]"], "scorer=odin looks at changed images"),
    ],
)
def test_a_wrong_command_is_refused(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "FILE.npz", **FILE)
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


def test_embeddings_of_an_image_text_model_are_matched_with_concepts() -> None:
    import torch
    from transformers import CLIPConfig, CLIPModel

    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    texts = {**small, "vocab_size": 40, "max_position_embeddings": 8, "eos_token_id": 39, "bos_token_id": 38}
    images = {**small, "image_size": 16, "patch_size": 8}
    torch.manual_seed(0)
    clip = CLIPModel(CLIPConfig(text_config=texts, vision_config=images, projection_dim=12)).eval()

    def pooled(found: Any) -> torch.Tensor:  # a tensor, or since transformers 5 an output that holds one
        return found if isinstance(found, torch.Tensor) else found.pooler_output

    with torch.inference_mode():
        concepts = pooled(clip.get_text_features(input_ids=torch.randint(0, 38, (3, 6))))
        sets = [pooled(clip.get_image_features(pixel_values=torch.randn(n, 3, 16, 16))) for n in (20, 10, 8)]
    results = ood_lab.evaluate(sets[0], sets[1], {"far": sets[2]}, head=concepts, scorer=["mcm", "knn"])
    expected = []
    for embeddings in sets[1:]:
        cosines = torch.nn.functional.cosine_similarity(embeddings[:, None].double(), concepts[None].double(), dim=2)
        expected.append(1 - cosines.softmax(1).amax(1).numpy())
    truth = np.r_[np.zeros(10), np.ones(8)]
    assert value(results, "mcm", "far") == pytest.approx(roc_auc_score(truth, np.concatenate(expected)))

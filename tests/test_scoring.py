"""The whole way of detectors beyond the default: own passes, searches, intervals, peers, export, other precision."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ood_lab
from ood_lab.config import RequestError, RunError
from ood_lab.config.groups import groups
from ood_lab.config.image_sets import image_set_config
from ood_lab.evaluation.extract import about, load_features
from ood_lab.evaluation.metrics import ood_metrics
from ood_lab.results.store import Results, read_thresholds
from ood_lab.scorer import build_scorer
from ood_lab.task.build import build
from tests.cases import each

RUN = [
    "method=ce", "backbone.width=4", "trainer.max_epochs=2", "trainer.threads=1", "figure=[roc]", "scorer=[msp]",
]  # fmt: skip


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a small classifier has been trained."""
    folder = tmp_path_factory.mktemp("outputs")
    ood_lab.run([*RUN, f"paths.output={folder}"])
    return folder


def scored(output: Path, *more: str) -> Results:
    return ood_lab.run([*RUN, f"paths.output={output}", "task=evaluate", *more])


def rows(results: Results, **wanted: Any) -> list[dict[str, Any]]:
    return [row for row in results.rows if all(row[k] == v for k, v in wanted.items())]


def forbid_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("the network was built")

    monkeypatch.setattr("ood_lab.task.features.trained_method", never)


def test_every_detector_from_saved_features_needs_no_network(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        forbid_the_network(patched)
        others = ("odin", "attacked", "absent_class", "csi", "csi_joint", "godin", "pood", "weighted_energy")
        names = [n for n in groups()["scorer"] if n not in others]
        results = scored(output, f"scorer=[{','.join(names)}]")
    assert {row["scorer"] for row in rows(results, metric="auroc")} >= set(names)
    scored(output, "scorer=[odin]")
    forbid_the_network(monkeypatch)
    scored(output, "scorer=all")


def test_odin_sees_changed_images_of_every_set_but_train(output: Path) -> None:
    results = scored(output, "scorer=[odin]", "scorer.odin.epsilon=0.003")
    files = [p for p in results.run_dir.glob("features/odin/*") if "epsilon=0.003" in about(p)["change"]]
    assert {p.name.rpartition("-")[0] for p in files} == {"val", "test", "letters", "photos", "gaussian_noise"}
    path = next(p for p in files if p.name.startswith("letters"))
    plain = load_features(next(results.run_dir.glob("features/letters-*")))
    changed = load_features(path).tensors["logits"]

    def surest(logits: torch.Tensor) -> torch.Tensor:
        return (logits / 1000).log_softmax(1).amax(1)

    assert (surest(changed) > surest(plain.tensors["logits"])).double().mean() > 0.95


def test_without_a_step_odin_needs_no_pass(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_the_network(monkeypatch)
    results = scored(output, "scorer=[odin]", "scorer.odin.epsilon=0")
    assert rows(results, scorer="odin", metric="auroc")


@each("scorer", ["odin", "gradnorm"])
def test_a_loaded_detector_changes_images_as_the_evaluation_did(output: Path, scorer: str) -> None:
    run = scored(output, f"scorer=[{scorer}]").run_dir
    letters = build(image_set_config("letters", "unused")).listing("ood")
    detector = ood_lab.load_detector(run, scorer)
    scores = detector.score([letters.image(i) for i in range(30)])
    folder = run / "features" / (scorer if scorer == "odin" else "")
    files = [p for p in folder.glob("letters-*") if scorer != "odin" or "epsilon=0.0014" in about(p)["change"]]
    expected = build_scorer(scorer).score(load_features(files[0]).features("method"))[:30].double()
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-4)
    limits = [r["threshold"] for r in read_thresholds(run) if r["scorer"] == scorer and "0.003" not in r["options"]]
    assert detector.threshold in [pytest.approx(limit) for limit in limits]


def test_the_threshold_follows_the_asked_rate(output: Path) -> None:
    for rate in (0.8, 0.95):
        results = scored(output, f"id_rate={rate}")
    kept = {r["id_rate"]: r for r in read_thresholds(results.run_dir) if r["scorer"] == "msp" and r["n_id"] == 150}
    assert kept[0.8]["threshold"] < kept[0.95]["threshold"]
    values = build_scorer("msp").score(load_features(next(results.run_dir.glob("features/val-*"))).features("method"))
    assert int((values <= kept[0.8]["threshold"]).sum()) == pytest.approx(120, abs=1)


def test_a_search_is_kept_beside_the_run_and_not_made_twice(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["scorer=[knn,msp]", "tuning=openood", "tuning.grids.knn.k=[1,5,50]"]
    results = scored(output, *asked)
    (path,) = results.run_dir.glob("tuning/knn-*.json")
    kept = json.loads(path.read_text())
    assert [trial["options"]["k"] for trial in kept["trials"]] == [1, 5, 50]
    assert kept["sets"] == ["uniform_noise"]
    assert kept["grid"] == {"k": [1, 5, 50]}
    tuned = [row for row in rows(results, scorer="knn", metric="auroc") if row["tuned"]]
    assert {row["tuned"]["k"] for row in tuned} == {kept["chosen"]["k"]}
    aurocs = [trial["auroc"] for trial in kept["trials"]]
    assert kept["chosen"] == kept["trials"][aurocs.index(max(aurocs))]["options"]
    assert not [row for row in rows(results, scorer="msp") if row["tuned"]]
    monkeypatch.setattr("ood_lab.task.tuning.search", None)
    (results.run_dir / "results.jsonl").rename(output / "aside.jsonl")
    again = scored(output, *asked)
    assert {row["tuned"]["k"] for row in rows(again, scorer="knn", metric="auroc")} == {kept["chosen"]["k"]}
    (output / "aside.jsonl").rename(results.run_dir / "results.jsonl")


def test_a_tuned_detector_has_a_star_and_the_caption_says_on_what(output: Path, capsys: Any) -> None:
    scored(output, "scorer=[knn,msp]", "tuning=openood", "tuning.grids.knn.k=[2]")
    shown = capsys.readouterr().out
    assert "knn *" in shown
    assert "* tuned by AUROC of ID validation images against uniform_noise: knn (ce) k=2" in shown
    assert "msp *" not in shown


def test_intervals_are_stored_with_each_metric(output: Path) -> None:
    results = scored(output, "bootstrap=40")
    found = [row for row in rows(results, scorer="msp") if "bootstrap=40" in row["convention"] and row["ood_set"]]
    assert len(found) == 15
    assert all(row["low"] <= row["high"] for row in found)
    assert "[" in (results.run_dir / "report.html").read_text().partition("Each set")[2]


def test_peers_score_beside_ours(output: Path) -> None:
    results = scored(output, "scorer=[knn,pood]", "scorer.knn.k=7", "scorer.pood.detectors=[KNN,MaxSoftmax]",
                     "scorer.pood.options.KNN={k: 7}")  # fmt: skip
    ours = {
        row["ood_set"]: row["value"]
        for row in rows(results, scorer="knn", metric="auroc")
        if '"k": 7' in row["options"]
    }
    theirs = {row["ood_set"]: row["value"] for row in rows(results, scorer="pood.KNN", metric="auroc")}
    assert theirs == pytest.approx(ours, abs=1e-4)


def test_the_export_is_what_openood_would_have_kept(output: Path) -> None:
    results = scored(output, "scorer=[energy]")
    ood_lab.run([*RUN, f"paths.output={output}", "task=export", "scorer=[energy]"])
    content = pickle.loads((results.run_dir / "openood/s0/scores/ebo.pkl").read_bytes())
    confidence = content["id"]["test"][1]
    letters = content["ood"]["near"]["letters"][1]
    (row,) = rows(results, scorer="energy", metric="auroc", ood_set="letters", tuned=None)
    assert ood_metrics(-confidence, -letters)["auroc"] == pytest.approx(row["value"])
    predicted, _, labels = content["id"]["test"]
    (accuracy,) = {r["value"] for r in rows(results, metric="accuracy")}
    assert np.mean(predicted == labels) == pytest.approx(accuracy)
    with pytest.raises(RequestError, match=r"react has no scores of .* run the same command with task=evaluate first"):
        ood_lab.run([*RUN, f"paths.output={output}", "task=export", "scorer=[react]", "scorer.react.percentile=12"])


def test_bfloat16_features_are_other_features_of_half_the_size(output: Path) -> None:
    results = scored(output, "trainer.eval_precision=bf16-mixed")
    files = sorted(results.run_dir.glob("features/test-*"), key=lambda p: p.stat().st_size)
    assert load_features(files[0]).tensors["features"].dtype is torch.bfloat16
    values = {
        precision: next(r["value"] for r in rows(results, scorer="msp", metric="auroc", ood_set="letters")
                        if f"precision={precision}" in r["convention"] and "bootstrap=0" in r["convention"])
        for precision in ("32-true", "bf16-mixed")
    }  # fmt: skip
    assert values["bf16-mixed"] == pytest.approx(values["32-true"], abs=0.02)


def test_without_images_kept_for_validation_there_is_no_such_part(tmp_path: Path) -> None:
    results = ood_lab.run([*RUN, f"paths.output={tmp_path}", "protocol.id_val=0", "scorer=[kl_matching]"])
    assert not list(results.run_dir.glob("features/val-*"))
    (row,) = read_thresholds(results.run_dir)
    tests = load_features(next(results.run_dir.glob("features/test-*"))).tensors["labels"]
    assert row["n_id"] == len(tests)
    assert ood_lab.load_detector(results.run_dir, "kl_matching").threshold == pytest.approx(row["threshold"])


def test_a_detector_that_refuses_the_features_fails_the_run_after_the_others_are_stored(output: Path) -> None:
    asked = ["scorer=[vim,she]", "scorer.vim.dim=4000"]
    with pytest.raises(RunError, match=r"scorer=vim: ViM: dim=4000 leaves nothing .* The other detectors are stored"):
        scored(output, *asked)
    assert rows(scored(output, "scorer=[she]"), scorer="she", metric="auroc")


def test_a_loaded_detector_is_that_of_the_last_evaluation(output: Path) -> None:
    results = scored(output, "scorer=[knn]", "scorer.knn.k=9", "id_rate=0.9")
    row = [r for r in read_thresholds(results.run_dir) if r["scorer"] == "knn"][-1]
    assert ood_lab.load_detector(results.run_dir, "knn").threshold == pytest.approx(row["threshold"])
    scored(output, "scorer=[knn]", "tuning=openood", "tuning.grids.knn.k=[3]")
    tuned = [r for r in read_thresholds(results.run_dir) if r["scorer"] == "knn"][-1]
    assert tuned["tuned"] == {"k": 3}
    assert ood_lab.load_detector(results.run_dir, "knn").threshold == pytest.approx(tuned["threshold"])
    assert ood_lab.load_detector(results.run_dir, "knn", k=3).threshold == pytest.approx(tuned["threshold"])
    assert ood_lab.load_detector(results.run_dir, "knn", k=50).threshold != pytest.approx(tuned["threshold"])


def test_a_peer_is_loaded_by_the_name_in_the_table(output: Path) -> None:
    results = scored(output, "scorer=[pood]", "scorer.pood.detectors=[GMM]")
    row = [r for r in read_thresholds(results.run_dir) if r["scorer"] == "pood.GMM"][-1]
    assert ood_lab.load_detector(results.run_dir, "pood.GMM").threshold == pytest.approx(row["threshold"])


def test_a_detector_of_bfloat16_features_runs_the_network_in_bfloat16(output: Path) -> None:
    run = scored(output, "scorer=[maxlogit]", "trainer.eval_precision=bf16-mixed").run_dir
    letters = build(image_set_config("letters", "unused")).listing("ood")
    images = [letters.image(i) for i in range(20)]
    reduced = ood_lab.load_detector(run, "maxlogit").score(images)
    assert torch.equal(reduced, reduced.to(torch.bfloat16).double())
    scored(output, "scorer=[maxlogit]", "id_rate=0.93")
    assert not torch.equal(ood_lab.load_detector(run, "maxlogit").score(images), reduced)


@each(
    ("scorer", "options", "message"),
    [
        ("csi", {}, "scorer=csi on .*: this network gives no shifts"),
        ("knn", {"space": "projection"}, "this network gives no projection; use space=penultimate or space=method"),
        (
            "odin",
            {"epsilon": 0.7},
            r"task=evaluate scorer=\[odin\] scorer.odin.temperature=1000.0 scorer.odin.epsilon=0.7",
        ),
    ],
)
def test_a_detector_that_the_run_cannot_feed_is_refused(
    output: Path, scorer: str, options: dict[str, Any], message: str
) -> None:
    run = scored(output, "scorer=[msp,odin]").run_dir
    with pytest.raises(RequestError, match=message):
        ood_lab.load_detector(run, scorer, **options)


def test_whatever_is_damaged_is_set_aside_and_made_again_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights from the last checkpoint, features and scores from those."""
    before = ood_lab.run([*RUN, f"paths.output={tmp_path}"])
    files = [
        before.run_dir / "checkpoints/final.safetensors",
        *(before.run_dir / "features").glob("photos-*.safetensors"),
        *(before.run_dir / "scores").glob("msp-*.safetensors"),
    ]
    bytes_before = [file.read_bytes() for file in files]
    for file, data in zip(files, bytes_before, strict=True):
        file.write_bytes(data[:100])
    (before.run_dir / "results.jsonl").unlink()
    with pytest.raises(RunError, match=r"final.safetensors can't be read .*; task=train makes it again"):
        scored(tmp_path)
    again = ood_lab.run([*RUN, f"paths.output={tmp_path}"])
    assert [file.read_bytes() for file in files] == bytes_before
    assert [row["value"] for row in again.rows] == [row["value"] for row in before.rows]
    assert capsys.readouterr().err.count("and made again") == 3
    assert all(file.with_name(f"{file.name}.damaged").is_file() for file in files)


def test_a_refused_detector_leaves_a_finished_run(tmp_path: Path) -> None:
    asked = ["scorer=[msp,vim]", "scorer.vim.dim=4000", f"paths.output={tmp_path}"]
    with pytest.raises(RunError, match="scorer=vim"):
        ood_lab.run([*RUN, *asked])
    (run,) = tmp_path.glob("ce-*")
    assert (run / "DONE").is_file()
    assert (run / "report.html").is_file()
    assert ood_lab.load_detector(run, "msp").threshold > 0


def test_what_a_peer_raises_is_named_and_the_others_are_stored(output: Path) -> None:
    asked = [
        "scorer=[gen,pood]",
        "scorer.gen.gamma=0.3",
        "scorer.pood.detectors=[KNN]",
        "scorer.pood.options.KNN={k: a}",
    ]
    with pytest.raises(RunError, match=r"scorer=pood.KNN: pood.KNN: \w+Error .* The other detectors are stored"):
        scored(output, *asked)
    assert rows(scored(output, "scorer=[gen]", "scorer.gen.gamma=0.3"), scorer="gen", metric="auroc")

"""Every detector on every set: what it is fitted on, what is kept, and that nothing is written into the features."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import pytest
import torch

from ood_lab.config.groups import groups
from ood_lab.evaluation import scores
from ood_lab.evaluation.evaluator import Scoring, accuracy, metric_rows, threshold
from ood_lab.evaluation.extract import Extracted
from ood_lab.evaluation.metrics import ood_metrics
from ood_lab.evaluation.scores import RunDetector, fit_key, load_scores, score, score_all, scores_path
from ood_lab.scorer import build_scorer
from ood_lab.scorer.base import Scorer
from ood_lab.types import FeatureSet, LinearHead
from tests.cases import each

HEAD = LinearHead(torch.rand(3, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(3))


OPTIONS = dict.fromkeys(("recorder", *groups()["scorer"]), "{}")


def sets() -> dict[str, Extracted]:
    draw = torch.Generator().manual_seed(1)
    sizes = {"train": 60, "val": 9, "test": 20, "letters": 15, "photos": 11}
    found = {}
    for name, rows in sizes.items():
        labels = torch.arange(rows) % 3 if name in ("train", "val", "test") else torch.full((rows,), -1)
        features = torch.randn(rows, 4, generator=draw) + labels.clamp(min=0)[:, None]
        projection = torch.nn.functional.normalize(torch.randn(rows, 6, generator=draw), dim=1)
        logits = features @ HEAD.weight.T
        tensors = {"features": features, "logits": logits, "labels": labels, "projection": projection}
        found[name] = Extracted(tensors, f"key of {name}")
    return found


class Kept:
    """Features in memory, the same for every detector."""

    def __init__(self) -> None:
        self.sets = sets()

    def of(self, name: str, scorer: Scorer | None = None) -> Extracted:
        return self.sets[name]


SCORED = ("val", "test", "letters", "photos")


class Recorder(Scorer):
    """Remembers what it was given."""

    space = "projection"

    def __init__(self) -> None:
        self.fitted: list[Any] = []
        self.scored: list[FeatureSet] = []

    def fit(self, train: FeatureSet, head: LinearHead | None = None, val: FeatureSet | None = None) -> Self:
        self.fitted.append((train, head, val))
        return self

    def score(self, data: FeatureSet) -> torch.Tensor:
        self.scored.append(data)
        return data.features[:, 0]


def test_a_detector_is_fitted_once_on_train_and_scores_every_other_set_in_its_space(tmp_path: Path) -> None:
    recorder, data = Recorder(), sets()
    scored, _ = score_all([RunDetector("recorder", recorder, "{}", "{}")], Kept(), SCORED, HEAD, tmp_path)
    ((train, head, val),) = recorder.fitted
    assert torch.equal(train.features, data["train"].tensors["projection"])
    assert torch.equal(val.features, data["val"].tensors["projection"])
    assert head is HEAD
    assert tuple(scored["recorder"]) == SCORED
    assert recorder.scored[2].labels is None
    for name, values in scored["recorder"].items():
        assert values.dtype == torch.float64
        assert torch.equal(values, data[name].tensors["projection"][:, 0].double())


def test_scores_are_kept_beside_the_run_under_the_keys_of_their_features(tmp_path: Path) -> None:
    scorers = {"msp": build_scorer("msp"), "knn": build_scorer("knn", k=3)}
    detectors = [RunDetector(name, scorer, "{}", "{}") for name, scorer in scorers.items()]
    scored, _ = score_all(detectors, Kept(), SCORED, HEAD, tmp_path)
    keys = {name: f"key of {name}" for name in SCORED}
    for name in ("msp", "knn"):
        assert scores_path(tmp_path, name, "{}") != scores_path(tmp_path, name, '{"k": 3}')
        kept = load_scores(tmp_path, name, "{}", keys, "{}")
        assert kept.keys() == scored[name].keys()
        assert all(torch.equal(kept[k], scored[name][k]) for k in kept)
        assert load_scores(tmp_path, name, "{}", {"letters": "of other images"}, "{}") == {}


def test_scores_of_another_fit_are_not_mixed_in(tmp_path: Path) -> None:
    """One run, two protocols: with a validation part and without. The OOD sets are the same images."""
    scorer, source = build_scorer("kl_matching"), Kept()
    keys = {name: source.of(name).key for name in ("test", "letters")}
    fits = {with_val: fit_key("t", "v" if with_val else None, None) for with_val in (True, False)}
    scored = {}
    for with_val in (True, False):
        names = ("val", "test", "letters") if with_val else ("test", "letters")
        one = [RunDetector("kl_matching", scorer, "{}", fits[with_val])]
        scored[with_val], _ = score_all(one, source, names, HEAD, tmp_path)
    for with_val in (True, False):
        kept = load_scores(tmp_path, "kl_matching", "{}", keys, fits[with_val])
        assert all(torch.equal(kept[key], scored[with_val]["kl_matching"][key]) for key in keys)
    assert not torch.equal(scored[True]["kl_matching"]["letters"], scored[False]["kl_matching"]["letters"])
    others = [("t", "v", {"k": 1}), ("u", "v", None), ("t", None, None)]
    assert len({fit_key("t", "v", None), *(fit_key(*parts) for parts in others)}) == 4


def test_scores_do_not_depend_on_the_parts_they_are_computed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    data = sets()
    scorer = build_scorer("knn", k=3).fit(data["train"].features("method"), head=HEAD)
    whole = score(scorer, data["test"].features("method"))
    monkeypatch.setattr(scores, "CHUNK", 7)
    torch.testing.assert_close(score(scorer, data["test"].features("method")), whole)
    assert whole.dtype == torch.float64


def test_without_a_validation_part_a_detector_is_fitted_on_train_alone(tmp_path: Path) -> None:
    recorder = Recorder()
    score_all([RunDetector("recorder", recorder, "{}", "{}")], Kept(), ("test", "letters"), HEAD, tmp_path)
    assert recorder.fitted[0][2] is None


def test_a_detector_that_cannot_work_on_the_features_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    source = Kept()
    source.sets["letters"].tensors["projection"][4] = float("inf")
    scorers = {"knn": build_scorer("knn", space="projection"), "msp": build_scorer("msp")}
    detectors = [RunDetector(name, scorer, "{}", "f") for name, scorer in scorers.items()]
    scored, refused = score_all(detectors, source, SCORED, HEAD, tmp_path)
    assert list(scored) == ["msp"]
    assert refused == {
        "knn": "KNN: the set to score: the features of 1 of 15 rows aren't finite, row 4 first; "
        "the network has diverged, or overflows in reduced precision"
    }
    assert [p.name.partition("-")[0] for p in (tmp_path / "scores").iterdir()] == ["msp"]


@each("rows", [1, 3, 10, 20, 101])
@each("rate", [0.05, 0.5, 0.95, 0.99])
def test_the_threshold_is_the_lowest_score_that_reaches_the_rate(rows: int, rate: float) -> None:
    scores = torch.randn(rows, generator=torch.Generator().manual_seed(rows)).double()
    limit, _ = threshold({"test": scores}, rate)
    assert (scores <= limit).double().mean() >= rate
    assert (scores < limit).double().mean() < rate


def test_infinite_scores_leave_the_threshold_a_number() -> None:
    inf = float("inf")
    assert threshold({"test": torch.tensor([-inf, -inf, 1.0, 2.0])}, 0.2)[0] == -inf
    assert threshold({"test": torch.tensor([0.0, 1.0, inf, inf])}, 0.5)[0] == 1.0


def test_the_threshold_lets_the_asked_share_of_validation_images_pass() -> None:
    draw = torch.Generator().manual_seed(0)
    scores = {"val": torch.rand(1000, generator=draw).double(), "test": torch.rand(500, generator=draw).double() + 5}
    limit, images = threshold(scores, 0.9)
    assert images == 1000
    assert int((scores["val"] <= limit).sum()) == 900
    limit, images = threshold({"test": scores["test"]}, 0.9)
    assert (images, int((scores["test"] <= limit).sum())) == (500, 450)


def test_metric_rows_hold_one_row_per_set_and_metric() -> None:
    draw = torch.Generator().manual_seed(3)
    scores = {name: torch.rand(n, generator=draw).double() for name, n in (("test", 30), ("a", 20), ("b", 10))}
    of_sets = {"a": {"group": "near", "n_expected": 20}, "b": {"group": "far", "n_expected": None}}
    rows = list(metric_rows(scores, of_sets, Scoring("nearest"), {"run_id": "r"}))
    for ood_set, own in of_sets.items():
        expected = ood_metrics(scores["test"].numpy(), scores[ood_set].numpy(), "nearest")
        mine = [row for row in rows if row["ood_set"] == ood_set]
        assert {row["metric"]: row["value"] for row in mine} == expected
        assert {(r["run_id"], r["group"], r["n_id"], r["n_ood"], r["unit"], r["n_expected"]) for r in mine} == {
            ("r", own["group"], 30, len(scores[ood_set]), "fraction", own["n_expected"])
        }
    assert len(rows) == 10


def test_intervals_come_with_the_rows_where_they_are_asked_for() -> None:
    draw = torch.Generator().manual_seed(3)
    scores = {"test": torch.randn(300, generator=draw).double(), "a": torch.randn(200, generator=draw).double() + 1}
    of_sets: dict[str, dict[str, Any]] = {"a": {}}
    plain = list(metric_rows(scores, of_sets, Scoring(), {}))
    assert {(row["low"], row["high"]) for row in plain} == {(None, None)}
    rows, again = (list(metric_rows(scores, of_sets, Scoring(bootstrap=200), {})) for _ in range(2))
    assert rows == again
    assert [row["value"] for row in rows] == [row["value"] for row in plain]
    assert all(row["low"] < row["value"] < row["high"] for row in rows)


def test_random_subsets_are_seeded_and_their_mean_is_near_the_whole() -> None:
    draw = torch.Generator().manual_seed(3)
    ids, oods = torch.randn(2000, generator=draw).double(), torch.randn(5000, generator=draw).double() + 1
    whole = Scoring().metrics("a", ids, oods)
    few, many = (Scoring(subset=500, draws=draws).metrics("a", ids, oods) for draws in (1, 40))
    assert few == Scoring(subset=500, draws=1).metrics("a", ids, oods)
    assert few != Scoring(subset=500, draws=1).metrics("b", ids, oods)
    assert few["auroc"] != whole["auroc"]
    assert many["auroc"] == pytest.approx(whole["auroc"], abs=0.004)
    assert Scoring(subset=5000).metrics("a", ids, oods) == whole
    assert Scoring(subset=9000).metrics("a", ids, oods) == whole


def test_a_draw_holds_so_many_different_images() -> None:
    ids, oods = torch.zeros(10).double(), torch.arange(1, 11).double()
    # Scores above every ID score: AUPR of the ID class is 1 whatever is drawn, and n enters AUPR of constant scores.
    metrics = Scoring(subset=4, draws=3).metrics("a", ids, -oods)
    expected = [ood_metrics(ids.numpy(), -oods.numpy()[:4], "first")["aupr_out"]]
    assert metrics["aupr_out"] == pytest.approx(expected[0])


def test_accuracy_is_the_share_of_right_rows() -> None:
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 2.0], [0.0, 5.0]])
    assert accuracy(Extracted({"logits": logits, "labels": torch.tensor([0, 1, 1, 1])})) == 0.75

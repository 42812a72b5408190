"""Every detector on every set: what it is fitted on, what is kept, and that nothing is written into the features."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import pytest
import torch

from ood_lab.config.compose import groups
from ood_lab.evaluation.evaluator import accuracy, load_scores, metric_rows, score_all, scores_path
from ood_lab.evaluation.extract import Extracted
from ood_lab.evaluation.metrics import ood_metrics
from ood_lab.scorer import build_scorer
from ood_lab.scorer.base import Scorer
from ood_lab.types import FeatureSet, LinearHead

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
        found[name] = Extracted({"features": features, "logits": logits, "labels": labels, "projection": projection})
    return found


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
    scored = score_all({"recorder": recorder}, data, HEAD, tmp_path, OPTIONS)
    ((train, head, val),) = recorder.fitted
    assert torch.equal(train.features, data["train"].tensors["projection"])
    assert torch.equal(val.features, data["val"].tensors["projection"])
    assert head is HEAD
    assert list(scored["recorder"]) == ["test", "letters", "photos"]
    assert recorder.scored[1].labels is None
    for name, scores in scored["recorder"].items():
        assert scores.dtype == torch.float64
        assert torch.equal(scores, data[name].tensors["projection"][:, 0].double())


def test_scores_are_kept_beside_the_run(tmp_path: Path) -> None:
    scored = score_all({"msp": build_scorer("msp"), "knn": build_scorer("knn", k=3)}, sets(), HEAD, tmp_path, OPTIONS)
    for name in ("msp", "knn"):
        assert scores_path(tmp_path, name, "{}") != scores_path(tmp_path, name, '{"k": 3}')
        kept = load_scores(tmp_path, name, "{}")
        assert kept.keys() == scored[name].keys()
        assert all(torch.equal(kept[k], scored[name][k]) for k in kept)


@pytest.mark.parametrize("name", groups()["scorer"])
def test_no_detector_writes_into_the_features(name: str, tmp_path: Path) -> None:
    data = sets()
    before = {k: {t: v.clone() for t, v in s.tensors.items()} for k, s in data.items()}
    score_all({name: build_scorer(name)}, data, HEAD, tmp_path, OPTIONS)
    for key, extracted in data.items():
        assert all(torch.equal(v, before[key][t]) for t, v in extracted.tensors.items())


@pytest.mark.parametrize("name", groups()["scorer"])
def test_a_row_has_the_same_score_alone_and_among_others(name: str) -> None:
    data = sets()
    scorer = build_scorer(name)
    scorer.fit(data["train"].features(scorer.space), head=HEAD)
    view = data["test"].features(scorer.space)
    alone = torch.cat([scorer.score(FeatureSet(view.features[i : i + 1], view.logits[i : i + 1])) for i in range(20)])
    torch.testing.assert_close(scorer.score(view), alone, atol=1e-5, rtol=1e-5)
    assert alone.shape == (20,)


def test_metric_rows_hold_one_row_per_set_and_metric() -> None:
    draw = torch.Generator().manual_seed(3)
    scores = {name: torch.rand(n, generator=draw).double() for name, n in (("test", 30), ("a", 20), ("b", 10))}
    rows = list(metric_rows(scores, {"a": "near", "b": "far"}, "nearest", {"run_id": "r"}))
    for ood_set, group in (("a", "near"), ("b", "far")):
        expected = ood_metrics(scores["test"].numpy(), scores[ood_set].numpy(), "nearest")
        mine = [row for row in rows if row["ood_set"] == ood_set]
        assert {row["metric"]: row["value"] for row in mine} == expected
        assert {(r["run_id"], r["group"], r["n_id"], r["n_ood"], r["unit"], r["convention"]) for r in mine} == {
            ("r", group, 30, len(scores[ood_set]), "fraction", "fpr_rule=nearest")
        }
    assert len(rows) == 10


def test_accuracy_is_the_share_of_right_rows() -> None:
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 2.0], [0.0, 5.0]])
    assert accuracy(Extracted({"logits": logits, "labels": torch.tensor([0, 1, 1, 1])})) == 0.75

"""The feature map keeps neighbourhoods and shows ID, OOD and synthesized features."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from ood_lab.errors import RunError
from ood_lab.figure.feature_map import FeatureMap, flatten
from tests.cases import each
from tests.figure.material import material


@each("projection", ["tsne", "pca"])
def test_three_tight_clusters_stay_apart_on_the_plane(projection: str) -> None:
    random = np.random.default_rng(0)
    centres = np.eye(3, 10) * 5
    points = np.concatenate([c + 0.1 * random.normal(size=(40, 10)) for c in centres])
    plane = flatten(points, projection, seed=0)
    labels = np.repeat(np.arange(3), 40)
    nearest = ((plane[:, None] - plane[None]) ** 2).sum(-1) + np.diag(np.full(120, np.inf))
    assert (labels[nearest.argmin(1)] == labels).all()


def test_pca_keeps_the_distances_of_points_on_a_plane() -> None:
    random = np.random.default_rng(0)
    flat = random.normal(size=(50, 2))
    basis = np.linalg.qr(random.normal(size=(8, 2)))[0]
    plane = flatten(flat @ basis.T + 3, "pca", seed=0)
    distances = np.linalg.norm(plane[:, None] - plane[None], axis=-1)
    np.testing.assert_allclose(distances, np.linalg.norm(flat[:, None] - flat[None], axis=-1), atol=1e-9)


def test_collapsed_features_are_one_point() -> None:
    assert not flatten(np.ones((60, 16), np.float32), "tsne", seed=0).any()


def test_outliers_are_shown_where_there_are_any() -> None:
    kind = FeatureMap(projection="pca", points=60, seed=0, beside=[])
    shown = kind.draw(material())
    assert shown is not None
    assert [t.get_text() for t in shown.legends[0].get_texts()] == [
        "ID: 0",
        "ID: 1",
        "ID: 2",
        "near",
        "far",
        "synthesized outliers",
    ]
    without = kind.draw(material(outliers=False))
    assert without is not None
    assert "synthesized outliers" not in [t.get_text() for t in without.legends[0].get_texts()]


def test_the_same_seed_draws_the_same_picture() -> None:
    kind = FeatureMap(projection="pca", points=60, seed=3, beside=[])
    first, second = kind.draw(material()), kind.draw(material())
    assert first is not None
    assert second is not None
    for one, other in zip(first.axes[0].collections, second.axes[0].collections, strict=True):
        np.testing.assert_array_equal(one.get_offsets(), other.get_offsets())


def test_runs_beside_it_have_panels_of_their_own() -> None:
    other = material().runs[-1]._replace(label="vos-digits")
    shown = material()
    figure = FeatureMap(projection="pca", points=60, seed=0, beside=["outputs/vos-digits"]).draw(
        shown._replace(runs=[shown.runs[0], other, shown.runs[-1]])
    )
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == ["vos-digits", "hamos (fine-tuned)"]
    assert len(figure.legends[0].get_texts()) == 6  # once for both


def test_outliers_of_any_length_are_drawn_among_unit_features() -> None:
    shown = material()
    run = shown.runs[-1]
    assert run.outliers is not None
    kind = FeatureMap(projection="pca", points=60, seed=0, beside=[])
    pictures = [kind.draw(shown._replace(runs=[run._replace(outliers=f * run.outliers)])) for f in (1, 9)]
    offsets = [np.concatenate([c.get_offsets() for c in p.axes[0].collections]) for p in pictures if p is not None]
    np.testing.assert_allclose(offsets[0], offsets[1], atol=1e-9)


def test_umap_is_asked_with_the_seed_and_its_absence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Fake:
        def __init__(self, **options: object) -> None:
            asked.append(options)

        def fit_transform(self, points: np.ndarray) -> np.ndarray:
            return points[:, :2]

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Fake))  # the real one compiles for half a minute
    points = np.arange(12.0).reshape(4, 3)
    np.testing.assert_array_equal(flatten(points, "umap", seed=5), points[:, :2])
    assert asked == [{"random_state": 5, "n_jobs": 1}]
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(RunError, match=r"pip install 'ood-lab\[umap\]'"):
        flatten(points, "umap", seed=5)

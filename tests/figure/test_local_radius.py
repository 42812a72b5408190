"""Curves of the local radius begin at the share of right verdicts and fall as a loop counts."""

from __future__ import annotations

import numpy as np
import pytest

from ood_lab.figure.base import values_of
from ood_lab.figure.local_radius import LocalRadius
from ood_lab.results.material import Material
from tests.figure.material import material

RADII = {"test": np.array([0.0, 0.5, 1.0, 1.5, np.inf]), "near": np.array([0.0, 0.0, 0.2, 0.4])}


def measured() -> Material:
    first, last = material().runs
    return material()._replace(runs=[first, last._replace(radii={"knn": RADII})])


def test_a_panel_for_the_detectors_whose_radii_are_measured() -> None:
    figure = LocalRadius(points=40).draw(measured())
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == ["knn", "knn"]
    assert not figure.axes[0].lines
    shown = {line.get_label(): np.asarray(line.get_xydata()) for line in figure.axes[1].lines}
    assert set(shown) == {"ID test", "near"}
    for label, key in (("ID test", "test"), ("near", "near")):
        for radius, share in shown[label]:
            assert share == pytest.approx(sum(value > radius for value in RADII[key]) / len(RADII[key]))
    assert shown["near"][0].tolist() == [0, 0.5]
    assert all(np.isfinite(row["x"]) for row in values_of(figure))


def test_nothing_is_drawn_where_nothing_is_measured() -> None:
    assert LocalRadius(points=40).draw(material()) is None


def test_radii_that_are_all_infinite_are_drawn_too() -> None:
    first, last = material().runs
    runs = [first, last._replace(radii={"knn": {"near": np.full(3, np.inf)}})]
    figure = LocalRadius(points=4).draw(material()._replace(runs=runs))
    assert figure is not None
    (line,) = figure.axes[1].lines
    assert line.get_ydata().tolist() == [1, 1, 1, 1]

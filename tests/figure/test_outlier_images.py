"""Pictures of outlier images and their energies: what is drawn of what was measured."""

from __future__ import annotations

import numpy as np

from ood_lab.figure.base import values_of
from ood_lab.figure.outlier_images import OutlierImages
from ood_lab.results.material import Material
from tests.cases import each
from tests.figure.material import material


def measured(strengths: int, asked: bool) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {
        "pictures": draw.integers(0, 256, (strengths, 8, 5, 5, 3), dtype=np.uint8),
        "energies": draw.normal(size=(strengths, 8)),
        "strengths": np.linspace(0, 1, strengths),
        "energy/id": draw.normal(size=50) - 3,
        "energy/before": draw.normal(size=40),
        "energy/after": draw.normal(size=40) - 2,
        "named": np.arange(40) % 4,
        "asked": np.where(np.arange(40) < 30, np.arange(40) % 4, 0) if asked else np.full(40, -1),
        "distance": np.array([2.5]),
        "distance/id": np.array([0.25]),
    }


def given(strengths: int = 3, asked: bool = True) -> Material:
    first, last = material().runs
    return material()._replace(runs=[first, last._replace(outlier_images=lambda: measured(strengths, asked))])


@each(("strengths", "columns"), [(3, 8), (3, 4), (1, 8)])
def test_a_row_for_each_strength_with_its_energies(strengths: int, columns: int) -> None:
    figure = OutlierImages(columns=columns, bins=20).draw(given(strengths))
    assert figure is not None
    pictures, found = figure.axes[:-1], measured(strengths, True)
    assert len(pictures) == strengths * columns
    assert [axes.get_ylabel() for axes in pictures[::columns]] == [f"{s:g}" for s in found["strengths"]]
    for number, axes in enumerate(pictures):
        row, column = divmod(number, columns)
        assert np.array_equal(axes.images[0].get_array(), found["pictures"][row, column])
        assert axes.get_title() == f"{found['energies'][row, column]:.1f}"
    drawn = {text.get_text() for text in figure.axes[-1].get_legend().get_texts()}
    assert drawn == {"ID test", "outliers"} | ({"outliers, changed"} if strengths > 1 else set())
    assert values_of(figure), "the histograms are data, too"


@each(("asked", "said"), [(True, "80.0 % of 40 are named as the class asked for"), (False, "feature distance 2.5;")])
def test_what_the_network_says_of_them_stands_below(asked: bool, said: str) -> None:
    figure = OutlierImages(columns=8, bins=20).draw(given(asked=asked))
    assert figure is not None
    text = figure.axes[-1].get_xlabel()
    assert said in text
    assert ("named" in text) == asked


def test_a_run_without_outlier_images_has_no_picture() -> None:
    assert OutlierImages(columns=8, bins=20).draw(material()) is None


def test_energies_that_are_all_equal_are_drawn() -> None:
    found = {**measured(1, False), **{f"energy/{k}": np.zeros(9) for k in ("id", "before", "after")}}
    first, last = material().runs
    figure = OutlierImages(columns=2, bins=5).draw(
        material()._replace(runs=[first, last._replace(outlier_images=lambda: found)])
    )
    assert figure is not None
    assert figure.axes[-1].patches

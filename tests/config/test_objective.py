"""What a run says that it minimises, and the tables made of it."""

from __future__ import annotations

from pathlib import Path

from ood_lab.config import Experiment, compose
from ood_lab.config.objective import described, method_table, objective, part_columns
from tests.cases import each

README = Path(__file__).parents[2] / "README.md"
HMC = "hmc, bank of 200 a class"
IMAGES = ("method=oe", "auxiliary=fractals", "paths.data=x")


def composed(*overrides: str) -> Experiment:
    """The experiment of a command line, not checked."""
    found = compose(overrides)
    return Experiment.of(found.whole, found.choices)


@each(
    ("overrides", "said"),
    [
        (["method=ce"], "ce"),
        (["method=cider"], "ce + 0.5 compactness + dispersion"),
        ([], f"ce + 0.5 compactness + dispersion + 0.1 equidistant({HMC})"),
        (["id_loss=[cider]", "id_loss.cider.weight=2"], f"compactness + 2 dispersion + 0.1 equidistant({HMC})"),
        (["outlier_loss.weight=0"], "ce + 0.5 compactness + dispersion"),
        (["id_loss=[ce]", "outlier_loss.start=0.5"], f"ce + 0.1 equidistant({HMC}; from 50 % of the run)"),
        (["id_loss.cider.start=2", "outlier_loss=logistic", "synthesizer=random_sphere", "outlier_loss.end=5"],
         "ce + (0.5 compactness + dispersion; from epoch 2) + 0.1 logistic(random_sphere; to epoch 5)"),
        (["method=hamos_released"],
         f"ce + 1.429 compactness + 0.5 dispersion + 0.1429 released(no outliers, but waits for {HMC})"),
        (IMAGES, "ce + 0.5 outlier_exposure(images of fractals)"),
        ([*IMAGES, "regularizer=[gradient_norm]"], "ce + 0.5 outlier_exposure(images of fractals)"),
        ([*IMAGES, "selector=random", "perturbation=gaussian_noise", "regularizer=[gradient]"],
         "ce + 0.5 outlier_exposure(images of fractals, random, gaussian_noise) + "
         "gradient(images of fractals, random, gaussian_noise)"),
    ],
)  # fmt: skip
def test_the_sentence_has_weights_sources_and_schedules(overrides: list[str], said: str) -> None:
    assert objective(composed(*overrides)) == said


def test_the_columns_tell_combinations_apart() -> None:
    columns = part_columns(composed("synthesizer=midpoints"))
    assert columns["id_loss"] == "ce+cider"
    assert (columns["synthesizer"], columns["outlier_loss"], columns["head"]) == ("midpoints", "equidistant", "linear")
    assert columns["auxiliary"] is columns["selector"] is columns["regularizer"] is None


def test_the_help_of_a_method_has_its_equation_its_parts_and_their_values() -> None:
    shown = described(composed("method=hamos", "outlier_loss.weight=0.3"))
    assert "L = CE + 0.5 L_comp + L_disp + 0.1 L_OOD-disc(outliers)" in shown
    assert "outlier_loss=equidistant  ood_lab.outlier_loss.equidistant.Equidistant" in shown
    assert "weight=0.3" in shown
    assert "HamOS, Algorithm 1" in shown


def test_the_readmes_table_is_that_of_the_recipes() -> None:
    assert method_table() in README.read_text(), (
        "write what ood_lab.config.objective.method_table() gives into README.md"
    )

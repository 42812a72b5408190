"""At tiny scale a row with outliers does train with outliers."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from safetensors.torch import load_file

from ood_lab.config import prepare
from ood_lab.config.groups import groups
from ood_lab.runs.claim import claim
from ood_lab.runs.run_folder import RunFolder
from ood_lab.tables.adapt import adapt, load_scale
from ood_lab.tables.plan import jobs_of
from ood_lab.tables.spec import load_table, table_names
from ood_lab.task.train import fit
from tests.cases import each

TINY = load_scale("tiny")
SMALL = ["backbone.width=4", "init=random", "figure=[]", "trainer.max_epochs=2"]
QUICK = ["trainer.max_epochs=1", "dataset.recipe.bank_size=20", "dataset.recipe.neighbor=5"]  # filled in three steps
WITH_OUTLIERS = [
    f"method={name}"
    for name in (
        "hamos", "vos", "npos", "ronf", "oe", "energy", "greg", "greg_plus", "poem", "dos", "openmix", "mixoe", "aoe",
        "oe_noise", "ares", "gan", "bood", "dreamood",
    )
]  # fmt: skip
SMALL_QUEUE = ["synthesizer.queue_size=150", "synthesizer.pool=200", "synthesizer.take=30"]
SHAPING = ("method", "id_loss", "synthesizer", "auxiliary", "selector", "perturbation", "outlier_loss", "regularizer")
START = "outlier_loss.start"


def is_there(override: str) -> bool:
    """Whether the parts that an override chooses are there yet."""
    group, _, names = override.partition("=")
    known = [*groups().get(group, ()), "null"]
    return group == START or all(name in known for name in names.strip("[]").split(","))


@cache
def rows_with_outliers() -> dict[str, tuple[str, ...]]:
    """One command line for each combination of parts that some table trains with outliers; late starts count once."""
    found: dict[str, tuple[str, ...]] = {}
    for name in table_names():
        for job in jobs_of(adapt(load_table(name), TINY)):
            overrides = [override for override in job.changes if override.partition("=")[0] in (*SHAPING, START)]
            if any(override in WITH_OUTLIERS for override in overrides) and all(
                is_there(override) for override in overrides
            ):
                found.setdefault(
                    " ".join(sorted(START if START in override else override for override in overrides)), job.changes
                )
    return found


def test_the_tables_have_such_rows() -> None:
    chosen = {override for row in rows_with_outliers() for override in row.split()}
    assert {*WITH_OUTLIERS, "synthesizer=rmhmc", "regularizer=[gradient]", START} <= chosen


@each("row", rows_with_outliers)
def test_at_tiny_scale_it_makes_steps_with_outliers_that_train_the_network(row: str, tmp_path: Path) -> None:
    own = [override.partition("=")[0] for override in SMALL]
    kept = [override for override in rows_with_outliers()[row] if override.partition("=")[0] not in own]
    quick = [] if row == "method=hamos" else QUICK  # that row with the scale's own bank
    few = ["auxiliary.count=60", "trainer.auxiliary_batch_size=32"] if "auxiliary=fractals" in row else []
    if any(override.startswith("trainer.auxiliary_images") for override in kept):
        few.append("trainer.auxiliary_images=40")
    if "auxiliary=biggan" in row:  # whose images are made by other runs
        few = ["auxiliary=fractals", "auxiliary.count=60", "auxiliary.native_side=16", "trainer.auxiliary_images=40"]
        kept = [override for override in kept if not override.startswith("auxiliary")]
    if {"method=bood", "method=dreamood"} & set(row.split()):  # a chain of runs makes their images
        few = ["auxiliary=fractals", "auxiliary.count=60", "auxiliary.native_side=16"]
        kept = [text for text in kept if not text.startswith(("decoder", "generator", "outliers"))]
    if "method=ares" in row:  # its pictures are made by another run, which is not the matter here
        few = ["pictures=fractals", "pictures.count=20", "pictures.native_side=16", *SMALL_QUEUE]
        kept = [override for override in kept if not override.startswith("pictures")]
    experiment = prepare([*kept, *SMALL, *quick, *few, f"paths.output={tmp_path}"])
    fit(claim(experiment))
    weights = load_file(RunFolder(experiment.run_dir).weights)
    assert weights["outlier_steps"] >= 1
    assert weights["outlier_gradient"] > 0

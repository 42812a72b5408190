"""At tiny scale a row with outliers does train with outliers, as its stored rows say."""

from __future__ import annotations

from pathlib import Path

import pytest

import ood_lab
from ood_lab.config import OodLabError, prepare
from ood_lab.config.objective import part_columns
from ood_lab.tables.adapt import adapt, load_scale
from ood_lab.tables.plan import jobs_of
from ood_lab.tables.spec import load_table, table_names

TINY = load_scale("tiny")
WITH_OUTLIERS = [f"method={name}" for name in ("hamos", "vos", "npos", "ronf", "oe")]
SMALL = ["backbone.width=4", "init=random", "scorer=[msp]", "figure=[]", "protocol.far=[]", "trainer.max_epochs=2"]
START = "outlier_loss.start"
SHAPING = ("id_loss", "synthesizer", "auxiliary", "selector", "perturbation", "outlier_loss", "regularizer")


def rows_with_outliers() -> dict[str, tuple[str, ...]]:
    """One command line for each combination of parts and schedules that some table trains with outliers."""
    found: dict[str, tuple[str, ...]] = {}
    seen: set[frozenset[str]] = set()
    for name in table_names():
        for job in jobs_of(adapt(load_table(name), TINY)):
            if not any(text in WITH_OUTLIERS for text in job.changes):
                continue
            words = frozenset(text for text in job.changes if text.partition("=")[0] in (*SHAPING, "method", START))
            if words in seen:
                continue
            seen.add(words)
            try:
                composed = prepare(job.changes, look=False).composed
            except OodLabError:
                continue  # a part that isn't there yet
            columns = part_columns(composed)
            if columns["outlier_loss"] is not None:
                starts = {text for text in job.changes if text.startswith(f"{START}=")}
                key = " ".join(str(part) for part in (*(columns[group] for group in SHAPING), *sorted(starts)) if part)
                found.setdefault(key, job.changes)
    return found


ROWS = rows_with_outliers()


def test_the_tables_have_such_rows() -> None:
    assert {"ce+cider hmc equidistant", "ce hmc equidistant", "ce fractals outlier_exposure"} <= set(ROWS)
    assert any("outlier_loss.start=0.5" in key for key in ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_at_tiny_scale_it_makes_steps_with_outliers_that_train_the_network(row: str, tmp_path: Path) -> None:
    kept = [
        text for text in ROWS[row] if text.partition("=")[0] not in ("backbone.width", "init", "trainer.max_epochs")
    ]
    few = ["auxiliary.count=60", "trainer.auxiliary_batch_size=32"] if "fractals" in row else []
    results = ood_lab.run([*kept, *SMALL, *few, f"paths.output={tmp_path}"])
    stored = {line["metric"]: line["value"] for line in results.rows}
    assert stored["outlier_steps"] >= 1
    assert stored["outlier_gradient"] > 0

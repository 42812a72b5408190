"""Tables of what the stages of a chain of runs cost: sums of stored stages, in the units of columns and rows."""

from __future__ import annotations

import csv
import io
import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from ood_lab.config import Experiment, RequestError
from ood_lab.config.groups import config_dir
from ood_lab.results.store import COLUMNS, add_rows
from ood_lab.runs.cost import stages_of
from ood_lab.tables.adapt import adapt, load_scale
from ood_lab.tables.cells import Cell, Filled, fill
from ood_lab.tables.layout import Block, blocks, caption
from ood_lab.tables.plan import Place, Plan, plan
from ood_lab.tables.render import as_csv
from ood_lab.tables.spec import PARTS, Table, load_table
from tests.cases import each

HOUR, MIB, GIB = 3600.0, 2.0**20, 2.0**30
# In hours: 1.2 of building the latent space, 0.1 of outliers, 2.5 of images, 8.5 of training.
SECONDS = {"anchors": 0.2 * HOUR, "encoder": 1.0 * HOUR, "outliers": 0.1 * HOUR, "generator": 0.5 * HOUR,
           "images": 2.0 * HOUR, "training": 8.5 * HOUR}  # fmt: skip
HOURS = {"building_latent_space": 1.2, "ood_feature_synthesis": 0.1, "ood_image_generation": 2.5,
         "ood_model_regularization": 8.5, "total": 12.3}  # fmt: skip
TIMES, SIZES = "stage_time", "stage_bytes"


@cache
def composed(name: str, scale: str, *overrides: str) -> tuple[Table, Plan]:
    """A table and its runs, which are not made."""
    table = adapt(load_table(name), load_scale(scale), overrides)
    return table, plan([table], look=False)


def planned(name: str, output: Path, *overrides: str, scale: str = "tiny") -> tuple[Table, Plan]:
    """The same with folders of their own for the runs."""
    table, runs = composed(name, scale, *overrides)
    assert not runs.unavailable
    moved = {place: tuple(_moved(run, output) for run in made) for place, made in runs.experiments.items()}
    return table, Plan(moved, {})


def _moved(run: Experiment, output: Path) -> Experiment:
    return replace(run, paths=replace(run.paths, output=str(output)))


def runs_of(table: Table, of: Plan, label: str) -> tuple[Experiment, ...]:
    number = next(number for number, row in enumerate(table.rows) if row.label == label)
    return of.experiments[Place.of(table, number, table.columns[0])]


def run_of(table: Table, of: Plan, label: str) -> Experiment:
    (run,) = runs_of(table, of, label)
    return run


def store(run: Experiment, what: str, values: Mapping[str, float], hardware: str = "our processor") -> None:
    """Rows of stages by hand."""
    rows: list[dict[str, Any]] = []
    for name, value in values.items():
        row: dict[str, Any] = dict.fromkeys(COLUMNS)
        row |= {"run_id": run.run_id, "metric": f"{what}/{name}", "value": value, "hardware": hardware}
        row |= {"unit": "s" if what == TIMES else "bytes", "convention": run.convention(), "n_id": 300, "n_ood": 0}
        rows.append({**row, "commit": "abc", "versions": {"torch": "2"}})
    add_rows(run.run_dir, rows)


def cells_of(filled: Filled, label: str) -> dict[str | None, Cell]:
    number = next(number for number, row in enumerate(filled.table.rows) if row.label == label)
    return {column.part: cell for column, cell in zip(filled.columns, filled.cells[number], strict=True)}


def means(filled: Filled, label: str) -> dict[str | None, float | None]:
    return {part: cell.mean for part, cell in cells_of(filled, label).items()}


def block_of(filled: Filled) -> Block:
    (block,) = blocks(filled)
    return block


def ours(filled: Filled) -> dict[tuple[str, str], str]:
    """What stands in each cell, by the labels of its row and column."""
    block = block_of(filled)
    return {
        (label, heading[1]): text.ours
        for label, row in zip(block.labels, block.cells, strict=True)
        for heading, text in zip(block.headings, row, strict=True)
    }


# Time.


def test_the_times_of_stages_are_hours_and_the_total_is_their_sum(tmp_path: Path) -> None:
    table, runs = planned("bood_t4", tmp_path)
    store(run_of(table, runs, "BOOD"), TIMES, SECONDS)
    store(run_of(table, runs, "BOOD"), SIZES, dict.fromkeys(SECONDS, 1e12))  # which are no times
    filled = fill(table, runs)
    assert means(filled, "BOOD") == pytest.approx(HOURS)
    parts = [value for part, value in means(filled, "BOOD").items() if part != "total" and value is not None]
    assert cells_of(filled, "BOOD")["total"].mean == pytest.approx(sum(parts))
    assert cells_of(filled, "BOOD")["total"].wanted == 1
    assert set(means(filled, "DreamOOD").values()) == {None}, "nothing is stored of it"


@each("lacks", sorted(set(SECONDS) - {"generator"}))
def test_without_one_of_its_stages_a_cell_is_empty_and_no_part_of_the_sum(lacks: str, tmp_path: Path) -> None:
    table, runs = planned("bood_t4", tmp_path)
    store(run_of(table, runs, "BOOD"), TIMES, {name: s for name, s in SECONDS.items() if name != lacks})
    filled = fill(table, runs)
    empty = {part for part, stages in PARTS["time"].items() if lacks in stages}
    assert "total" in empty
    assert len(empty) == 2
    expected = {part: None if part in empty else hours for part, hours in HOURS.items()}
    assert means(filled, "BOOD") == {part: None if h is None else pytest.approx(h) for part, h in expected.items()}
    assert {part for (label, part), text in ours(filled).items() if label == "BOOD" and not text} == empty


def test_a_generator_that_is_trained_elsewhere_leaves_no_cell_empty(tmp_path: Path) -> None:
    """Stable Diffusion is downloaded: such a chain has no stage of this name."""
    table, runs = planned("bood_t4", tmp_path)
    store(run_of(table, runs, "DreamOOD"), TIMES, {n: s for n, s in SECONDS.items() if n != "generator"})
    expected = {**HOURS, "ood_image_generation": 2.0, "total": 11.8}
    assert means(fill(table, runs), "DreamOOD") == pytest.approx(expected)


def test_a_generator_whose_time_is_not_known_leaves_its_cells_empty(tmp_path: Path) -> None:
    """Its bytes tell that the chain has one."""
    table, runs = planned("bood_t4", tmp_path)
    store(run_of(table, runs, "BOOD"), TIMES, {n: s for n, s in SECONDS.items() if n != "generator"})
    store(run_of(table, runs, "BOOD"), SIZES, {"generator": 5 * MIB})
    found = means(fill(table, runs), "BOOD")
    assert [part for part, value in found.items() if value is None] == ["ood_image_generation", "total"]


def test_a_stage_that_is_in_no_part_is_in_no_sum(tmp_path: Path) -> None:
    """As of what a classifier is fine-tuned from."""
    table, runs = planned("bood_t4", tmp_path)
    store(run_of(table, runs, "BOOD"), TIMES, {**SECONDS, "init": 100 * HOUR})
    assert means(fill(table, runs), "BOOD") == pytest.approx(HOURS)


def test_times_over_seeds_have_a_mean_and_a_spread(tmp_path: Path) -> None:
    table, runs = planned("bood_t4", tmp_path, "seed=0,1")
    first, second = runs_of(table, runs, "BOOD")
    store(first, TIMES, SECONDS)
    store(second, TIMES, {**SECONDS, "training": 9.5 * HOUR})
    cell = cells_of(fill(table, runs), "BOOD")["total"]
    assert cell.values == pytest.approx([12.3, 13.3])
    assert cell.mean == pytest.approx(12.8)
    assert cell.std == pytest.approx(0.5)


def test_every_stage_of_the_tables_runs_is_in_a_part_of_the_time(tmp_path: Path) -> None:
    table, runs = planned("bood_t4", tmp_path)
    for label in ("BOOD", "DreamOOD"):
        assert set(stages_of(run_of(table, runs, label))) == set(PARTS["time"]["total"])
    for metric, parts in PARTS.items():
        summed = [stage for part, stages in parts.items() if part != "total" for stage in stages]
        assert sorted(summed) == sorted(parts["total"]), f"{metric}: the total is that of the other columns"


# Storage.


def with_sizes(tmp_path: Path) -> Filled:
    table, runs = planned("bood_t5", tmp_path)
    sizes = {"anchors": 5 * GIB, "encoder": 7 * GIB, "training": 9 * GIB, "generator": 11 * GIB}  # of no column
    store(run_of(table, runs, "BOOD"), SIZES, {**sizes, "outliers": 7.5 * MIB, "images": 11.75 * GIB})
    store(run_of(table, runs, "BOOD"), TIMES, SECONDS)
    store(run_of(table, runs, "DreamOOD"), SIZES, {**sizes, "outliers": 2.5 * GIB, "images": 11.5 * GIB})
    return fill(table, runs)


def test_each_row_has_units_of_its_own(tmp_path: Path) -> None:
    filled = with_sizes(tmp_path)
    assert [row.units for row in filled.table.rows] == [("MB", "G", "G"), ("G", "G", "G")]
    assert means(filled, "BOOD") == pytest.approx(
        {"ood_features": 7.5, "ood_images": 11.75, "total": 11.75 + 7.5 / 1024}
    )
    assert means(filled, "DreamOOD") == pytest.approx({"ood_features": 2.5, "ood_images": 11.5, "total": 14.0})


def test_without_outliers_the_size_of_images_stands_alone(tmp_path: Path) -> None:
    table, runs = planned("bood_t5", tmp_path)
    store(run_of(table, runs, "BOOD"), SIZES, {"images": 11.75 * GIB})
    found = means(fill(table, runs), "BOOD")
    assert found == {"ood_features": None, "ood_images": pytest.approx(11.75), "total": None}


def test_the_best_is_the_smallest_whatever_the_units_of_its_row(tmp_path: Path) -> None:
    block = block_of(with_sizes(tmp_path))
    best = {label: [text.best for text in row] for label, row in zip(block.labels, block.cells, strict=True)}
    assert best == {"BOOD": [True, False, True], "DreamOOD": [False, True, False]}, "7.5 MB are less than 2.5 G"


def test_a_unit_of_a_column_counts_where_a_row_names_none(tmp_path: Path) -> None:
    table, runs = planned("bood_t4", tmp_path)
    columns = tuple(
        replace(column, unit=unit) for column, unit in zip(table.columns, ["s", "ms", None, "h", "s"], strict=True)
    )
    table = replace(table, columns=columns)
    store(run_of(table, runs, "BOOD"), TIMES, SECONDS)
    found = list(means(fill(table, runs), "BOOD").values())
    assert found == pytest.approx([1.2 * HOUR, 0.1 * HOUR * 1000, 2.5, 8.5, 12.3 * HOUR])


# Files of one's own.


def written(folder: Path, name: str, **changes: Any) -> Path:
    """A copy of a table with other values, in a folder of one's own."""
    node = yaml.safe_load((config_dir() / "table" / f"{name}.yaml").read_text())
    shutil.rmtree(folder / "table", ignore_errors=True)
    (folder / "table").mkdir()
    (folder / "table" / "mine.yaml").write_text(yaml.safe_dump({**node, **changes}))
    return folder


@each(
    ("metric", "part", "said"),
    [
        ("time", "ood_feature_sythesis", "no part 'ood_feature_sythesis'. Did you mean 'ood_feature_synthesis'?"),
        ("memory", "ood_image", "memory has no part 'ood_image'. Did you mean 'ood_images'?"),
        ("memory", "training", "memory has no part 'training'. Choose from: ood_features, ood_images, total"),
        ("time", "ood_images", "time has no part 'ood_images'."),
        ("accuracy", "total", "accuracy has no part 'total'."),
    ],
)  # fmt: skip
def test_an_unknown_part_is_refused_with_the_nearest_name(metric: str, part: str, said: str, tmp_path: Path) -> None:
    column = {"metric": metric, "over": None, "dataset": "cifar100", "backbone": "resnet34", "part": part}
    with pytest.raises(RequestError) as caught:
        load_table("mine", written(tmp_path, "bood_t4", columns=[column] * 5))
    assert said in str(caught.value)
    assert "mine.yaml" in str(caught.value)


@each("units", [["MB", "GB", "G"], ["MB", "G", "h"], ["mixed", "G", "G"]])
def test_a_unit_that_is_none_of_bytes_is_refused(units: list[str], tmp_path: Path) -> None:
    node = yaml.safe_load((config_dir() / "table" / "bood_t5.yaml").read_text())
    folder = written(tmp_path, "bood_t5", rows=[{**node["rows"][0], "units": units}, node["rows"][1]])
    with pytest.raises(RequestError, match=r"mine\.yaml"):
        load_table("mine", folder)


def test_a_row_without_units_in_a_table_of_mixed_ones_is_refused(tmp_path: Path) -> None:
    node = yaml.safe_load((config_dir() / "table" / "bood_t5.yaml").read_text())
    rows = [{key: value for key, value in row.items() if key != "units"} for row in node["rows"]]
    with pytest.raises(RequestError, match=r"mine\.yaml"):
        load_table("mine", written(tmp_path, "bood_t5", rows=rows))


# Texts.


@each("seconds", [0.5, 0.0123, 3.6, 35.9, 36.0, 36.1, 359.0, 3600.0, 123456.0])
def test_the_smallest_of_a_column_shows_two_digits(seconds: float, tmp_path: Path) -> None:
    table, runs = planned("bood_t4", tmp_path)
    store(run_of(table, runs, "BOOD"), TIMES, dict.fromkeys(SECONDS, seconds))
    store(run_of(table, runs, "DreamOOD"), TIMES, dict.fromkeys(SECONDS, 1000 * seconds))
    filled = fill(table, runs)
    texts, hours = ours(filled), means(filled, "BOOD")
    for part in HOURS:
        text, exact = texts["BOOD", part], hours[part]
        assert exact is not None
        assert len(text.lstrip("0.").replace(".", "")) >= 2, text
        assert float(text) == pytest.approx(exact, rel=0.05)
        decimals = {len(texts[label, part].partition(".")[2]) for label in ("BOOD", "DreamOOD")}
        assert decimals == {max(2, 1 - math.floor(math.log10(exact)))}, "as many in the whole column"


def test_stages_that_took_no_time_at_all_are_shown(tmp_path: Path) -> None:
    table, runs = planned("bood_t4", tmp_path)
    store(run_of(table, runs, "BOOD"), TIMES, dict.fromkeys(SECONDS, 0.0))
    store(run_of(table, runs, "DreamOOD"), TIMES, {**dict.fromkeys(SECONDS, 0.0), "outliers": 1.8})
    texts = ours(fill(table, runs))
    assert texts["BOOD", "building_latent_space"] == "0.00"
    assert (texts["BOOD", "ood_feature_synthesis"], texts["DreamOOD", "ood_feature_synthesis"]) == (
        "0.00000",
        "0.00050",
    )


def test_beside_the_papers_hours_are_ours_with_digits_enough_and_the_difference(tmp_path: Path) -> None:
    table, runs = planned("bood_t4", tmp_path, scale="full")
    for run in runs_of(table, runs, "BOOD"):
        store(run, TIMES, {**SECONDS, "outliers": 1.8})
    block = block_of(fill(table, runs))
    bood = dict(zip([heading[1] for heading in block.headings], block.cells[0], strict=True))
    assert bood["building_latent_space"][:3] == ("1.20±0.00", "0.62", "+0.58*")
    assert bood["ood_feature_synthesis"][:3] == ("0.00050±0.00000", "0.1", "-0.09950*")
    assert [heading[0] for heading in block.headings] == ["time ↓"] * 5


def test_the_caption_says_that_times_are_of_stages_and_on_what_they_were_measured(tmp_path: Path) -> None:
    table, runs = planned("bood_t4", tmp_path)
    assert not any("each stage" in line for line in caption(fill(table, runs))), "nothing is measured yet"
    store(run_of(table, runs, "BOOD"), TIMES, SECONDS, hardware="our processor")
    store(run_of(table, runs, "DreamOOD"), TIMES, SECONDS, hardware="another one")
    lines = caption(fill(table, runs))
    assert "time of each stage, ours on another one, our processor" in lines
    assert "h; one seed: 0" in lines
    text = "\n".join(lines)
    assert "one batch of outliers" not in text
    assert "BOOD, DreamOOD: anchors are fixed random unit vectors, no embeddings of text" in lines
    assert "images are of a small diffusion model" in text


def test_a_mark_beside_a_difference_is_explained_below(tmp_path: Path) -> None:
    table, runs = planned("bood_t4", tmp_path, scale="full")
    for number, run in enumerate(runs_of(table, runs, "BOOD")):
        store(run, TIMES, {**SECONDS, "training": SECONDS["training"] + number})
    filled = fill(table, runs)
    assert any("*" in text.difference for row in block_of(filled).cells for text in row)
    assert any("* differs by more than the combined spread" in line for line in caption(filled))


def test_the_caption_says_the_units_of_each_row(tmp_path: Path) -> None:
    lines = caption(with_sizes(tmp_path))
    at = lines.index("memory of each stage, ours on our processor")
    assert lines[at + 1 : at + 3] == ["BOOD: in MB, G, G", "DreamOOD: in G, G, G"]
    assert "mixed; one seed: 0" in lines


def test_the_caption_says_the_units_of_what_is_printed_before_anything_is_measured(tmp_path: Path) -> None:
    filled = fill(*planned("bood_t5", tmp_path, scale="full"))
    assert cells_of(filled, "BOOD")["ood_features"].paper == "7.32"
    lines = caption(filled)
    assert "BOOD: in MB, G, G" in lines
    assert "DreamOOD: in G, G, G" in lines


def test_beside_the_papers_sizes_stands_that_its_hardware_is_not_named(tmp_path: Path) -> None:
    table, runs = planned("bood_t5", tmp_path, scale="full")
    for run in runs_of(table, runs, "BOOD"):
        store(run, SIZES, {"outliers": 7.5 * MIB, "images": 11.75 * GIB})
    lines = caption(fill(table, runs))
    assert "memory of each stage, ours on our processor; the paper's on hardware that it does not name" in lines


def test_the_csv_file_has_the_part_and_our_figure_of_each_cell(tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(with_sizes(tmp_path)))))
    found = {(row["row"], row["part"]): float(row["ours"]) for row in rows}
    assert found["BOOD", "ood_features"] == pytest.approx(7.5)
    assert found["DreamOOD", "total"] == pytest.approx(14)
    assert len(found) == 6

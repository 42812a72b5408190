"""The 45 table files: they load, and what they print is what the papers print."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import yaml

from ood_lab.config import RequestError
from ood_lab.config.compose import compose
from ood_lab.config.groups import config_dir
from ood_lab.tables.spec import Table, load_table, table_names
from tests.cases import each

# Taken once from files that a script had compared with the papers, number by number.
PRINTED = json.loads((Path(__file__).parent / "printed.json").read_text())


def digest(table: Table) -> str:
    """A checksum of every label and figure, in order."""
    lines = [f"{c.metric} {c.over} {c.dataset} {c.part} {c.unit}" for c in table.columns]
    lines += [f"{row.label}|{row.values}|{row.std}|{row.units}" for row in table.rows]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def test_there_are_all_tables_of_the_five_papers() -> None:
    # Sweeps that are drawn, without printed numbers.
    figures = {"aoe_f4", "aoe_f6", "aoe_f8", "aoe_f9", "aoe_f11"}
    figures |= {f"bood_{name}" for name in ("f5_alpha", "f5_steps", "f6_share", "f6_weight", "f6_max_steps")}
    assert set(table_names()) - figures == set(PRINTED)
    assert figures < set(table_names())
    assert len(PRINTED) == 45


@each("name", sorted(PRINTED))
def test_printed_values_are_frozen(name: str) -> None:
    assert digest(load_table(name)) == PRINTED[name]


@each("name", sorted(PRINTED))
def test_figures_are_numbers_with_the_printed_digits(name: str) -> None:
    table = load_table(name)
    if table.kind == "config":
        return
    for row in table.rows:
        for value in (*row.values, *(row.std or ())):
            assert value is None or isinstance(value, str)
            assert value is None or float(value) == float(value)


@each("name", sorted(PRINTED))
def test_a_table_is_over_sets_of_its_protocol(name: str) -> None:
    table = load_table(name)
    for dataset, sets in table.sets.items():
        protocol = compose([f"experiment={table.experiment}", f"dataset={dataset}"]).plain("protocol")
        assert set(sets) <= {*protocol["near"], *protocol["far"]}
    for column in table.columns:
        assert column.over in (None, "mean", *table.sets.get(column.dataset, ()))


def written(folder: Path, **changes: object) -> Path:
    node = yaml.safe_load((config_dir() / "table" / "hamos_t17.yaml").read_text())
    (folder / "table").mkdir(parents=True)
    (folder / "table" / "mine.yaml").write_text(yaml.safe_dump({**node, **changes}))
    return folder


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    folder = written(tmp_path, title="Mine")
    assert "mine" in table_names(folder)
    assert load_table("mine", folder).title == "Mine"


def test_an_unknown_table_gives_the_nearest() -> None:
    with pytest.raises(RequestError, match=r"table=hamos_17: no such table. Did you mean 'hamos_t17'\?"):
        load_table("hamos_17")


@each(
    ("changes", "overrides"),
    [
        ({"rows": [{"label": "a", "values": ["1", "2"]}]}, "row 'a' has 2 values for 8 columns"),
        ({"rows": [{"label": "a", "values": ["1"] * 8, "std": ["1"]}]}, "row 'a' has 1 std for 8 columns"),
        ({"rows": [{"label": "a", "value": ["1"] * 8}]}, "value"),
        ({"sets": {"cifar10": ["svhn"]}}, "a mean over the sets of cifar100"),
        ({"kind": "result"}, "'result' is none of results, cost, config"),
        ({"colour": "red"}, "colour"),
        ({"seeds": 0}, "seeds is how many there are"),
        ({"rows": [{"label": "a", "values": ["1"] * 8}]}, "row 'a' names no scorer for its fpr95"),
        ({"rows": [{"label": "a", "values": [1.0] * 8, "scorer": "knn"}]}, "row 'a': write 1.0 in quotes"),
        ({"rows": [{"label": "a", "values": ["1"] * 8, "scorer": "knn", "options": 3}]}, "options is a mapping"),
        ({"columns": [{"metric": "fpr59", "over": "mean", "dataset": "cifar10"}] * 8}, "'fpr59' is no metric. Did you"),
        ({"columns": [{"metric": "auroc", "over": "svnh", "dataset": "cifar10"}] * 8}, "'svnh' is none of the sets of"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(changes: dict[str, object], overrides: str, tmp_path: Path) -> None:
    folder = written(tmp_path, **changes)
    with pytest.raises(RequestError, match=overrides) as caught:
        load_table("mine", folder)
    assert "mine.yaml" in str(caught.value)


def test_yaml_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = written(tmp_path)
    (folder / "table" / "mine.yaml").write_text("rows: [")
    with pytest.raises(RequestError, match=r"mine\.yaml: while parsing"):
        load_table("mine", folder)

"""A table at another scale or with other values: what is replaced, what is cut, and that it says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from ood_lab.config import RequestError
from ood_lab.tables.adapt import adapt, load_scale
from ood_lab.tables.spec import Table, key_of, load_table, table_names
from tests.cases import each

FULL, TINY = load_scale("full"), load_scale("tiny")


def words_of(table: Table, row: int = 0, column: int = 0) -> dict[str, str]:
    changes = table.changes(table.rows[row], table.columns[column])
    assert len({key_of(text) for text in changes}) == len(changes), "a key stands twice"
    return {key: value for key, _, value in (text.partition("=") for text in changes)}


def printed(table: Table) -> list[str]:
    return [value for row in table.rows for value in row.values if value is not None]


def test_full_scale_is_the_table_itself() -> None:
    for name in ("hamos_t1", "bood_t5", "hamos_t4"):
        assert adapt(load_table(name), FULL) == load_table(name)


@each("name", sorted(set(table_names())))
def test_tiny_is_one_seed_of_the_digits_and_has_no_targets(name: str) -> None:
    table = adapt(load_table(name), TINY)
    assert {(column.dataset, column.backbone) for column in table.columns} <= {("digits", "narrow")}
    assert table.seeds == (0,)
    assert printed(table) == []
    assert all(row.std is None for row in table.rows)
    assert table.changed == ("scale=tiny",)
    assert table.stem == f"{name}.tiny"
    overrides = words_of(table)
    assert overrides["dataset"] == "digits"
    assert overrides["trainer.max_epochs"] == "3"
    assert "init=torchvision_resnet50" not in table.changes(table.rows[0], table.columns[0])


def test_tiny_columns_are_over_the_embedded_sets() -> None:
    table = adapt(load_table("hamos_t5"), TINY)
    assert table.sets == {"digits": ("letters", "photos", "gaussian_noise")}
    overs = [column.over for column in table.columns if column.metric == "auroc"]
    assert sorted(filter(None, overs)) == ["gaussian_noise", "letters", "mean", "photos"]


def test_sizes_above_the_limit_are_cut_and_named() -> None:
    table = adapt(load_table("hamos_t18"), TINY)
    values = [words_of(table, row)["synthesizer.neighbor"] for row in range(len(table.rows))]
    assert values == ["50", "100", "100", "100"]
    assert [row.label.endswith(" (cut)") for row in table.rows] == [False, False, True, True]
    assert table.clipped == ("synthesizer.neighbor at most 100",)
    assert table.stem == "hamos_t18.tiny"


def test_what_differs_by_id_set_is_that_of_the_set_that_stays() -> None:
    full = load_table("hamos_t22")
    tiny = adapt(full, TINY)
    assert any(row.by_dataset for row in full.rows)
    for row, small in zip(full.rows, tiny.rows, strict=True):
        assert small.by_dataset.get("digits", ()) == row.by_dataset.get("cifar10", ())


@each("override", ["paths.data=here", "trainer=gpu", "trainer.threads=4", "protocol.missing=skip", "bootstrap=100"])
def test_places_and_machine_leave_the_papers_figures(override: str) -> None:
    table = adapt(load_table("hamos_t17"), FULL, [override])
    assert printed(table) == printed(load_table("hamos_t17"))
    assert table.changed == ()
    key, _, value = override.partition("=")
    assert words_of(table)[key] == value


@each(
    "override",
    ["trainer.max_epochs=3", "id_loss.cider.w_compactness=1", "protocol.check=loose", "bank=1", "indexing=2"],
)
def test_other_values_take_them_away_and_are_named(override: str) -> None:
    table = adapt(load_table("hamos_t17"), FULL, [override])
    assert printed(table) == []
    assert table.changed == (override,)
    assert table.stem != "hamos_t17"


def test_an_id_set_of_the_table_leaves_its_columns_and_their_figures() -> None:
    full = load_table("hamos_t17")
    table = adapt(full, FULL, ["dataset=cifar100"])
    assert {column.dataset for column in table.columns} == {"cifar100"}
    assert len(table.columns) == 4
    assert table.sets == {"cifar100": full.sets["cifar100"]}
    assert [row.values for row in table.rows] == [row.values[4:] for row in full.rows]
    assert [row.std for row in table.rows] == [row.std[4:] for row in full.rows if row.std]
    assert words_of(table)["dataset"] == "cifar100"


def test_another_experiment_takes_the_sets_of_its_protocol() -> None:
    overrides = ["experiment=cifar10_two_cores", "dataset=cifar10", "backbone=narrow"]
    table = adapt(load_table("hamos_t11"), FULL, overrides)
    assert table.sets == {"cifar10": ("cifar100", "tiny_imagenet", "mnist_test", "textures", "sun397")}
    assert words_of(table)["experiment"] == "cifar10_two_cores"
    assert printed(table) == []


def test_the_users_words_win_over_the_scale_and_the_rows() -> None:
    table = adapt(load_table("hamos_t17"), TINY, ["trainer.max_epochs=1", "outlier_loss.weight=7"])
    assert [words_of(table, row)["outlier_loss.weight"] for row in range(5)] == ["7"] * 5
    assert words_of(table)["trainer.max_epochs"] == "1"


@each(
    ("override", "seeds"),
    [("seed=5", (5,)), ("seed=1,1,0", (1, 0)), ("seed=0,2", (0, 2)), ("seed=range(0,4)", (0, 1, 2, 3))],
)
def test_seeds_are_those_of_the_command(override: str, seeds: tuple[int, ...]) -> None:
    table = adapt(load_table("hamos_t17"), FULL, [override])
    assert table.seeds == seeds
    assert table.stem == "hamos_t17.s" + "-".join(map(str, seeds))  # beside the table of all seeds, not over it


def test_a_seed_that_is_no_number() -> None:
    with pytest.raises(RequestError, match="'seed=a,b': seeds are whole numbers"):
        adapt(load_table("hamos_t17"), FULL, ["seed=a,b"])


def test_an_unknown_scale_gives_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"scale=tinny: no such scale. Did you mean 'tiny'\?"):
        load_scale("tinny")


def test_options_of_a_detector_go_to_its_rows(tmp_path: Path) -> None:
    table = adapt(load_table("hamos_t11"), FULL, ["scorer.odin.temperature=5", "dataset=cifar10"])
    odin = [row for row in table.rows if row.scorer == "odin"]
    assert [row.options["temperature"] for row in odin] == [5, 5]
    assert all(row.options["epsilon"] == 0.14 for row in odin)
    assert not any("scorer." in override for override in table.overrides)
    assert printed(table) == []
    assert table.changed == ("scorer.odin.temperature=5",)


@each(
    ("override", "said"),
    [
        ("scorer=[msp]", "each row of a table names its detector"),
        ("scorer.vim.dim=3", "no row of hamos_t17 prints the detector 'vim'"),
        ("task=data", "other tasks are for single runs"),
        ("outlier_loss.weight=0.1,0.2", "a grid is made with -m, without table="),
    ],
)
def test_words_that_a_table_does_not_take(override: str, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        adapt(load_table("hamos_t17"), FULL, [override])


def test_what_the_digits_lack_is_replaced() -> None:
    table = adapt(load_table("greg_t1"), TINY)
    with_outliers = [row for row in table.rows if any(text.startswith("auxiliary=") for text in row.overrides)]
    assert with_outliers
    assert all("auxiliary=fractals" in row.overrides for row in with_outliers)
    assert not any("randomimages300k" in text for row in table.rows for text in row.overrides)

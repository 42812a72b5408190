"""Tables: unweighted means of sets, needed runs first, the page holds the same numbers."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from ood_lab.config.schema import Protocol
from ood_lab.results.caption import protocol_lines
from ood_lab.results.page import (
    About,
    Fact,
    Picture,
    detail_table,
    percent,
    render_page,
    render_table,
    summary_rows,
)
from ood_lab.results.render import terminal_table
from ood_lab.results.store import COLUMNS, Results, Row
from ood_lab.results.table import METRICS, Selection, lines

VALUES = {"letters": 0.8, "photos": 0.9, "noise": 0.4}
GROUPS = {"letters": "near", "photos": "far", "noise": "far"}


K50, K10 = '{"k": 50}', '{"k": 10}'
PROTOCOL = Protocol(
    name="digits", source="", sets={}, near=["letters"], far=["photos", "noise"], validation=[], missing="error",
    check="strict", id_val=0, subset=None, draws=10, transform="short_side", transforms={}, folders={}, mean=[0.5],
    std=[0.5], fpr95="id_pos", fpr_rule="first", aupr_rule="trapezoid",
)  # fmt: skip
ABOUT = About(
    title="hamos on digits",
    subtitle="narrow",
    facts=[Fact("took", "2:05")],
    caption=["one line", "another < line"],
    command="python -m ood_lab <x>",
    config="seed: 0",
)


def asked(*sets: str, options: str = K50) -> Selection:
    return selected({name: GROUPS[name] for name in sets or VALUES}, knn=options)


def selected(groups: dict[str, str], **options: str) -> Selection:
    return Selection(options, groups, dict.fromkeys(groups, "whole"), "id")


def rows(run_id: str, method: str, stage: str, shift: float) -> list[Row]:
    common: Row = dict.fromkeys(COLUMNS)
    common |= {"run_id": run_id, "method": method, "stage": stage, "dataset": "digits", "backbone": "narrow", "seed": 0}
    common |= {"hardware": "cpu", "commit": "abc", "versions": {"torch": "2"}, "n_id": 450, "n_ood": 800}
    common |= {"convention": "whole", "n_expected": 800, "features": "key"}
    out: list[Row] = [{**common, "metric": "accuracy", "value": 0.9 + shift, "convention": "id"}]
    out.append({**common, "metric": "accuracy", "value": 0.1, "convention": "another split"})
    for ood_set, value in VALUES.items():
        for metric in METRICS:
            named = {"scorer": "knn", "space": "method", "ood_set": ood_set, "group": GROUPS[ood_set], "options": K50}
            out.append({**common, **named, "metric": metric, "value": value + shift})
            out.append({**common, **named, "metric": metric, "value": 0.1, "options": K10})
            out.append({**common, **named, "metric": metric, "value": 0.2, "convention": "2,000 of them"})
    return out


def results() -> Results:
    base = Results("ce-x", Path("ce-x"), rows("ce-x", "ce", "pretrain", 0.0))
    return Results("hamos-x", Path("hamos-x"), rows("hamos-x", "hamos", "finetune", 0.05), [base])


def test_means_are_unweighted_over_the_sets_of_a_group() -> None:
    ce, hamos = lines(results(), asked())
    assert (ce.method, hamos.method) == ("ce", "hamos")
    assert ce.means["near", "auroc"] == pytest.approx(0.8)
    assert ce.means["far", "auroc"] == pytest.approx(0.65)
    assert ce.means["all", "fpr95_id_pos"] == pytest.approx(0.7)
    assert hamos.means["far", "auroc"] == pytest.approx(0.7)
    assert hamos.accuracy == pytest.approx(0.95)


def test_sets_outside_the_protocol_and_detectors_not_asked_for_are_left_out() -> None:
    ce, _ = lines(results(), selected({"letters": "near"}, knn=K50, msp="{}"))
    assert ce.scorer == "knn"
    assert ce.means["all", "auroc"] == pytest.approx(0.8)
    assert percent(ce.means["far", "auroc"]) == "-"


def test_the_best_of_each_metric_is_marked_low_for_fpr() -> None:
    (row,) = summary_rows(lines(results(), asked()))
    best = [cell["best"] for cell in row["cells"]]
    # AUROC near, far; FPR95 twice; AUPR twice, for ce and then hamos, whose values are all higher.
    assert best == [False, False, True, True, False, False, True, True, False, False, True, True]


def test_the_terminal_table_fits_eighty_columns_and_shows_both_runs() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal_table(lines(results(), asked()), protocol_lines(PROTOCOL, GROUPS, {})))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    for part in ("trained", "fine-tuned", "80.0", "65.0", "95.0"):
        assert part in text


def test_the_page_is_self_contained_and_holds_every_set() -> None:
    found = results()
    panels = [("ce", "A", b"png"), ("ce", "C", b"third"), ("hamos", "<B>", b"other")]
    page = render_page(found, asked(), [Picture("A & B", "c", panels)], ABOUT)
    assert page.count('<div class="panels">') == 1  # of the run with two; each run begins a row
    heading, *rows = detail_table(found, asked())
    assert len(rows) == 2 * (3 + 1)  # the sets, and the mean of the two far ones
    assert rows[3][3:7] == ["mean", "far", "-", "65.0"]
    assert {len(row) for row in rows} == {len(heading)}
    assert "local radius" not in heading
    assert "http://" not in page
    assert "https://" not in page
    assert "data:image/png;base64,cG5n" in page
    assert "A &amp; B" in page
    assert "&lt;x&gt;" in page
    assert "one line" in page
    assert "another &lt; line" in page
    assert "<dt>took</dt><dd>2:05</dd>" in page
    assert 'alt="&lt;B&gt;"' in page
    assert page.count('<th scope="row">knn</th>') == 1
    assert all(f">{name}</button>" in page for name in ("AUROC near", "AUROC far", "FPR95 OOD+", "AUPR out"))


def test_names_with_html_are_text_on_the_page_and_in_a_notebook() -> None:
    found = results()
    for row in found.all_rows():
        row["method"] = "<script>alert(1)</script>"
    page = render_page(found, asked(), [], replace(ABOUT, title="<img src=x>"))
    table = render_table(lines(found, asked()), ["<b>caption</b>"])
    for html in (page, table):
        assert "<script>alert" not in html
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<img src=x>" not in page
    assert "&lt;b&gt;caption&lt;/b&gt;" in table


def test_results_are_one_line_as_text_and_the_shown_table_as_html() -> None:
    found = results()
    assert repr(found) == "Results('hamos-x', 1 detector on 3 OOD sets, with 1 run it depends on)"
    assert found._repr_html_().startswith("<code>Results(")
    found.lines, found.caption = lines(found, asked()), ["where from"]
    assert "AUROC near" in found._repr_html_()
    assert "where from" in found._repr_html_()


def test_rows_of_other_options_stay_out_of_the_means() -> None:
    for options, expected in ((K50, 0.8), (K10, 0.1)):
        ce, _ = lines(results(), asked(options=options))
        assert ce.means["near", "auroc"] == pytest.approx(expected)


def test_the_groups_are_those_asked_for_not_those_stored() -> None:
    ce, _ = lines(results(), selected({"letters": "far", "photos": "near"}, knn=K50))
    assert ce.means["near", "auroc"] == pytest.approx(0.9)
    assert ce.means["far", "auroc"] == pytest.approx(0.8)


def test_the_caption_says_which_images_and_how_they_are_counted() -> None:
    text = "\n".join(protocol_lines(PROTOCOL, {"letters": "near"}, {"letters": (80, 800)}))
    assert "left out of every mean: photos, noise" in text
    assert "not the stated images: letters 80 of 800" in text
    assert "tables of protocol digits report ID+" in text
    assert "whole ID test set; OOD sets whole" in text
    drawn = replace(PROTOCOL, subset=2000, id_val=1000, transforms={"noise": "squash", "svhn": "as_is"})
    text = "\n".join(protocol_lines(drawn, GROUPS, {}))
    assert "1,000 ID test images kept for validation; OOD sets means over 10 draws of 2,000 images" in text
    assert "images: short_side, noise squash; normalised by (0.5), (0.5)" in text


def test_sets_with_another_number_of_images_than_stated_are_told() -> None:
    found = results()
    assert asked().partial(found.rows) == {}
    for row in found.rows:
        if row["ood_set"] == "photos":
            row["n_ood"] = 5
    assert asked().partial(found.rows) == {"photos": (5, 800)}


def test_feature_keys_are_those_of_the_selected_conventions() -> None:
    found = results()
    for row in found.rows:
        row["features"] = f"{row['ood_set']} {row['convention']}"
    assert asked("letters").feature_keys(found.rows) == {"letters": "letters whole", "test": "None id"}


def test_a_frame_holds_every_run_below() -> None:
    below = results()
    above = Results("x", Path("x"), rows("x", "hamos", "finetune", 0.0), [below])
    assert set(above.frame()["run_id"]) == {"ce-x", "hamos-x", "x"}


def test_a_frame_has_the_options_that_were_asked_for_and_on_request_all() -> None:
    found = results()
    found.selection = asked(options=K10)
    mine = found.frame()
    assert set(mine["options"].dropna()) == {K10}
    assert not mine.duplicated(["run_id", "scorer", "ood_set", "metric"]).any()
    assert len(found.frame(every=True)) == len(found.all_rows()) > len(mine)
    found.selection = asked(options=K10).with_stored([])
    above = Results("x", Path("x"), [], [found])
    assert len(above.frame()) == len(mine)  # what was asked of a run below counts there


def test_a_run_below_without_the_options_asked_for_has_its_latest() -> None:
    found = results()
    below = found.needed[0]
    below.rows = [row for row in below.rows if row["options"] != K10]
    found.selection = asked(options=K10)
    options = found.frame().dropna(subset=["options"]).groupby("run_id")["options"].unique()
    assert {run: list(values) for run, values in options.items()} == {"ce-x": [K50], "hamos-x": [K10]}


def test_what_is_of_no_set_is_of_the_convention_asked_for() -> None:
    found = results()
    found.selection = asked()
    assert list(found.frame().query("metric == 'accuracy'")["convention"]) == ["id", "id"]

"""The summary of a grid: grouped by what varied, and a choice by validation data alone."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import yaml
from rich.console import Console

from ood_lab.config import Experiment, prepare
from ood_lab.config.groups import config_dir
from ood_lab.config.prepare import each_once, expand_sweep
from ood_lab.results.search import search_path
from ood_lab.results.store import COLUMNS, add_rows, options_text
from ood_lab.results.table import METRICS
from ood_lab.sweep.grid import chosen, settings, summary
from tests.cases import each

SETS = ("letters", "photos", "gaussian_noise")


def sweep_of(folder: Path, *overrides: str) -> tuple[list[list[str]], list[Experiment]]:
    singles = list(expand_sweep([f"paths.output={folder}", "scorer=[msp]", *overrides]))
    return singles, [prepare(single) for single in singles]


def store(experiment: Experiment, auroc: float, accuracy: float) -> None:
    """Rows of msp with one AUROC on every set, and the other metrics 0.5."""
    blank = dict.fromkeys(COLUMNS) | {"run_id": experiment.run_id, "method": "ce", "stage": "pretrain"}
    rows = [{**blank, "metric": "accuracy", "value": accuracy, "convention": experiment.convention()}]
    for ood_set in SETS:
        for metric in METRICS:
            own = {"scorer": "msp", "options": options_text(experiment.detectors["msp"]), "ood_set": ood_set}
            value = auroc if metric == "auroc" else 0.5
            rows.append(
                {**blank, **own, "metric": metric, "value": value, "convention": experiment.convention(ood_set)}
            )
    add_rows(experiment.run_dir, rows)


def validate(experiment: Experiment, auroc: float) -> None:
    path = search_path(experiment.run_dir, "msp", experiment.detectors["msp"])
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"trials": [{"options": {}, "auroc": auroc, "refused": None}]}))


def shown(singles: Sequence[Sequence[str]], experiments: Sequence[Experiment]) -> list[str]:
    console = Console(width=80, file=io.StringIO())
    console.print(summary(settings(singles, experiments)), highlight=False)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text.splitlines()


def said(lines: Sequence[str]) -> str:
    """On one line, wherever the terminal broke it."""
    return " ".join(" ".join(lines).split())


def test_seeds_are_averaged_and_settings_stay_apart(tmp_path: Path) -> None:
    singles, experiments = sweep_of(tmp_path, "method=ce", "trainer.max_epochs=1,2", "seed=0,1")
    for experiment, auroc in zip(experiments, (0.6, 0.7, 0.8, 0.8), strict=True):
        store(experiment, auroc, 0.9)
    one, two = settings(singles, experiments)
    assert one.varied == {"trainer.max_epochs": "1"}
    assert [line.means["near", "auroc"] for line in two.of_scorer["msp"]] == [0.8, 0.8]
    lines = shown(singles, experiments)
    at = next(i for i, line in enumerate(lines) if line.startswith("trainer.max_epochs=1"))
    assert said([lines[at + 1]]) == "msp 90.0±0.0 65.0±5.0 65.0±5.0 50.0±0.0 50.0±0.0"
    assert "of 2 seeds" in said(lines)
    assert "choose no setting by these numbers" in said(lines)
    assert "◂" not in said(lines)


def test_runs_without_results_are_counted(tmp_path: Path) -> None:
    singles, experiments = sweep_of(tmp_path, "method=ce", "trainer.max_epochs=1,2", "seed=0,1")
    store(experiments[0], 0.6, 0.9)
    lines = said(shown(singles, experiments))
    assert "no results" in lines
    assert "of 1 seed," in lines


def test_the_choice_is_by_validation_data_and_not_by_test_data(tmp_path: Path) -> None:
    singles, experiments = sweep_of(tmp_path, "method=ce", "trainer.max_epochs=1,2", "seed=0,1", "tuning=validation")
    for experiment, test, val in zip(experiments, (0.9, 0.9, 0.1, 0.1), (0.5, 0.6, 0.5, 0.7), strict=True):
        store(experiment, test, 0.9)
        validate(experiment, val)
    found = settings(singles, experiments)
    assert chosen(found)["msp"] is found[1]  # 0.6 on validation data, the worst on test data
    lines = shown(singles, experiments)
    marked = [line for line in lines if "msp ◂" in line]
    assert len(marked) == 1
    assert "60.0±10.0" in marked[0]
    assert "against uniform_noise" in said(lines)


def test_validation_lists_every_detector_with_nothing_to_search() -> None:
    grids = yaml.safe_load((config_dir() / "tuning" / "validation.yaml").read_text())["grids"]
    names = {path.stem for path in (config_dir() / "scorer").glob("*.yaml")} - {"pood"}
    assert grids == {name: {} for name in names}


@each("overrides", [["synthesizer.adjacent=2,4", "outlier_loss.weight=0.1,1"], ["method=ce,cider"]])
def test_settings_are_headed_by_the_overrides_that_vary(overrides: list[str], tmp_path: Path) -> None:
    singles, experiments = sweep_of(tmp_path, *overrides)
    first = said(shown(singles, experiments))
    assert ("synthesizer.adjacent=2, outlier_loss.weight=0.1" if len(overrides) == 2 else "method=ce") in first


def test_both_fpr95_are_shown_and_the_sets_and_headlines_of_each_protocol(tmp_path: Path) -> None:
    singles, experiments = sweep_of(tmp_path, "method=ce", "protocol.fpr95=ood_pos,id_pos", "protocol.far=[photos]")
    for experiment in experiments:
        store(experiment, 0.6, 0.9)
    blank = dict.fromkeys(COLUMNS) | {"run_id": experiments[1].run_id, "method": "ce", "stage": "pretrain"}
    for ood_set in ("letters", "photos"):
        own = {"scorer": "msp", "options": options_text(experiments[1].detectors["msp"]), "ood_set": ood_set}
        convention = experiments[1].convention(ood_set)
        add_rows(
            experiments[1].run_dir, [{**blank, **own, "metric": "fpr95_id_pos", "value": 0.2, "convention": convention}]
        )
    lines = shown(singles, experiments)
    first, second = (line for line in lines if "msp" in line)
    assert said([first]) == "msp 90.0 60.0 60.0 50.0 20.0"  # the headline is not part of a run
    assert said([second]) == "msp 90.0 60.0 60.0 50.0 20.0"
    assert "tables of protocol digits report OOD+" in said(lines)
    assert "tables of protocol digits report ID+" in said(lines)
    assert "far: photos" in said(lines)
    assert "gaussian_noise" not in said(lines)


def test_a_key_that_is_given_twice_is_swept_once(tmp_path: Path) -> None:
    kept, notes = each_once(["method=cider,ce", "seed=0,1", "method=ce", "optimizer.lr=1", "method.optimizer.lr=2"])
    assert kept == ["seed=0,1", "method=ce", "method.optimizer.lr=2"]
    assert notes == [
        "note: method is given 2 times; using method=ce",
        "note: method.optimizer.lr is given 2 times; using method.optimizer.lr=2",
    ]
    assert each_once(["~synthesizer", "synthesizer=hmc"])[0] == ["synthesizer=hmc"]
    assert each_once(["seed=1", "method=ce", "seed=1"]) == (["method=ce", "seed=1"], [])

"""What an experiment file says wins over the defaults, whichever key it is; the command line wins over both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ood_lab.config import compose, prepare

# Every key at the top of the configuration that is no choice of a group, and one value of each group.
VALUES: dict[str, Any] = {
    "seed": 7,
    "id_rate": 0.9,
    "bootstrap": 5,
    "index": "faiss",
    "paths": {"data": "d", "output": "o", "cache": "c"},
    "benchmark": "own",
    "trainer": {"max_epochs": 3, "threads": 1},
    "dataset": {"recipe": {"bank_size": 33}},
    "protocol": {"id_val": 60},
    "method": {"stage": "pretrain"},
    "head": {"projection_dim": 8},
    "id_loss": {"cider": {"w_dispersion": 0.25}},
    "outlier_loss": {"weight": 0.25},
    "regularizer": {},
    "synthesizer": {"neighbor": 7},
    "backbone": {"width": 8},
    "augmentation": {"padding": 2},
    "init": {"overrides": ["trainer.max_epochs=2"]},
    "logger": {"project": "mine"},
    "task": {"name": "evaluate"},
    "scorer": {"knn": {"k": 3}},
    "figure": {"roc": {}},
    "local_radius": ["msp"],
    "tuning": None,
    "features": None,
    "note": "mine",
    "auxiliary": None,
    "experiment": None,
}


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    (tmp_path / "experiment").mkdir()
    return tmp_path


def write(lab: Path, node: dict[str, Any]) -> None:
    (lab / "experiment/mine.yaml").write_text("# @package _global_\n" + yaml.safe_dump(node))


def test_every_key_at_the_top_is_tried_here() -> None:
    assert set(VALUES) >= set(compose([]).whole)


@pytest.mark.parametrize("key", [key for key, value in VALUES.items() if value is not None])
def test_an_experiments_value_wins_and_the_command_lines_over_it(key: str, lab: Path) -> None:
    write(lab, {key: VALUES[key]})
    composed = compose(["experiment=mine"], folder=lab)
    found = composed.plain(key)
    if isinstance(VALUES[key], dict):
        for name, value in VALUES[key].items():
            assert found[name] == value if not isinstance(value, dict) else value.items() <= found[name].items()
    else:
        assert found == VALUES[key]
        other, written = (["energy"], "[energy]") if isinstance(found, list) else (0.8, "0.8")
        assert compose(["experiment=mine", f"{key}={written}"], folder=lab).plain(key) == other


def test_a_seed_of_an_experiment_is_that_of_its_run(lab: Path, tmp_path: Path) -> None:
    write(lab, {"seed": 7, "index": "torch", "bootstrap": 3, "id_rate": 0.8})
    experiment = prepare(["experiment=mine", f"paths.output={tmp_path}"], lab)
    assert "-s7-" in experiment.run_id
    assert experiment.run_id == prepare(["seed=7", f"paths.output={tmp_path}"]).run_id
    (need,) = experiment.prerequisites.values()
    assert "-s7-" in need.run_id
    assert (need.bootstrap, need.id_rate) == (3, 0.8)
    assert "bootstrap=3" in experiment.convention("letters")

"""The overrides of a command line about many runs."""

from __future__ import annotations

from pathlib import Path

import pytest

import ood_lab
from ood_lab.__main__ import main
from ood_lab.config import RequestError, prepare
from ood_lab.sweep.command import Command, TableResults, engine_for, read_command
from ood_lab.sweep.estimate import estimate
from ood_lab.sweep.workers import Workers
from tests.cases import each


def test_words_are_sorted() -> None:
    overrides = ["table=a,b,a", "scale=tiny", "dry_run=true", "seed=1", "paths.data=x", "workers=3"]
    assert read_command(overrides) == Command(("a", "b"), "tiny", True, 3, None, (), ("seed=1", "paths.data=x"))
    overrides = ["hydra/launcher=ray", "hydra.launcher.ray.init.num_cpus=2", "+hydra.launcher.x=1", "table=[a,b]"]
    command = read_command(overrides)
    assert (command.launcher, command.launcher_options) == ("ray", tuple(overrides[1:3]))
    assert command.tables == ("a", "b")


@each(
    ("overrides", "said"),
    [
        (["table="], "table=: name at least one table"),
        (["table=hamos_t17", "dry_run=yes"], "dry_run=yes: expected true or false"),
        (["table=hamos_t17", "workers=0"], "workers=0: expected a number of processes"),
        (["table=hamos_t17", "workers=two"], "workers=two: expected a number"),
        (["table=hamos_t17", "workers=2", "hydra/launcher=basic"], "a launcher has options of its own"),
        (["table=hamos_t17", "hydra/launcher=kubernetes"], "hydra/launcher=kubernetes: this launcher is not installed"),
        (["table=hamos_t177"], "table=hamos_t177: no such table. Did you mean 'hamos_t17'?"),
        (["table=hamos_t17", "scale=huge"], "scale=huge: no such scale"),
        (["--cfg", "job", "table=hamos_t17"], "a table has many; dry_run=true lists its runs"),
        (["scale=tiny"], "scale=tiny is about tables; add table=name"),
        (["-m", "scale=tiny", "seed=0,1"], "scale=tiny is about tables"),
        (["workers=2"], "workers= is about many runs; add -m and several values"),
        (["-m", "seed=0,1", "hydra.launcher.n_jobs=2"], "name it with hydra/launcher="),
        (["hydra/launcher=ray"], "hydra/launcher= is about many runs"),
        (["table=hamos_t17", "-m"], "-m and table= are two kinds of sweep"),
        (["table=hamos_t17", "scale=tiny", "trainer.devices=2"], "trainer.devices=2 in a sweep"),
        (
            ["table=hamos_t17", "scale=tiny", "trainer.epochs=2"],
            "no row can be run here. unknown option 'trainer.epochs': trainer (trainer=cpu) has no",
        ),
        (["table=bood_t1", "scale=tiny", "method.x=2"], "no row can be run here"),
    ],
)
def test_wrong_words_are_refused_before_anything_starts(
    overrides: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([*overrides, f"paths.output={tmp_path}"]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.rglob("DONE"))


def test_a_plan_is_shown_and_nothing_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table=hamos_t17,bood_t1", "scale=tiny", "dry_run=true", f"paths.output={tmp_path}"]) == 0
    shown = capsys.readouterr().out
    assert "hamos_t17, bood_t1: 12 runs, 0 done. To do: 12 to be trained, 7 that they depend on." in shown
    assert "no run of that kind is finished here" in shown
    assert not list(tmp_path.iterdir())


def test_one_run_is_planned_and_nothing_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = ood_lab.run(["method=hamos", "dry_run=true", f"paths.output={tmp_path}"])
    assert results.run_id.startswith("hamos-digits")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"task=train: {results.run_id} (new), in {tmp_path}"
    assert lines[1].startswith("depends on ce-digits-narrow-s0-")
    assert lines[1].endswith(" (new)")
    assert lines[2].startswith("minimises ce + 0.5 compactness")
    assert lines[3] == "id: digits; near: letters; far: photos, gaussian_noise"
    assert lines[5].startswith("To do: 1 to be trained, 1 that they depend on. No time is known for 2")
    assert not list(tmp_path.iterdir())


@each(
    ("overrides", "said"),
    [
        (["task=data"], "dry_run=true: task=data trains and scores nothing"),
        (["task=evaluate", "method=ce"], "is not trained yet; run the same command with task=train first"),
    ],
)
def test_a_command_that_makes_no_run_has_no_plan(
    overrides: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([*overrides, "dry_run=true", f"paths.output={tmp_path}"]) == 2
    assert said in capsys.readouterr().err


def test_a_set_is_planned_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["task=synthesize", "producer=fractals", "dry_run=true", f"paths.output={tmp_path}"]) == 0
    assert "To do: 1 to be made." in capsys.readouterr().out


def test_an_override_that_is_given_twice_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = ood_lab.run(["method=hamos", "seed=1", "method=ce", "seed=1", "dry_run=true", f"paths.output={tmp_path}"])
    assert results.run_id.startswith("ce-digits")
    assert capsys.readouterr().err == "note: method is given 2 times; using method=ce\n"


def test_a_plan_says_which_rows_are_not_available(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the weights of a diffusion model."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "no models"))
    assert main(["table=bood_t3", "dataset=digits", "protocol=digits", "dry_run=true", f"paths.output={tmp_path}"]) == 2
    shown = capsys.readouterr()
    assert "not available, 3 rows: decoder.model=CompVis/stable-diffusion-v1-4: no folder of this name" in shown.out
    assert "no row can be run here" in shown.err
    assert not list(tmp_path.iterdir())


def test_settings_are_composed_and_need_no_data(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    results = ood_lab.run(["table=hamos_t4", f"paths.output={tmp_path}"])
    assert isinstance(results, TableResults)
    cells = results.cells().set_index(["row", "dataset"])
    assert cells.loc[("Learning rate", "imagenet1k"), "setting"] == "0.0001"
    assert cells.loc[("Step size ϵ", "cifar10"), "paper"] == "0.1"
    assert not cells.loc[("k for KNN distance", "cifar100"), "exceeds"]
    assert "Learning rate" in capsys.readouterr().out
    assert (tmp_path / "tables" / "hamos_t4.md").is_file()


def test_one_worker_without_a_word_and_no_processes_that_train_together(tmp_path: Path) -> None:
    experiment = prepare(["method=ce", f"paths.output={tmp_path}"])
    engine = engine_for(Command(), [experiment], tmp_path)
    assert isinstance(engine, Workers)
    assert engine.number == 1
    assert engine_for(Command(workers=3), [experiment], tmp_path).number == 3  # type: ignore[attr-defined]
    together = prepare(["method=ce", "trainer.devices=2", f"paths.output={tmp_path}"])
    with pytest.raises(RequestError, match="hydra/launcher=submitit_slurm"):
        engine_for(Command(), [together], tmp_path)


def test_an_estimate_is_the_median_of_runs_of_the_same_kind(tmp_path: Path) -> None:
    overrides = ["method=ce", f"paths.output={tmp_path}", "backbone.width=4"]
    for seed, seconds in ((0, 10.0), (1, 20.0), (2, 60.0)):
        _pretend(prepare([*overrides, f"seed={seed}"]), seconds)
    _pretend(prepare([*overrides, "trainer.max_epochs=99"]), 5000.0)  # another kind
    new = [prepare([*overrides, f"seed={seed}"]) for seed in (3, 4, 5, 6)]
    assert "To do: 4 to be trained. About 1:20, by earlier runs" in estimate(new, 1)
    assert "About 0:40" in estimate(new, 2)
    other = [*new, prepare(["method=ce", f"paths.output={tmp_path}"])]
    assert "About 1:20 for 4 of them" in estimate(other, 1)
    assert "No time is known for 1: no run of that kind is finished here" in estimate(other, 1)


def test_an_edited_folder_of_another_run_tells_nothing_and_stops_nothing(tmp_path: Path) -> None:
    overrides = ["method=ce", f"paths.output={tmp_path}", "backbone.width=4"]
    _pretend(prepare([*overrides, "seed=0"]), 10.0)
    broken = prepare([*overrides, "seed=1"])
    _pretend(broken, 70.0)
    (broken.run_dir / "identity.json").write_text("{")
    assert "About 0:10" in estimate([prepare([*overrides, "seed=2"])], 1)


def _pretend(experiment: object, seconds: float) -> None:
    from ood_lab.runs.claim import claim
    from ood_lab.runs.run_folder import RunFolder

    claim(experiment)  # type: ignore[arg-type]
    RunFolder(experiment.run_dir).mark_done(seconds)  # type: ignore[attr-defined]

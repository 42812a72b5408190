"""A finished run by its folder: its results without torch, its report with every detector that it has results of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import ood_lab
from ood_lab.__main__ import main
from ood_lab.errors import RequestError
from tests.cases import each

SMALL = ["backbone.width=4", "trainer.max_epochs=1", "trainer.threads=1", "figure=[roc]", "seed=3"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was scored twice, with other detectors each time."""
    folder = tmp_path_factory.mktemp("outputs")
    made = ["method=ce", *SMALL, f"paths.output={folder}"]
    ood_lab.run([*made, "scorer=[msp]"])
    return ood_lab.run([*made, "scorer=[knn]", "scorer.knn.k=7", "task=evaluate"]).run_dir


def test_results_are_loaded_without_torch_with_every_detector(run: Path) -> None:
    results = ood_lab.load_results(run)
    assert {line.scorer for line in results.lines} == {"msp", "knn"}
    assert "AUROC near" in results._repr_html_()
    assert len(results.frame()) == len(results.rows)
    program = f"import sys, ood_lab; ood_lab.load_results({str(run)!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_options_that_were_asked_for_last_are_loaded(tmp_path: Path) -> None:
    made = ["method=ce", *SMALL, "scorer=[knn]", f"paths.output={tmp_path}", "figure=[]"]
    plain = ood_lab.run([*made, "scorer.knn.k=5"])
    ood_lab.run([*made, "scorer.knn.k=50"])
    loaded = ood_lab.load_results(plain.run_dir)
    assert set(loaded.frame()["options"].dropna()) == set(loaded.rows[-1]["options"].splitlines())
    assert "knn: with k=50; it is stored with 2 sets of options, frame(every=True) has all" in loaded.caption
    assert ood_lab.load_detector(plain.run_dir, "knn").scorer.k == 50
    again = ood_lab.run([*made, "scorer.knn.k=5"])  # nothing is scored for it
    loaded = ood_lab.load_results(plain.run_dir)
    assert "knn: with k=5; " in str(loaded)
    assert loaded.lines[0].means == again.lines[0].means == plain.lines[0].means
    assert ood_lab.load_detector(plain.run_dir, "knn").scorer.k == 5
    assert len(loaded.frame(every=True)) > len(loaded.frame())
    assert main(["task=report", f"run={plain.run_dir}"]) == 0  # a look at it asks for nothing
    assert ood_lab.load_detector(plain.run_dir, "knn").scorer.k == 5
    ood_lab.run([*made, "scorer.knn.k=50", "seed=3"], multirun=True)
    assert ood_lab.load_detector(plain.run_dir, "knn").scorer.k == 50


def test_the_report_of_a_folder_shows_every_detector_that_has_results(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # wherever one is
    assert main(["task=report", f"run={run}"]) == 0
    out = capsys.readouterr().out
    assert "msp" in out
    assert "knn" in out
    page = (run / "report.html").read_text()
    assert page.count("<img") == 2  # the figures that it was made with
    assert list(tmp_path.iterdir()) == []


@each(
    ("more", "words"),
    [
        (["task=report", "run=EMPTY"], "no run is stored there"),
        (["task=report", "run=nowhere"], "no run is stored there"),
        (["run=EMPTY"], "task=report run=FOLDER"),
        (["task=report", "run=EMPTY", "method=ce"], "task=report run=FOLDER"),
    ],
)
def test_a_folder_without_a_run_is_refused(
    more: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir(exist_ok=True)
    assert main(more) == 2
    assert words in capsys.readouterr().err


def test_an_empty_folder_has_no_results(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no run is stored there"):
        ood_lab.load_results(tmp_path)

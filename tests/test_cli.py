"""The command line as a user meets it: exit codes, messages, and nothing slow before a request is known to be right."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ood_lab.__main__ import main
from tests.cases import each

WRONG = [
    (["method=hamoss"], "Did you mean 'hamos'?"),
    (["backbone.widht=8"], "Did you mean 'width'?"),
    (["backbone.width=-1"], "expected a whole number above 0"),
    (["method=ce", "synthesizer=hmc"], "takes no synthesizer"),
    (["dataset=cifar10", "paths.data=nowhere"], "nowhere/cifar-10-batches-py/data_batch_1"),
    (["method=ce,cider"], "add -m"),
    (["hamos"], "expected key=value"),
    (["--verbose"], "unknown flag --verbose"),
    (["--config-dir", "nowhere"], "--config-dir=nowhere: no such folder"),
    (["-m", "seed=0,1", "trainer.max_epochs=3,-1"], "trainer.max_epochs=-1"),
    (["-m", "seed=0,1", "trainer.devices=2"], "trainer.devices=2 in a sweep"),
    (["-m", "method=oe", "auxiliary=fractals,letters"], "auxiliary=letters is also a test set"),
    (["dataset=mnist"], "no training recipe"),
]


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("OOD_LAB")} | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False
    )


@each(("arguments", "words"), WRONG[:6])
def test_a_wrong_request_ends_with_code_2_and_one_message(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = python(tmp_path, "-m", "ood_lab", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("ood_lab: ")
    assert words in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert list(tmp_path.iterdir()) == []


@each(("arguments", "words"), WRONG)
def test_main_gives_code_2_and_says_why(
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


def test_torch_is_not_imported_to_refuse_a_request(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from ood_lab.__main__ import main\n"
        f"codes = [main(a) for a in {[a for a, _ in WRONG]!r}]\n"
        "print(set(codes), [m for m in ('torch', 'lightning', 'matplotlib') if m in sys.modules])\n"
    )
    assert python(tmp_path, "-c", program).stdout.strip() == "{2} []"


def test_torch_is_not_imported_to_check_a_right_request(tmp_path: Path) -> None:
    program = "import sys\nfrom ood_lab.config import prepare\nprepare([])\nprint('torch' in sys.modules)\n"
    assert python(tmp_path, "-c", program).stdout.strip() == "False"


@each("arguments", [["-m", "method=glob(zzz*)"], ["head=null"], ["method=null"]])
def test_no_wrong_request_escapes_as_another_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("ood_lab: ")


def test_config_dir_without_a_folder_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backbone.width=-1", "--config-dir"]) == 2
    assert "--config-dir" in capsys.readouterr().err


@each("flag", ["--help", "-h"])
def test_help_shows_the_usage_and_every_group(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([flag]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: python -m ood_lab")
    assert max(map(len, shown.splitlines())) <= 110
    said = " ".join(shown.split())
    assert (
        " method anchored, aoe, ares, bood, ce, cider, csi, csi_contrast, dos, dreamood, energy, gan, godin, "
        "greg, greg_plus, hamos, hamos_released" in said
    )
    assert "scorer (several) all, absent_class, ash, attacked, csi, csi_joint, dice, energy" in said
    assert "synthesizer (or null) boundary_mixup" in said
    assert "figure (several, or []) curve_comparison" in said
    assert "pictures (or null) as dataset" in said
    assert said.index("hamos_t2,") < said.index("hamos_t10,")


def test_help_of_a_method_is_what_it_is_made_of(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--help", "method=hamos"]) == 0
    assert "minimises ce + 0.5 compactness + dispersion + 0.1 equidistant" in capsys.readouterr().out
    (tmp_path / "method").mkdir()
    (tmp_path / "method/mine.yaml").write_text("# Mine.\ndefaults: [ce, _self_]\nstage: finetune\n")
    assert main(["--help", f"--config-dir={tmp_path}"]) == 0
    assert "knn_plus, mine, mixoe, npos" in " ".join(capsys.readouterr().out.split())
    assert main(["--help", "method=mine", f"--config-dir={tmp_path}"]) == 0
    assert "    Mine.\n" in capsys.readouterr().out
    assert main(["--help", "method=hamoss"]) == 2


def test_cfg_job_prints_the_configuration_and_runs_nothing(tmp_path: Path) -> None:
    done = python(tmp_path, "-m", "ood_lab", "--cfg", "job", "method=ce", "backbone.width=8", "seed=5")
    assert done.returncode == 0, done.stderr
    shown = yaml.safe_load(done.stdout)
    assert shown["method"]["_target_"] == "ood_lab.method.base.Method"
    assert shown["id_loss"]["ce"]["_target_"] == "ood_lab.id_loss.ce.CE"
    assert shown["backbone"]["width"] == 8
    assert shown["seed"] == 5
    assert list(tmp_path.iterdir()) == []


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ood_lab {version('ood-lab')}\n"


def test_a_reader_that_goes_away_ends_the_command_without_a_word(tmp_path: Path) -> None:
    # More than a pipe holds is written after `true` has ended.
    program = f"{sys.executable} -m ood_lab --help scorer method dataset 2> errors | true; echo ${{PIPESTATUS[0]}}"
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "-c", program], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.stdout.strip() in ("0", "141")
    assert (tmp_path / "errors").read_text() == ""

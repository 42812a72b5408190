"""Tab completion: what may stand at the cursor, and the script in a real bash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ood_lab.__main__ import main
from ood_lab.config.complete import complete, script
from ood_lab.config.groups import groups
from tests.cases import each


@each(
    ("words", "current", "expected"),
    [
        ([], "meth", ["method.", "method="]),
        ([], "method=hamos", ["method=hamos", "method=hamos_released"]),
        (["method=hamos"], "synthesizer.st", ["synthesizer.step_size="]),
        (["method=ce"], "synthesizer.st", []),
        ([], "scorer=[msp,kn", ["scorer=[msp,knn", "scorer=[msp,knn_penultimate"]),
        ([], "scorer=al", ["scorer=all"]),
        ([], "--ver", ["--version"]),
        (["-m", "not an override", "method=wrong"], "trainer.max", ["trainer.max_epochs="]),
        ([], "method.optimizer.l", ["method.optimizer.lr="]),
        ([], "nothing.x", []),
    ],
)
def test_what_may_stand_at_the_cursor(words: list[str], current: str, expected: list[str]) -> None:
    assert complete(words, current) == expected


def test_an_empty_value_has_every_choice() -> None:
    assert complete([], "method=") == [f"method={name}" for name in groups()["method"]]


def test_bash_completes_the_words_that_it_cuts_at_equal_signs(tmp_path: Path) -> None:
    command = tmp_path / "ood-lab"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m ood_lab "$@"\n')
    command.chmod(0o755)
    program = (
        f"{script('bash')}\n"
        'try() { COMP_LINE="$1"; COMP_POINT=${#COMP_LINE}; COMPREPLY=(); _ood_lab; echo "${COMPREPLY[*]}"; }\n'
        "try 'ood-lab method=ham'\n"
        "try 'ood-lab method=hamos synthesizer.st'\n"
        "try 'ood-lab scorer=[msp,kn'\n"
    )
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", program], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == [
        "hamos hamos_released",
        "synthesizer.step_size=",
        "[msp,knn [msp,knn_penultimate",
    ]


def test_a_shell_that_is_not_known_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--completion", "bas"]) == 2
    assert "--completion bas: no such shell. Did you mean 'bash'?" in capsys.readouterr().err
    for shell in ("bash", "zsh", "fish"):
        assert main(["--completion", shell]) == 0
        assert "ood-lab" in capsys.readouterr().out

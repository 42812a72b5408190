"""--help prints a choice's own file and the docstring of its class, and a line for each choice of a group."""

from __future__ import annotations

from pathlib import Path

import pytest

from ood_lab.__main__ import main
from ood_lab.config.describe import describe_choice, describe_group
from ood_lab.config.groups import config_file, groups
from tests.cases import each


@each("group", ["scorer", "backbone", "synthesizer", "protocol", "dataset", "auxiliary", "experiment", "optimizer"])
def test_every_choice_has_its_file_word_by_word(group: str) -> None:
    for name in groups()[group]:
        text = describe_choice(group, name)
        path = config_file("dataset" if group == "auxiliary" else group, name)
        assert path is not None
        assert path.read_text().rstrip() in text
        assert str(path) in text


def test_the_docstring_of_the_class_and_its_place_follow() -> None:
    text = describe_choice("scorer", "knn_penultimate")  # whose file varies another one's
    assert "class KNN  ood_lab/scorer/knn.py:" in text
    assert "Sun et al. 2022" in Path("ood_lab/scorer/knn.py").read_text()
    assert "k: rank of the neighbour" in text


def test_a_group_lists_its_choices_with_a_line_for_each() -> None:
    lines = describe_group("scorer").splitlines()
    assert [line.split()[0] for line in lines[1:]] == groups()["scorer"]
    assert all(len(line.split()) > 3 for line in lines[1:])
    assert max(map(len, lines)) <= 120


def test_the_command_line_prints_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help", "scorer=[knn,msp]"]) == 0
    out = capsys.readouterr().out
    assert "class KNN" in out
    assert "class MSP" in out
    assert main(["--help", "method=hamos"]) == 0
    assert "minimises ce + 0.5 compactness" in capsys.readouterr().out
    assert main(["--help", "regularizer"]) == 0
    assert capsys.readouterr().out.startswith("regularizer:\n")
    assert main(["--help", "scorer=knnn"]) == 2
    assert "Did you mean 'knn'?" in capsys.readouterr().err
    assert main(["--help", "scorers=knn"]) == 2
    assert "no such group. Did you mean 'scorer'?" in capsys.readouterr().err

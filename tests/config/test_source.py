"""Own code anywhere on the Python path is read, never imported, until it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ood_lab.__main__ import main
from ood_lab.config import RequestError
from ood_lab.config.annotation import accepts, describe
from ood_lab.config.signature import signature
from ood_lab.config.source import code_digest, module_file


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("INIT", "__init__")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".py").write_text(text)


RAISES = "raise RuntimeError('this package must not be imported for a check')\n"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of a user's, which can't be imported."""
    write(tmp_path, otherlab__INIT=RAISES, otherlab__deep__INIT=RAISES, otherlab__types="Rate = float\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    assert not any(name.startswith("otherlab") for name in sys.modules)


def test_a_module_is_found_without_importing_its_parents(lab: Path) -> None:
    write(lab, otherlab__deep__method="class Mine: ...\n")
    assert module_file("otherlab.deep.method") == lab / "otherlab/deep/method.py"
    assert module_file("otherlab.deep") == lab / "otherlab/deep/__init__.py"
    assert module_file("otherlab.nothing") is None
    assert module_file("no_such_package.x") is None
    assert signature("otherlab.deep.method.Mine").parameters == {}


def test_a_folder_without_an_init_is_a_package_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path, namespace_lab__method="class Mine:\n    def __init__(self, x, *, rate: float): ...\n")
    spec = signature("namespace_lab.method.Mine")
    assert (list(spec.parameters), spec.injected) == (["rate"], ("x",))
    write(tmp_path, single_file_lab="class Mine: ...\n")
    assert signature("single_file_lab.Mine").parameters == {}


def test_the_code_of_an_own_class_is_told_from_its_comments(lab: Path) -> None:
    plain = "from otherlab.helper import f\nclass Mine:\n    def g(self):\n        return f(1)\n"
    write(lab, otherlab__INIT="", otherlab__method=plain, otherlab__helper="def f(x): return x\n")
    first = code_digest("otherlab.method.Mine")
    assert first is not None
    write(lab, otherlab__method='"""Text."""\n' + plain.replace("return", "'text'\n        # why\n        return"))
    assert code_digest("otherlab.method.Mine") == first
    write(lab, otherlab__helper="def f(x): return -x\n")  # what it imports of its package counts
    second = code_digest("otherlab.method.Mine")
    assert second != first
    write(lab, otherlab__unused="x = 1\n")
    assert code_digest("otherlab.method.Mine") == second
    write(lab, otherlab__INIT="# nothing\nSCALE = 2\n")  # runs before the module
    third = code_digest("otherlab.method.Mine")
    assert third != second
    write(lab, otherlab__method=plain + "import flat_beside\n", flat_beside="x = 1\n")
    fourth = code_digest("otherlab.method.Mine")
    write(lab, flat_beside="x = 2\n")
    assert code_digest("otherlab.method.Mine") != fourth
    assert code_digest("ood_lab.scorer.knn.KNN") is code_digest("no_such_package.Mine") is None


def test_a_module_that_was_edited_is_read_again(lab: Path) -> None:
    write(lab, otherlab__method="class Mine:\n    def __init__(self, *, a: int): ...\n")
    assert list(signature("otherlab.method.Mine").parameters) == ["a"]
    write(lab, otherlab__method="class Mine:\n    def __init__(self, *, b: int): ...\n")
    os.utime(lab / "otherlab/method.py", ns=(1, 1))
    assert list(signature("otherlab.method.Mine").parameters) == ["b"]


METHOD = """
from __future__ import annotations
import typing
import typing as t
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional, Union
from collections.abc import Mapping, Sequence
import ood_lab.config.ranges as ranges
from ood_lab.config.ranges import PositiveInt as Count, Fraction
from ood_lab.id_loss.ce import CE
from ood_lab.optimizer import SGD
from .types import Rate, Kind
if TYPE_CHECKING:
    from .types import Deep
Local = Optional[Count]
Widths: t.TypeAlias = "list[Count]"

class Mine(CE):
    waits_for_outliers = True
    gives: str = "mine"

    def __init__(self, backbone, num_classes: int, seed: int, *, OPTION): ...
"""
TYPES = """
from typing import Literal
Rate = float
Kind = Literal["a", "b"]
Deep = list["Rate"]
"""


@pytest.mark.parametrize(
    ("annotation", "good", "bad", "words"),
    [
        ("Rate", 0.5, "x", "a number"),
        ("Kind", "a", "c", "one of a, b"),
        ("Deep", [0.5], ["x"], "a list, each entry a number"),
        ("Local", None, 0, "a whole number above 0 or null"),
        ("Widths", [1, 2], [0], "a list, each entry a whole number above 0"),
        ("Count", 1, 0, "a whole number above 0"),
        ("ranges.Fraction", 1, 2, "a number from 0 to 1"),
        ("Fraction | None", None, 2, "a number from 0 to 1 or null"),
        ("'Optional[int]'", None, "x", "a whole number or null"),
        ("typing.Optional[int]", 3, 0.5, "a whole number or null"),
        ("Union[int, str, None]", "x", 0.5, "a whole number or a string or null"),
        ("Annotated[int, 'of layers']", 3, "x", "a whole number"),
        ("t.Literal['x', 1]", 1, 2, "one of x, 1"),
        ("Sequence[int]", [1], 1, "a list, each entry a whole number"),
        ("Mapping[str, int]", {"a": 1}, [1], "a mapping"),
        ("SGD", {"_target_": "x.Y"}, 1, "a mapping with _target_ (a SGD)"),
        ("typing.Any", object(), None, "anything"),
    ],
)
def test_aliases_of_types_are_followed(annotation: str, good: object, bad: object, words: str, lab: Path) -> None:
    write(lab, otherlab__types=TYPES, otherlab__method=METHOD.replace("OPTION", f"option: {annotation}"))
    spec = signature("otherlab.method.Mine")
    assert accepts(spec.parameters["option"], good)
    assert describe(spec.parameters["option"]) == words
    if words != "anything":
        assert not accepts(spec.parameters["option"], bad)
    assert spec.constants["waits_for_outliers"] is True
    assert spec.constants["reads"] == ["logits"], "a tuple, declared by the base"
    assert spec.constants["gives"] == "mine"
    assert spec.constants["views"] == 1, "declared by a base"


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ("Nowhere", "the annotation Nowhere can't be checked: otherlab.method neither defines nor imports it"),
        ("typing.Callable[[], int]", r"the annotation Callable\[.*\] can't be checked: this form"),
        ("lambda: 3", "can't be checked"),
        ("nowhere.X", "otherlab.method doesn't import nowhere"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(annotation: str, message: str, lab: Path) -> None:
    write(lab, otherlab__types=TYPES, otherlab__method=METHOD.replace("OPTION", f"option: {annotation}"))
    with pytest.raises(RequestError, match=rf"otherlab\.method\.Mine, parameter option: .*{message}"):
        signature("otherlab.method.Mine")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such_lab.method.Mine", r"'no_such_lab\.method', which is not on the Python path\. Start in the folder"),
        ("otherlab.method.Nothing", "otherlab.method has no class 'Nothing'"),
        ("Mine", "expected package.module.Class"),
    ],
)
def test_a_target_that_is_not_there_is_named_with_a_remedy(target: str, message: str, lab: Path) -> None:
    write(lab, otherlab__method="class Mine: ...\n")
    with pytest.raises(RequestError, match=message):
        signature(target)


def test_a_syntax_error_is_named_with_its_line(lab: Path) -> None:
    write(lab, otherlab__method="class Mine:\n    def\n")
    with pytest.raises(RequestError, match=r"otherlab/method\.py, line 2"):
        signature("otherlab.method.Mine")


SHAPES = """
import dataclasses
import ood_lab.id_loss.ce as ce_module
from dataclasses import dataclass
from typing import ClassVar, Literal
try:
    from nowhere import Fallback
except ImportError:
    class Fallback: ...

class ByModule(ce_module.CE):
    def __init__(self, *args, sign: Literal[-1, 1], **kwargs): ...

@dataclass(kw_only=True)
class Part:
    known: ClassVar[int] = 3
    _: dataclasses.KW_ONLY
    rate: float = 0.5
"""


def test_bases_in_modules_passed_on_options_and_dataclass_marks(lab: Path) -> None:
    write(lab, otherlab__shapes=SHAPES)
    spec = signature("otherlab.shapes.ByModule")
    assert set(spec.parameters) == {"sign", "weight", "start", "end", "lr_factor"}
    assert spec.injected == ("dims",)
    assert spec.defaults["lr_factor"] == 1.0
    assert accepts(spec.parameters["sign"], -1)
    assert not accepts(spec.parameters["sign"], 0)
    part = signature("otherlab.shapes.Part")
    assert (list(part.parameters), part.optional) == (["rate"], {"rate"})
    assert signature("otherlab.shapes.Fallback").parameters == {}


OWN_TERM = """
from torch.nn import functional as F

from ood_lab.config.ranges import Fraction
from ood_lab.parts import Term

Share = Fraction


class Smooth(Term):
    reads = ("logits",)

    def __init__(self, dims, *, smoothing: Share = 0.1, **schedule):
        super().__init__(dims, **schedule)
        self.smoothing = smoothing

    def loss(self, view):
        return F.cross_entropy(view.id.logits, view.labels, label_smoothing=self.smoothing)
"""


def test_an_own_term_in_an_own_package_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path, smoothlab__INIT="", smoothlab__terms=OWN_TERM)
    (tmp_path / "conf/id_loss").mkdir(parents=True)
    (tmp_path / "conf/id_loss/smooth.yaml").write_text(
        "# @package id_loss.smooth\n_target_: smoothlab.terms.Smooth\nsmoothing: 0.2\n"
    )
    command = [
        "method=ce", "id_loss=[smooth]", "backbone.width=4", "trainer.max_epochs=1", "trainer.threads=1",
        "scorer=[msp]", "figure=[roc]", f"paths.output={tmp_path}/out", f"--config-dir={tmp_path}/conf",
    ]  # fmt: skip
    assert main([*command, "id_loss.smooth.smoothing=2"]) == 2
    assert "id_loss.smooth.smoothing=2: expected a number from 0 to 1" in capsys.readouterr().err
    assert main(command) == 0
    curves = next((tmp_path / "out").glob("smooth-*/curves.jsonl")).read_text()
    assert "smooth_mean" in curves


OWN_SCORER = """
from ood_lab.scorer.base import Scorer


class Norm(Scorer):
    def __init__(self, *, power: "int | None" = 2):
        self.power = power

    def _fit(self, train, val):
        pass

    def _score(self, data):
        return -data.features.norm(dim=1) ** self.power
"""


def test_an_own_detector_is_evaluated_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ood_lab

    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path, scorerlab__INIT="", scorerlab__norm=OWN_SCORER)
    (tmp_path / "conf/scorer").mkdir(parents=True)
    text = "# @package scorer.norm\n_target_: scorerlab.norm.Norm\npower: 1\n"
    (tmp_path / "conf/scorer/norm.yaml").write_text(text)
    command = [
        "method=ce", "backbone.width=4", "trainer.max_epochs=0", "trainer.threads=1", "scorer=[msp,norm]", "figure=[]",
        f"paths.output={tmp_path}/out",
    ]  # fmt: skip
    results = ood_lab.run(command, config_dir=tmp_path / "conf")
    assert {"msp", "norm"} <= set(results.frame()["scorer"])
    detector = ood_lab.load_detector(results.run_dir, "norm", config_dir=tmp_path / "conf")
    assert detector.scorer.power == 1

    # The other sign in the same file: another process scores it again, this one would run the code that it has.
    write(tmp_path, scorerlab__norm=OWN_SCORER.replace("return -data", "return data"))
    again = [sys.executable, "-m", "ood_lab", *command, "task=evaluate", f"--config-dir={tmp_path}/conf"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(again, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    before, after = (
        frame.query("scorer == 'norm' and metric == 'auroc'").set_index("ood_set")["value"]
        for frame in (results.frame(), ood_lab.load_results(results.run_dir).frame())
    )
    assert after.to_dict() == pytest.approx((1 - before).to_dict())
    write(tmp_path, scorerlab__norm=OWN_SCORER.replace("return -data", "return 2 * data"))
    with pytest.raises(RequestError, match="its code has changed since this process imported it"):
        ood_lab.run(command, config_dir=tmp_path / "conf")

"""A classifier of K classes under a head with K + 1 outputs: its rows are taken over, the last one is new."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ood_lab.config import RequestError, prepare
from ood_lab.task.build import build_method
from ood_lab.task.train import load_initial
from tests.cases import each

SMALL = ["backbone.width=4", "trainer.threads=1"]
DOS = ["method=dos", "auxiliary=fractals", *SMALL]


def classifier(folder: Path, outputs: int) -> Path:
    """The weights of a network with so many outputs, in a file."""
    weights = build_method(prepare(["method=ce", *SMALL, "seed=7"])).state_dict()
    weights = {name.removeprefix("backbone."): v.clone() for name, v in weights.items() if name.startswith("backbone.")}
    weights["fc.weight"] = torch.arange(outputs)[:, None] + torch.zeros(1, weights["fc.weight"].shape[1])
    weights["fc.bias"] = -torch.arange(outputs).float()
    save_file(weights, folder / "classifier.safetensors")
    return folder / "classifier.safetensors"


@each("outputs", [10, 11])
def test_its_rows_are_taken_over_and_what_it_lacks_stays_as_initialised(outputs: int, tmp_path: Path) -> None:
    path = classifier(tmp_path, outputs)
    experiment = prepare([*DOS, "init=pretrained", f"init.checkpoint={path}", f"paths.output={tmp_path}"])
    method, fresh = build_method(experiment), build_method(experiment).state_dict()
    load_initial(method, experiment)
    given, found = load_file(path), method.backbone.state_dict()
    for name in ("fc.weight", "fc.bias"):
        assert len(found[name]) == 11
        assert torch.equal(found[name][:outputs], given[name])
        assert torch.equal(found[name][outputs:], fresh[f"backbone.{name}"][outputs:])
    assert all(torch.equal(found[name], given[name]) for name in given if not name.startswith("fc."))


@each("outputs", [9, 12])
def test_a_classifier_of_neither_size_is_refused_with_both(outputs: int, tmp_path: Path) -> None:
    path = classifier(tmp_path, outputs)
    experiment = prepare([*DOS, "init=pretrained", f"init.checkpoint={path}", f"paths.output={tmp_path}"])
    with pytest.raises(RequestError, match=r"a head with 10 or 11 outputs\).*fc\.(weight|bias)"):
        load_initial(build_method(experiment), experiment)


def test_a_run_that_starts_from_a_classifier_needs_the_plain_one(tmp_path: Path) -> None:
    (need,) = prepare([*DOS, "init=pretrained", f"paths.output={tmp_path}"]).prerequisites.values()
    assert need.run_id == prepare(["method=ce", *SMALL]).run_id

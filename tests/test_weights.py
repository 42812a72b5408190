"""Published weights: any usual shape of checkpoint is read, nothing in it is run, and a wrong one is named."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ood_lab.config.compose import compose, groups
from ood_lab.errors import RequestError
from ood_lab.task.build import build
from ood_lab.weights import adapt, read_weights


def network(width: int = 4, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, width, 3, bias=False), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width, 2))


STATE = network().state_dict()
SHAPES: dict[str, Any] = {
    "plain.pt": STATE,
    "nested.pth.tar": {"epoch": 100, "state_dict": STATE},
    "parallel.pt": {f"module.{name}": value for name, value in STATE.items()},
    "both.ckpt": {"state_dict": {f"module.{name}": value for name, value in STATE.items()}},
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_usual_shape_is_read(name: str, tmp_path: Path) -> None:
    torch.save(SHAPES[name], tmp_path / name)
    tensors = read_weights(tmp_path / name, None)
    assert tensors.keys() == STATE.keys()
    assert all(torch.equal(tensors[k], STATE[k]) for k in STATE)


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "x.safetensors")
    assert read_weights(tmp_path / "x.safetensors", None).keys() == STATE.keys()


@pytest.mark.parametrize("digits", [8, 64])
def test_the_checksum_may_be_given_whole_or_by_its_first_digits(digits: int, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save(STATE, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:digits]
    assert read_weights(path, digest)
    wrong = "0" * digits
    with pytest.raises(RequestError, match=f"SHA-256 {digest} where {wrong} belongs. Delete"):
        read_weights(path, wrong)


class Touch:
    """Code that a pickle would run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": Touch(tmp_path / "ran")}}, tmp_path / "x.pt")
    with pytest.raises(RequestError, match="no checkpoint of tensors"):
        read_weights(tmp_path / "x.pt", None)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", "half"])
@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
def test_a_damaged_file_is_named(name: str, content: bytes | str, tmp_path: Path) -> None:
    path = tmp_path / name
    if content == "half":
        save_file(STATE, path) if name.endswith("safetensors") else torch.save(STATE, path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.write_bytes(content)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=f"{name} is no checkpoint of tensors"):
        read_weights(path, None)


@pytest.mark.parametrize("state", [{"a": 3}, [1, 2], {"state_dict": {"a": "text"}}])
def test_what_holds_no_tensors_is_named(state: Any, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(RequestError, match=r"x\.pt is no checkpoint of tensors"):
        read_weights(tmp_path / "x.pt", None)


def test_tensors_are_matched_in_order_and_counters_left_out() -> None:
    theirs = {f"other.{i}": v for i, (k, v) in enumerate(network(seed=1).state_dict().items()) if "num_" not in k}
    ours = network(seed=2).state_dict()
    fitted = adapt(theirs, ours)
    assert fitted.keys() == ours.keys()
    for (name, value), given in zip(
        ((k, v) for k, v in fitted.items() if "num_" not in k), theirs.values(), strict=True
    ):
        assert torch.equal(value, given), name


def test_a_tensor_of_another_shape_is_named_on_both_sides() -> None:
    with pytest.raises(RequestError, match=r"0\.weight \[5, 3, 3, 3\] does not fit 0\.weight \[4, 3, 3, 3\]"):
        adapt(network(5).state_dict(), STATE)


@pytest.mark.parametrize("missing", [1, 2])
def test_another_number_of_tensors_is_told(missing: int) -> None:
    counted = [name for name in STATE if "num_" not in name]
    with pytest.raises(RequestError, match=rf"{7 - missing} tensors where the chosen backbone has 7"):
        adapt({name: STATE[name] for name in counted[:-missing]}, STATE)


PUBLISHED = [name for name in groups()["init"] if compose([f"init={name}"]).plain("init.weights") is not None]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_say_where_they_come_from(name: str) -> None:
    weights = compose([f"init={name}", "paths.data=/d"]).plain("init.weights")
    assert set(weights) == {"file", "url", "sha256", "how_to_get", "licence"}
    assert weights["file"].startswith("/d/weights/")
    assert weights["sha256"] is None or len(weights["sha256"]) in (8, 64)


@pytest.mark.data
@pytest.mark.parametrize(("name", "classes", "accuracy"), [("cifar10", 10, 0.9454), ("cifar100", 100, 0.7506)])
def test_dices_densenets_reach_their_accuracy(name: str, classes: int, accuracy: float, tmp_path: Path) -> None:
    from ood_lab.config.image_sets import image_set_config
    from ood_lab.datamodule import EvalLoader, Normalise
    from ood_lab.pixels import Reading

    data = Path(os.environ["OOD_LAB_DATA"])
    weights = compose([f"init=dice_densenet_{name}", f"paths.data={data}"]).plain("init.weights")
    backbone = build(compose(["backbone=densenet100"]).plain("backbone"), classes).eval()
    backbone.load_state_dict(adapt(read_weights(Path(weights["file"]), weights["sha256"]), backbone.state_dict()))
    listing = build(image_set_config(name, str(data))).listing("test", 0)
    pixels = Reading(32, 32, tmp_path, 1.0, 0).open(listing, name)
    normalise = Normalise([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010])
    right = 0
    with torch.inference_mode():
        for batch in EvalLoader(pixels, listing.labels, normalise, 200, torch.device("cpu")):
            right += int((backbone(batch.images).logits.argmax(1) == batch.labels).sum())
    assert right / len(listing) == pytest.approx(accuracy, abs=5e-5)

"""Published weights: any usual shape of checkpoint is read, nothing in it is run, and a wrong one is named."""

from __future__ import annotations

import argparse
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ood_lab.config.compose import compose
from ood_lab.config.groups import groups
from ood_lab.config.recipe import of_file
from ood_lab.errors import RequestError
from ood_lab.task.build import build
from ood_lab.training.weights import by_order, fitted, keeps_order, read_weights
from tests.cases import each


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


@each("name", SHAPES)
def test_every_usual_shape_is_read(name: str, tmp_path: Path) -> None:
    torch.save(SHAPES[name], tmp_path / name)
    tensors = read_weights(tmp_path / name, None)
    assert tensors.keys() == STATE.keys()
    assert all(torch.equal(tensors[k], STATE[k]) for k in STATE)


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "x.safetensors")
    assert read_weights(tmp_path / "x.safetensors", None).keys() == STATE.keys()


@each("digits", [8, 64])
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


@each("content", [b"", b"no checkpoint", "half"])
@each("name", ["x.pt", "x.safetensors"])
def test_a_damaged_file_is_named(name: str, content: bytes | str, tmp_path: Path) -> None:
    path = tmp_path / name
    if content == "half":
        save_file(STATE, path) if name.endswith("safetensors") else torch.save(STATE, path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.write_bytes(content)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=f"{name} is no checkpoint of tensors"):
        read_weights(path, None)


@each("state", [{"a": 3}, [1, 2], {"state_dict": {"a": "text"}}])
def test_what_holds_no_tensors_is_named(state: Any, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(RequestError, match=r"x\.pt is no checkpoint of tensors"):
        read_weights(tmp_path / "x.pt", None)


def test_tensors_are_matched_in_order_and_counters_left_out() -> None:
    theirs = {
        f"other.{i}.{k.rpartition('.')[2]}": v
        for i, (k, v) in enumerate(network(seed=1).state_dict().items())
        if "num_" not in k
    }
    ours = network(seed=2).state_dict()
    fitted = by_order(theirs, ours)
    assert fitted.keys() == ours.keys()
    for (name, value), given in zip(
        ((k, v) for k, v in fitted.items() if "num_" not in k), theirs.values(), strict=True
    ):
        assert torch.equal(value, given), name


def test_a_tensor_of_another_shape_is_named_on_both_sides() -> None:
    with pytest.raises(RequestError, match=r"0\.weight \[5, 3, 3, 3\] does not fit 0\.weight \[4, 3, 3, 3\]"):
        by_order(network(5).state_dict(), STATE)


@each("missing", [1, 2])
def test_another_number_of_tensors_is_told(missing: int) -> None:
    counted = [name for name in STATE if "num_" not in name]
    with pytest.raises(RequestError, match=rf"{7 - missing} tensors where the chosen backbone has 7"):
        by_order({name: STATE[name] for name in counted[:-missing]}, STATE)


def kinds(**names: int) -> dict[str, torch.Tensor]:
    return {name.replace("__", "."): torch.full((size,), float(i)) for i, (name, size) in enumerate(names.items())}


def test_a_tensor_of_another_kind_is_named_though_its_shape_fits() -> None:
    theirs = kinds(a__weight=3, a__bias=3, a__running_var=3, a__running_mean=3)
    ours = kinds(b__weight=3, b__bias=3, b__running_mean=3, b__running_var=3)
    with pytest.raises(RequestError, match=r"a\.running_var is where b\.running_mean belongs, a running_var for a"):
        by_order(theirs, ours)
    assert by_order(kinds(a__gamma=3), kinds(b__weight=3))["b.weight"].tolist() == [0, 0, 0]


@each(
    "names",
    [("beta", "gamma", "moving_mean", "moving_variance"), ("weight", "bias", "var", "mean"), ("p0", "p1", "p2", "p3")],
)
def test_vectors_whose_kind_is_another_or_unknown_are_refused(names: tuple[str, ...]) -> None:
    ours = kinds(b__weight=3, b__bias=3, b__running_mean=3, b__running_var=3)
    with pytest.raises(RequestError, match=r"is where b\.\w+ belongs, a \w+ for a \w+; choose"):
        by_order({f"a.{name}": value for name, value in zip(names, ours.values(), strict=True)}, ours)


def test_quantised_weights_are_refused() -> None:
    with pytest.raises(RequestError, match=r"a\.weight holds torch\.int8: quantised"):
        by_order({"a.weight": torch.ones(3, dtype=torch.int8)}, {"b.weight": torch.ones(3)})


@each("name", ["x.pt", "x.SafeTensors", "x"])
def test_a_files_kind_is_told_by_its_content_not_its_name(name: str, tmp_path: Path) -> None:
    save_file(STATE, tmp_path / name)
    assert read_weights(tmp_path / name).keys() == STATE.keys()
    assert not keeps_order(tmp_path / name)
    torch.save(STATE, tmp_path / name)
    assert read_weights(tmp_path / name).keys() == STATE.keys()
    assert keeps_order(tmp_path / name)


def resnet(classes: int = 4, name: str = "resnet18_imagenet") -> Any:
    torch.manual_seed(1)
    return build(compose([f"backbone={name}"]).plain("backbone"), classes).eval()


@pytest.fixture(scope="module")
def public() -> Any:
    """torchvision's network with statistics of its own."""
    import torchvision

    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=4)
    network(torch.randn(8, 3, 64, 64))
    return network.eval()


def wrapped(state: dict[str, Any]) -> dict[str, Any]:
    """What people's scripts write."""
    other = {name: torch.zeros_like(value) for name, value in state.items()}
    openood = {n.replace("downsample", "shortcut").replace("fc.", "linear."): v for n, v in state.items()}
    return {
        "plain": state,
        "model": {"model": state, "epoch": 3, "optimizer": {"state": {0: {"m": torch.ones(2)}}, "param_groups": []}},
        "net and module": {"net": {f"module.{n}": v for n, v in state.items()}, "acc": 91.0},
        "numpy scalar": {"state_dict": state, "best": np.float64(0.91), "args": argparse.Namespace(lr=np.float32(0.1))},
        "extra counter": {**state, "n_averaged": torch.tensor(5)},
        "lightning": {"state_dict": {f"net.backbone.{n}": v for n, v in state.items()}, "global_step": 7},
        "beside a head": {**{f"backbone.{n}": v for n, v in state.items()}, "projector.0.weight": torch.ones(3, 3)},
        "model before ema": {"ema": other, "model": state},
        "ema alone": {"ema": state, "step": 3},
        "twice": {"model": {"state_dict": state}},
        "compiled": {f"_orig_mod.{n}": v for n, v in state.items()},
        "without counters": {n: v for n, v in state.items() if "num_batches" not in n},
        "half": {n: v.half() if v.is_floating_point() else v for n, v in state.items()},
        "OpenOOD's names": openood,
        "shuffled": dict(sorted(state.items(), key=lambda item: hashlib.md5(item[0].encode()).hexdigest())),
        "other names in order": {f"layer_{i}.{n.rpartition('.')[2]}": v for i, (n, v) in enumerate(state.items())},
    }


@each("case", list(wrapped({})))
def test_a_foreign_checkpoint_gives_the_same_logits(case: str, public: Any, tmp_path: Path) -> None:
    torch.save(wrapped(public.state_dict())[case], tmp_path / "x.pth")
    ours = resnet()
    ours.load_state_dict(fitted(read_weights(tmp_path / "x.pth"), ours.state_dict(), ours.public_names(), True))
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    near = 0.02 if case == "half" else 1e-4
    with torch.no_grad():
        torch.testing.assert_close(ours(images).logits, public(images), atol=near, rtol=near)


def test_safetensors_are_fitted_by_name_and_never_by_order(public: Any, tmp_path: Path) -> None:
    path, ours = tmp_path / "x.safetensors", resnet()
    save_file({n: v.contiguous() for n, v in public.state_dict().items()}, path)
    ours.load_state_dict(fitted(read_weights(path), ours.state_dict(), ours.public_names(), False))
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(ours(images).logits, public(images), atol=1e-4, rtol=1e-4)
    with pytest.raises(RequestError, match=r"\(x0, .*\) are not this backbone's, and a \.safetensors file"):
        fitted({f"x{i}": v for i, v in enumerate(public.state_dict().values())}, ours.state_dict(), {}, False)


@each("name", ["resnet18", "resnet34", "resnet50_imagenet", "narrow"])
def test_public_names_are_in_the_order_of_ours_and_name_every_module(name: str) -> None:
    import torchvision

    ours = resnet(10, name)
    named = ours.public_names()
    modules = {f"{own}.": public for public, own in named.items() if "shortcut" not in public and public != "linear"}
    kept = [n for n in ours.state_dict() if not n.endswith("num_batches_tracked")]
    translated = [next(p + n[len(o) - 1 :] for o, p in modules.items() if n.startswith(o)) for n in kept]
    if name in ("resnet34", "resnet50_imagenet"):
        theirs = getattr(torchvision.models, name.partition("_")[0])(num_classes=10).state_dict()
        assert translated == [n for n in theirs if not n.endswith("num_batches_tracked")]
    assert len(set(translated)) == len(kept)


@each(
    ("change", "message"),
    [
        ("classes", r"fc\.weight \[7, 512\] does not fit fc\.weight \[4, 512\]; choose .* as many classes"),
        ("deeper", r"hold \d+ tensors more than the chosen backbone, beginning with layer1\.2\.conv1\.weight"),
        ("other", r"does not fit"),
        ("few", r"the weights hold 1 tensors where the chosen backbone has 102"),
        ("two", r"hold several networks: encoder_k, encoder_q; choose one with init\.key=NAME"),
    ],
)
def test_what_does_not_fit_is_named_shortly_with_a_remedy(change: str, message: str, public: Any) -> None:
    import torchvision

    state = public.state_dict()
    theirs = {
        "classes": lambda: torchvision.models.resnet18(num_classes=7).state_dict(),
        "deeper": lambda: torchvision.models.resnet34(num_classes=4).state_dict(),
        "other": lambda: torchvision.models.vgg11(num_classes=4).state_dict(),
        "few": lambda: {"z.weight": state["conv1.weight"]},
        "two": lambda: {f"{part}.{n}": v for part in ("encoder_q", "encoder_k") for n, v in state.items()},
    }[change]()
    ours = resnet()
    with pytest.raises(RequestError, match=message) as caught:
        fitted(theirs, ours.state_dict(), ours.public_names(), True)
    assert len(str(caught.value)) < 300


def test_a_network_is_chosen_by_key(public: Any, tmp_path: Path) -> None:
    state = public.state_dict()
    other = {name: torch.zeros_like(value) for name, value in state.items()}
    torch.save({"teacher": other, "student": state}, tmp_path / "x.pt")
    with pytest.raises(RequestError, match=r"several networks: teacher, student; choose one with init\.key="):
        read_weights(tmp_path / "x.pt")
    assert torch.equal(read_weights(tmp_path / "x.pt", key="student")["conv1.weight"], state["conv1.weight"])
    moco = {f"module.{p}.{n}": v for p, s in (("encoder_q", state), ("encoder_k", other)) for n, v in s.items()}
    torch.save({"state_dict": moco}, tmp_path / "y.pt")
    assert torch.equal(read_weights(tmp_path / "y.pt", key="encoder_q")["conv1.weight"], state["conv1.weight"])
    with pytest.raises(RequestError, match=r"init\.key=nobody: .*y\.pt has no such part; it has state_dict"):
        read_weights(tmp_path / "y.pt", key="nobody")


def test_a_checkpoint_that_holds_code_says_which_and_what_to_do(tmp_path: Path) -> None:
    torch.save({"state_dict": STATE, "config": compose([]).cfg}, tmp_path / "x.pt")
    with pytest.raises(RequestError, match=r"holds a omegaconf\.\S+, which is code\. Save the tensors alone"):
        read_weights(tmp_path / "x.pt")


PUBLISHED = [
    name for name in groups()["init"] if "weights" in of_file("init", name) and of_file("init", name)["weights"]
]


@each("name", PUBLISHED)
def test_published_weights_say_where_they_come_from(name: str) -> None:
    weights = compose([f"init={name}", "paths.data=/d"]).plain("init.weights")
    assert set(weights) == {"file", "url", "sha256", "how_to_get", "licence"}
    assert weights["file"].startswith("/d/weights/")
    assert weights["sha256"] is None or len(weights["sha256"]) in (8, 64)


@pytest.mark.data
@pytest.mark.parametrize(("name", "classes", "accuracy"), [("cifar10", 10, 0.9454), ("cifar100", 100, 0.7506)])
def test_dices_densenets_reach_their_accuracy(name: str, classes: int, accuracy: float, tmp_path: Path) -> None:
    from ood_lab.config.image_sets import image_set_config
    from ood_lab.images.pixels import Reading
    from ood_lab.training.evaluation_set import EvalLoader
    from ood_lab.training.normalise import Normalise

    data = Path(os.environ["OOD_LAB_DATA"])
    weights = compose([f"init=dice_densenet_{name}", f"paths.data={data}"]).plain("init.weights")
    backbone = build(compose(["backbone=densenet100"]).plain("backbone"), classes).eval()
    backbone.load_state_dict(by_order(read_weights(Path(weights["file"]), weights["sha256"]), backbone.state_dict()))
    listing = build(image_set_config(name, str(data))).listing("test", 0)
    pixels = Reading(32, 32, tmp_path, 1.0, 0).open(listing, name)
    normalise = Normalise([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010])
    right = 0
    with torch.inference_mode():
        for batch in EvalLoader(pixels, listing.labels, normalise, 200, torch.device("cpu")):
            right += int((backbone(batch.images).logits.argmax(1) == batch.labels).sum())
    assert right / len(listing) == pytest.approx(accuracy, abs=5e-5)

"""Networks of timm: features and logits are those that timm gives, and each wrong request has one message."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from ood_lab.__main__ import main
from ood_lab.backbone.timm import Timm
from ood_lab.config import RequestError, prepare
from ood_lab.config.timm_names import check_tag, names
from ood_lab.training.weights import fitted, read_weights
from tests.cases import each

# Of those that timm has for tests, with 0.1 to 0.5 M parameters.
SMALL = ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"]


def images(side: int = 64) -> torch.Tensor:
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0))


@each("name", SMALL)
def test_features_and_logits_are_those_of_timm(name: str) -> None:
    sized = {"img_size": 64} if name == "test_vit" else {}
    theirs = timm.create_model(name, num_classes=7, **sized).eval()
    ours = Timm(7, name=name, side=64).eval()
    state = fitted(theirs.state_dict(), ours.state_dict(), ours.public_names(), in_order=True)
    ours.load_state_dict(state)
    with torch.no_grad():
        features, logits = ours(images())
        torch.testing.assert_close(logits, theirs(images()))
        maps = theirs.forward_features(images())
        torch.testing.assert_close(features, theirs.forward_head(maps, pre_logits=True))
    assert features.shape == (3, ours.feature_dim)


@each("name", SMALL)
def test_weights_of_a_file_are_taken_over_with_the_classifier_where_it_fits(name: str, tmp_path: Path) -> None:
    sized = {"img_size": 64} if name == "test_vit" else {}
    source = timm.create_model(name, num_classes=1000, **sized)
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    same, other = (Timm(n, name=name, side=64, file=str(tmp_path / "weights.pt")) for n in (1000, 5))
    with torch.no_grad():
        expected = source.eval()(images())
        for network in (same, other):
            network.load_published()
            network.eval()
        torch.testing.assert_close(same(images()).logits, expected)
        torch.testing.assert_close(same(images()).features, other(images()).features)


def test_a_file_with_as_many_classes_as_the_data_set_gives_its_classifier(tmp_path: Path) -> None:
    source = timm.create_model("test_resnet", num_classes=10)
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    network = Timm(10, name="test_resnet", side=64, file=str(tmp_path / "weights.pt"))
    network.load_published()
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(images()).logits, source.eval()(images()))


def test_published_weights_are_read_from_timms_cache(tmp_path: Path) -> None:
    """The folder is laid out as the Hugging Face hub leaves it after a download."""
    source = timm.create_model("test_vit")
    torch.nn.init.normal_(source.head.weight)
    repository = tmp_path / "models--timm--test_vit.r160_in1k"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    save_file(source.state_dict(), snapshot / "model.safetensors")
    program = (
        "import torch\n"
        "from ood_lab.backbone.timm import Timm\n"
        "network = Timm(1000, name='test_vit.r160_in1k', side=160, pretrained=True)\n"
        "network.load_published()\n"
        "print(float(network.fc.weight.double().norm()), float(network.network.cls_token.double().norm()))\n"
    )
    env = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    head, token = map(float, done.stdout.split())
    assert head == pytest.approx(float(source.head.weight.detach().double().norm()))
    assert token == pytest.approx(float(source.cls_token.detach().double().norm()))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "weights.pt")
    with pytest.raises(RequestError, match="no weights for test_resnet"):
        Timm(3, name="test_resnet", side=64, file=str(tmp_path / "weights.pt")).load_published()


def test_a_checkpoint_of_timm_fits_through_init(tmp_path: Path) -> None:
    theirs = timm.create_model("test_resnet", num_classes=10)
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "weights.pt")
    ours = Timm(10, name="test_resnet", side=32)
    weights = read_weights(tmp_path / "weights.pt")
    found = fitted(weights, ours.state_dict(), ours.public_names(), in_order=True)
    torch.testing.assert_close(found["fc.weight"], theirs.state_dict()["fc.weight"])


def test_layers_are_counted_from_the_head_and_only_the_last_is_trained() -> None:
    network = Timm(3, name="test_vit", side=64)
    depths = {name: network.layer_depths()[p] for name, p in network.network.named_parameters()}
    blocks = [depths[f"blocks.{i}.mlp.fc1.weight"] for i in range(len(network.network.blocks))]
    assert blocks == sorted(blocks, reverse=True)
    assert len(set(blocks)) == len(blocks)
    assert depths["patch_embed.proj.weight"] > blocks[0]
    assert min(depths.values()) >= 1
    assert network.network.pos_embed in network.undecayed()
    network.freeze_below_last_stage()
    trained = {name for name, p in network.network.named_parameters() if p.requires_grad}
    last = f"blocks.{len(blocks) - 1}."
    assert any(name.startswith(last) for name in trained)
    assert not any(name.startswith(("patch_embed", "blocks.0.")) for name in trained)
    assert network.fc.weight.requires_grad


def test_the_layers_of_a_convolutional_network_are_told_apart_too() -> None:
    network = Timm(3, name="test_resnet", side=64)
    network.freeze_below_last_stage()
    trained = {name.partition(".")[0] for name, p in network.network.named_parameters() if p.requires_grad}
    assert trained == {"layer4"}


@each(
    ("overrides", "words"),
    [
        ([], "name the network, for example backbone.name=resnet50"),
        (["backbone.name=resnet81"], "timm has no such network. Did you mean 'resnet"),
        (["backbone.name=ResNet50"], "Did you mean 'resnet50'?"),
        (["backbone.name=qqqqqq"], "timm has no such network. timm.list_models() has them all"),
        (["backbone.name=resnet18.nn"], "resnet18 has no weights 'nn'"),
        (["backbone.name=resnet18."], "resnet18 has no weights ''"),
        (["backbone.name=resnet18.a1_in1kk"], "resnet18 has no weights 'a1_in1kk'; it has a1_in1k, "),
        (["backbone.name=resnet18", "backbone.file=nowhere.pt"], "backbone.file=nowhere.pt: no such file"),
        (["backbone.name=resnet18", "backbone.file=nowhere.pt", "backbone.pretrained=true"], "give only one"),
        (["backbone.name=resnet18", "backbone.side=0"], "backbone.side=0: expected a whole number above 0"),
    ],
)
def test_a_wrong_name_is_refused_without_importing_timm(overrides: list[str], words: str) -> None:
    with pytest.raises(RequestError) as error:
        prepare(["method=ce", "backbone=timm", *overrides])
    assert words in str(error.value)


def test_the_names_read_from_the_source_are_those_of_timm() -> None:
    assert set(timm.list_models()) <= names()
    for name in timm.list_pretrained():
        check_tag(*name.split(".", 1))


def test_unknown_weights_and_sizes_are_refused_when_it_is_built() -> None:
    with pytest.raises(RequestError, match="resnet18 has no weights 'foo'; it has a1_in1k"):
        Timm(3, name="resnet18.foo", side=32)
    with pytest.raises(RequestError, match="can't take images of 32 pixels"):
        Timm(3, name="inception_v3", side=32)


def test_a_network_without_pooled_features_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Timm, "_create", lambda *_, **__: Unpooled())
    with pytest.raises(RequestError, match=r"gives no pooled features of it, but \[1, 8, 4, 4\]"):
        Timm(3, name="test_resnet", side=32)


class Unpooled(torch.nn.Module):
    pretrained_cfg = None

    def reset_classifier(self, classes: int) -> None:
        pass

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.new_zeros(len(x), 8, 4, 4)


def test_a_run_is_named_by_its_network_and_normalises_as_that_does(tmp_path: Path) -> None:
    arguments = [
        "method=ce", "backbone=timm", "backbone.name=test_vit", "optimizer=adamw", "optimizer.lr=0.001",
        "trainer.max_epochs=1", "trainer.threads=1", "scorer=[msp,knn]", "figure=[]", f"paths.output={tmp_path}",
    ]  # fmt: skip
    assert main(arguments) == 0
    (folder,) = tmp_path.glob("ce-digits-test_vit-s0-*")
    import ood_lab

    detector = ood_lab.load_detector(folder, "knn")
    configuration = timm.create_model("test_vit").pretrained_cfg
    assert detector.normalise.mean.flatten().tolist() == pytest.approx(list(configuration["mean"]))
    assert detector.normalise.std.flatten().tolist() == pytest.approx(list(configuration["std"]))
    row = ood_lab.run(arguments).rows[0]
    assert row["backbone"] == "test_vit"


def test_the_content_of_a_file_of_weights_is_part_of_the_identity(tmp_path: Path) -> None:
    def run_id(path: Path, content: bytes) -> str:
        path.write_bytes(content)
        named = ["backbone=timm", "backbone.name=test_resnet", f"backbone.file={path}"]
        return prepare(["method=ce", *named, f"paths.output={tmp_path}"]).run_id

    assert run_id(tmp_path / "a.pt", b"1") == run_id(tmp_path / "b.pt", b"1")
    assert run_id(tmp_path / "a.pt", b"1") != run_id(tmp_path / "a.pt", b"2")

"""Which sets an experiment reads: every protocol composes; counts, overlaps and auxiliary sets are checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from ood_lab.config import RequestError, prepare
from ood_lab.config.compose import compose
from ood_lab.config.groups import groups
from ood_lab.config.image_sets import image_set_config
from tests.cases import each
from tests.trees import plant

STATED = {
    ("openood_v15", "cifar10"): 6, ("openood_v15", "cifar100"): 6, ("openood_v15", "imagenet1k"): 5,
    ("hamos", "cifar10"): 7, ("hamos", "cifar100"): 7, ("hamos", "imagenet1k"): 4,
    ("classic", "cifar10"): 6, ("classic", "cifar100"): 6, ("ares", "cifar10"): 5, ("ares", "cifar100"): 5,
    ("bood", "cifar100"): 5, ("bood", "imagenet100"): 6, ("aoe", "cifar10"): 8, ("aoe", "cifar100"): 8,
    ("greg", "cifar10"): 6, ("greg", "cifar100"): 6, ("greg", "imagenet10"): 4,
    ("cifar", "cifar10"): 5, ("cifar", "cifar100"): 5, ("digits", "digits"): 3,
}  # fmt: skip


def test_every_protocol_is_listed_here() -> None:
    assert {name for name, _ in STATED} == set(groups()["protocol"]) - {"base", "own"}


@each(("protocol", "dataset"), STATED)
def test_every_protocol_composes_for_each_of_its_id_sets(protocol: str, dataset: str, tmp_path: Path) -> None:
    experiment = prepare(
        ["task=data", f"protocol={protocol}", f"dataset={dataset}", "method=ce", f"paths.data={tmp_path}"]
    )
    assert len(experiment.ood_sets) == STATED[protocol, dataset]
    node = experiment.value("protocol")
    assert node["fpr95"] == ("id_pos" if protocol in ("classic", "greg", "ares", "bood") else "ood_pos")
    assert node["subset"] == {"classic": 2000, "ares": 2000, "bood": 1000 if "imagenet" in dataset else 2000}.get(
        protocol
    )
    assert len(node["mean"]) == len(node["std"]) == 3


def test_a_protocol_without_sets_for_the_id_set_says_for_which_it_has_some() -> None:
    with pytest.raises(RequestError, match=r"protocol=bood names no OOD set for dataset=digits.*cifar100, imagenet100"):
        prepare(["protocol=bood"])


def test_sets_named_by_hand_need_no_entry_in_the_protocol() -> None:
    assert prepare(["protocol=bood", "protocol.far=[photos]"]).ood_sets == ("photos",)


def test_the_protocols_constants_normalise_and_so_belong_to_the_run() -> None:
    plain = prepare(["method=ce"])
    classic = prepare(["method=ce", "protocol=classic", "protocol.far=[photos]"])
    by_hand = prepare(["method=ce", "dataset.mean=[0.49137,0.48235,0.44667]", "dataset.std=[0.24706,0.24353,0.26157]"])
    assert classic.run_id != plain.run_id
    assert classic.run_id == by_hand.run_id


def cifar(root: Path) -> list[str]:
    plant(image_set_config("cifar10", str(root)), "folder", [f"class{i}" for i in range(10)])
    return ["method=ce", "dataset=cifar10", f"paths.data={root}", f"paths.output={root}/outputs", "protocol.id_val=10"]


def test_another_number_of_images_than_stated_is_refused_or_marked(tmp_path: Path) -> None:
    here = [*cifar(tmp_path), "protocol.near=[]", "protocol.far=[svhn]"]
    plant(image_set_config("svhn", str(tmp_path)), "torchvision", [str(i) for i in range(10)])
    assert prepare(here).ood_sets == ("svhn",), "what a Matlab file holds is only known by reading it"
    plant(image_set_config("ninco", str(tmp_path)), "folder", ["a", "b"])
    other = [*cifar(tmp_path), "protocol.near=[]", "protocol.far=[ninco]"]
    with pytest.raises(RequestError, match=r"ninco: 4 images \(folder layout\) where 5,879 are stated.*check=loose"):
        prepare(other)
    assert prepare([*other, "protocol.check=loose"]).use("ninco").expected == 5879


def test_a_set_that_shares_classes_with_the_id_set_is_refused(tmp_path: Path) -> None:
    here = [*cifar(tmp_path), "protocol.near=[]", "protocol.far=[ninco]", "protocol.check=loose"]
    plant(image_set_config("ninco", str(tmp_path)), "folder", ["Class3", "zebra"])
    with pytest.raises(RequestError, match=r"ninco shares 1 classes with cifar10 \(Class3\)"):
        prepare(here)


@each(
    ("overrides", "message"),
    [
        (["auxiliary=digits"], "is the ID set itself"),
        (["auxiliary=letters"], "also a test set of the protocol"),
        (["auxiliary=fractal"], "Did you mean 'fractals'"),
        (["auxiliary=fractals", "auxiliary.count=0"], "auxiliary.count=0: expected a whole number above 0"),
        ([], "method=oe needs a source of outliers \\(outlier_loss=outlier_exposure\\); add .* or auxiliary="),
        (["auxiliary=svhn"], "the auxiliary set svhn is not there. svhn: missing"),
    ],
)
def test_a_wrong_auxiliary_set_is_refused(overrides: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=message):
        prepare(["method=oe", f"paths.data={tmp_path}", *overrides])


def test_a_method_that_takes_no_auxiliary_set_refuses_one() -> None:
    with pytest.raises(RequestError, match="method=ce takes no auxiliary, but auxiliary=fractals"):
        prepare(["method=ce", "auxiliary=fractals"])


def test_the_auxiliary_set_and_its_options_belong_to_the_run() -> None:
    ids = {
        prepare(["method=oe", *more]).run_id
        for more in (
            ["auxiliary=fractals"],
            ["auxiliary=uniform_noise"],
            ["auxiliary=fractals", "auxiliary.count=100"],
            ["auxiliary=fractals", "trainer.auxiliary_batch_size=64"],
        )
    }
    assert len(ids) == 4
    plain = compose(["method=ce"]).plain("auxiliary")
    assert plain is None


def test_devices_must_share_the_batch_evenly() -> None:
    with pytest.raises(RequestError, match=r"trainer\.batch_size=10 is shared by trainer\.devices=4"):
        prepare(["trainer.batch_size=10", "trainer.devices=4"])


def test_published_weights_that_are_not_there_are_named_with_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(
        RequestError, match=r"init=oe_wrn40_2_cifar10: .*cifar10_wrn_baseline_epoch_99\.pt is not there"
    ):
        prepare([*cifar(tmp_path), "protocol.near=[]", "protocol.far=[photos]", "init=oe_wrn40_2_cifar10"])

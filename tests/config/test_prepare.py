"""From a command line to checked requests: needed runs, sweeps, a user's own configuration."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from ood_lab.config import RequestError, prepare
from ood_lab.config.groups import groups
from ood_lab.config.prepare import expand_sweep
from tests.cases import each


@pytest.fixture(autouse=True)
def _places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OOD_LAB_DATA", "no-such-folder")  # one name, so that composed image sets are remembered
    monkeypatch.setenv("OOD_LAB_OUTPUT", str(tmp_path / "outputs"))


def needed(*overrides: str) -> str:
    (need,) = prepare(overrides).prerequisites.values()
    return need.run_id


@each("method", ["hamos", "hamos_released", "cider"])
def test_a_fine_tuning_needs_the_run_of_the_plain_command(method: str) -> None:
    assert needed(f"method={method}") == prepare(["method=ce"]).run_id


def test_a_classifier_needs_nothing() -> None:
    assert prepare(["method=ce"]).prerequisites == {}


def test_random_weights_and_a_given_checkpoint_need_nothing(tmp_path: Path) -> None:
    checkpoint = tmp_path / "weights.ckpt"
    checkpoint.write_bytes(b"weights")
    assert prepare(["init=random"]).prerequisites == {}
    assert prepare([f"init.checkpoint={checkpoint}"]).prerequisites == {}


@each(
    "override",
    [
        "trainer.max_epochs=3",
        "trainer.batch_size=64",
        "trainer.precision=bf16-mixed",
        "method.optimizer.lr=0.5",
        "outlier_loss.weight=0.3",
        "synthesizer=midpoints",
        "augmentation=simclr",
    ],
)
def test_how_the_fine_tuning_trains_does_not_change_the_needed_run(override: str) -> None:
    assert needed(override) == prepare(["method=ce"]).run_id
    assert prepare([override]).run_id != prepare([]).run_id


@each("override", ["backbone.width=8", "backbone=resnet18", "seed=3", "dataset.recipe.epochs.pretrain=2"])
def test_network_data_and_seed_are_those_of_the_needed_run(override: str) -> None:
    assert needed(override) == prepare(["method=ce", override]).run_id
    assert needed(override) != prepare(["method=ce"]).run_id


def test_init_overrides_change_the_needed_run_and_with_it_this_one() -> None:
    override = "init.overrides=['trainer.max_epochs=3']"
    assert needed(override) == prepare(["method=ce", "trainer.max_epochs=3"]).run_id
    assert prepare([override]).run_id != prepare([]).run_id


def test_init_overrides_win_over_what_is_inherited() -> None:
    assert needed("seed=3", "init.overrides=['seed=4']") == prepare(["method=ce", "seed=4"]).run_id


def test_the_needed_run_lies_beside_this_one(tmp_path: Path) -> None:
    experiment = prepare([f"paths.output={tmp_path}/elsewhere"])
    assert experiment.run_dir.parent == experiment.prerequisites["init"].run_dir.parent == tmp_path / "elsewhere"


def test_a_data_folder_with_spaces_and_quotes_is_searched(tmp_path: Path) -> None:
    data = tmp_path / "it's my data"
    write(data / "textures/banded/a.png", "")
    escaped = str(data).replace("'", "\\'")
    experiment = prepare([f"paths.data='{escaped}'", "protocol.far=[textures]"])
    assert experiment.ood_sets == ("letters", "textures")


def test_several_values_without_m_are_refused() -> None:
    for override in ("method=hamos,ce", "seed=range(0,3)", "seed=choice(1,2)", "backbone=glob(res*)"):
        with pytest.raises(RequestError, match="add -m"):
            prepare([override])


def test_a_sweep_is_every_combination_in_order() -> None:
    rows = list(expand_sweep(["method=ce,cider", "backbone.width=8", "seed=range(0,3)"]))
    assert rows == [
        [f"method={m}", "backbone.width=8", f"seed={s}"] for m, s in product(("ce", "cider"), ("0", "1", "2"))
    ]


def test_a_list_is_one_value_and_not_a_sweep() -> None:
    assert list(expand_sweep(["scorer=[msp,knn]"])) == [["scorer=[msp,knn]"]]
    assert list(expand_sweep(["scorer=[msp],[knn]"])) == [["scorer=[msp]"], ["scorer=[knn]"]]


def test_a_glob_names_the_choices_that_match() -> None:
    assert list(expand_sweep(["backbone=glob(resnet*)"])) == [
        [f"backbone={name}"] for name in groups()["backbone"] if name.startswith("resnet")
    ]


def test_a_glob_that_matches_nothing_is_refused() -> None:
    with pytest.raises(RequestError, match="matches nothing"):
        list(expand_sweep(["method=glob(zzz*)"]))


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(RequestError, match="matches nothing"):
        list(expand_sweep(["seed=range(3,3)"]))


def test_scorer_all_is_every_scorer_that_works_on_every_network() -> None:
    assert prepare(["scorer=all"]).choices["scorer"] == sorted(
        {*groups()["scorer"]}
        - {"absent_class", "attacked", "csi", "csi_joint", "godin", "mcm", "pood", "weighted_energy"}
    )


def test_scorers_keep_the_order_in_which_they_are_named() -> None:
    assert prepare(["scorer=[knn,msp]"]).choices["scorer"] == ["knn", "msp"]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_users_folder_adds_choices(tmp_path: Path) -> None:
    write(tmp_path / "conf/backbone/tiny.yaml", "defaults: [resnet, _self_]\nwidth: 4\n")
    experiment = prepare(["backbone=tiny"], tmp_path / "conf")
    assert [e.value("backbone.width") for e in experiment.with_prerequisites()] == [4, 4]
    with pytest.raises(RequestError, match="backbone=tiny"):
        prepare(["backbone=tiny"])


def test_a_users_data_set_can_be_scored(tmp_path: Path) -> None:
    node = "defaults: [image_folder, _self_]\nname: mine\nlayouts: {folder: {test: {folder: mine}}}\n"
    write(tmp_path / "conf/dataset/mine.yaml", node)
    write(tmp_path / "data/mine/a.png", "")
    experiment = prepare(["protocol.near=[mine]", f"paths.data={tmp_path}/data"], tmp_path / "conf")
    assert experiment.ood_sets == ("mine", "photos", "gaussian_noise")


EXPERIMENT = "# @package _global_\nmethod: {optimizer: {lr: 0.3}}\n"


def test_an_experiment_is_the_same_run_as_its_values_on_the_command_line(tmp_path: Path) -> None:
    write(tmp_path / "experiment/fast.yaml", EXPERIMENT)
    assert prepare(["experiment=fast"], tmp_path).run_id == prepare(["method.optimizer.lr=0.3"]).run_id


def test_an_experiment_may_train_a_method_without_synthesizer(tmp_path: Path) -> None:
    write(tmp_path / "experiment/fast.yaml", EXPERIMENT)
    experiment = prepare(["experiment=fast", "method=ce"], tmp_path)
    assert experiment.run_id == prepare(["method=ce", "method.optimizer.lr=0.3"]).run_id


def test_the_network_of_an_experiment_is_that_of_the_needed_run(tmp_path: Path) -> None:
    write(tmp_path / "experiment/slim.yaml", "# @package _global_\nbackbone: {width: 8}\n")
    experiment = prepare(["experiment=slim"], tmp_path)
    assert experiment.value("backbone.width") == 8
    assert experiment.prerequisites["init"].value("backbone.width") == 8


@each("group", ["anchors", "outliers", "decoder"])
def test_a_stage_of_a_chain_can_not_be_left_out(group: str) -> None:
    with pytest.raises(RequestError, match=f"{group}=null: this command depends on a run with task="):
        prepare(["method=bood", "decoder=tiny", f"{group}=null"], look=False)

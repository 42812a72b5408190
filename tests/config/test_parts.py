"""Which parts go together: what is refused and why, what a recipe says of which part, and identity by values."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import pytest

from ood_lab.config import RequestError, compose, identity, prepare
from ood_lab.config.experiment import Experiment
from ood_lab.config.groups import LIST_GROUPS, PART_GROUPS, groups
from ood_lab.config.recipe import of_file
from ood_lab.config.signature import signature
from tests.cases import each

IMAGES = ("method=oe", "auxiliary=fractals")


@pytest.fixture(autouse=True)
def _places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OOD_LAB_DATA", "no-such-folder")
    monkeypatch.setenv("OOD_LAB_OUTPUT", str(tmp_path / "outputs"))


def refusal(*overrides: str) -> str:
    with pytest.raises(RequestError) as info:
        prepare(overrides)
    return str(info.value)


@each(
    ("overrides", "said"),
    [
        (["method=ce", "outlier_loss=equidistant"], ["needs a source of outliers", "synthesizer=hmc", "auxiliary="]),
        (["method=oe"], ["needs a source of outliers", "auxiliary=randomimages300k"]),
        (["outlier_loss=null"], ["whose outliers nothing reads", "outlier_loss=equidistant or", "synthesizer=null"]),
        (["method=ce", "auxiliary=fractals"], ["takes no auxiliary", "outlier_loss="]),
        (["auxiliary=fractals"], ["two sources of outliers", "synthesizer=null or auxiliary=null"]),
        (["outlier_loss=outlier_exposure"], ["reads logits", "projection space, which have z alone", "auxiliary="]),
        (["selector=random"], ["chooses among images", "synthesizer=hmc gives points", "selector=null"]),
        (["method=ce", "selector=random"], ["chooses among images", "there is none"]),
        (["perturbation=gaussian_noise"], ["changes images", "points of a feature space", "perturbation=null"]),
        (["method=ce", "mixing=escape"], ["mixes pictures of another set", "pictures=fractals", "mixing=null"]),
        (["method=ce", "pictures=fractals"], ["nothing mixes them", "mixing=escape", "pictures=null"]),
        (["method=vos", "method.outlier_space=raw01"], ["is about auxiliary images, and there are none"]),
        (["method=vos", "trainer.auxiliary_images=9"], ["no auxiliary set to take them from"]),
        (["method=oe", "auxiliary=fractals", "trainer.auxiliary_images=99999"], ["fractals has 10,000 images"]),
        (["method=ares", "synthesizer.pool=50"], ["synthesizer.take=128: expected at most 50"]),
        (["regularizer=[gradient]"], ["reads images of outliers", "auxiliary=", "regularizer=[feature_gradient]"]),
        (["regularizer=[feature_gradient]"], ["reads features, logits of outliers", "synthesizer=hmc gives z"]),
        (["method=ce", "regularizer=[feature_gradient]"], ["there are none", "synthesizer=gaussian_tail"]),
        (["method=greg"], ["add auxiliary=randomimages300k (or fractals, which are made here) or another image set"]),
        (
            ["method=energy", "auxiliary=fractals", "outlier_loss.m_in=-5", "outlier_loss.m_out=-23"],
            ["outlier_loss.m_in=-5: expected at most -23", "outlier_loss.m_out"],
        ),
        (
            [*IMAGES, "regularizer=[gradient]", "regularizer.gradient.m_in=3"],
            ["regularizer.gradient.m_in=3: expected at most -7"],
        ),
        ([*IMAGES, "selector=dos"], ["selector=dos reads absent", "use head=absent_class"]),
        ([*IMAGES, "outlier_loss=absent_class"], ["outlier_loss=absent_class reads absent", "use head=absent_class"]),
        ([*IMAGES, "outlier_loss=soft_label"], ["reads targets", "perturbation=null makes none", "perturbation=mix"]),
        ([*IMAGES, "perturbation=mix"], ["outlier_label=absent", "use head=absent_class", "outlier_label=uniform"]),
        (
            ["method=mixoe", "auxiliary=fractals", "regularizer=[gradient]", "regularizer.gradient.reading=sample"],
            ["normalises ID and outlier images together", "method.outlier_statistics=joint"],
        ),
        ([*IMAGES, "selector=greedy", "selector.candidates=0"], ["a whole number above 0 or null"]),
        (
            [*IMAGES, "selector=greedy", "selector.candidates=127"],
            ["selector.candidates=127: fewer than the 128 outlier images of a step", "or null"],
        ),
        (["method=ce", "scorer=[absent_class]"], ["reads absent", "use method=dos or method=openmix"]),
        (["method=ce", "head=absent_class", "scorer=[absent_class]"], ["no term of method=ce reads absent"]),
        (["method.trainable=layer4_mlp", "init=random"], ["method.trainable=layer4_mlp", "init=random does not give"]),
        (["method=ce", "head=shifts"], ["a projector that nothing trains"]),
        (["method=simclr", "id_loss.simclr.weight=0"], ["no term with a weight above 0 reads z"]),
        (["method=cider", "id_loss.cider.w_compactness=0", "id_loss.cider.w_dispersion=0"], ["nothing trains"]),
        (["method=csi", "method.trainable=whole"], ["a projector that nothing trains"]),
        (["method=cider", "dataset.recipe.num_classes=1"], ["id_loss.cider needs 2 ID classes", "has 1", "method=vos"]),
        (["method=ronf", "dataset.recipe.num_classes=1"], ["synthesizer needs 2 ID classes"]),
        ([*IMAGES, "regularizer=[gradient]", "method.trainable=layer4_mlp"], ["freezes the first layers"]),
        (["outlier_loss.weight=-1"], ["a number, 0 or above"]),
        (["outlier_loss.start=5", "outlier_loss.end=3"], ["would end before it starts"]),
        (["outlier_loss.start=0.5", "outlier_loss.end=2"], ["would end before it starts"]),
        (["outlier_loss.start=9"], ["would never start in 8 epochs"]),
        (["id_loss.ce.start=1", "id_loss.cider.start=1"], ["no term on ID data takes part in the first step"]),
        (["method=ce", "id_loss.ce.weight=0"], ["none has a weight above 0"]),
        (["outlier_loss=equidistent"], ["Did you mean 'equidistant'?"]),
        (["id_loss=[ce,cidre]"], ["Did you mean 'cider'?"]),
        (["id_loss=[]"], ["name at least one"]),
        (
            ["outlier_loss.prototype_momentum=0.5"],
            ["share one memory (prototypes)", "id_loss.cider.prototype_momentum"],
        ),
        (["method=ce", "head.projection_dim=64"], ["reads projections", "id_loss=[ce,cider]"]),
        (["method=ce", "outlier_loss.weight=1"], ["no outlier_loss is chosen"]),
        (["id_loss=[ce]", "id_loss.cider.w_dispersion=1"], ["has no 'cider'"]),
        (["outlier_loss=logistic", "outlier_loss.temperature=1"], ["has no 'temperature'"]),
        (["method=ce", "scorer=[knn]", "scorer.knn.space=projection"], ["trains no projection"]),
        (["outlier_loss=[released]"], ["one choice, without brackets", "outlier_loss=null"]),
        (["method=[ce]"], ["one choice, without brackets"]),
        (["regularizer=null"], ["write regularizer=[]"]),
        (["outlier_loss._target_=3"], ["a class is chosen by its file"]),
        (["id_loss.cider=3"], ["expected options"]),
        (["id_loss=[cider]", "id_loss.cider.w_compactness=0", "id_loss.cider.w_dispersion=0"], ["a weight above 0"]),
        (["init.checkpoint=a", "init.weights.file=b"], ["two files to start from"]),
    ],
)
def test_what_cannot_work_is_refused_with_what_would(overrides: list[str], said: list[str]) -> None:
    message = refusal(*overrides)
    for text in said:
        assert text in message


@each(
    "overrides",
    [
        ["id_loss=[ce]"],
        ["id_loss=[cider]"],
        ["outlier_loss=logistic"],
        ["synthesizer=midpoints"],
        ["synthesizer=null", "auxiliary=fractals"],
        ["synthesizer=null", "auxiliary=fractals", "outlier_loss=outlier_exposure"],
        [*IMAGES, "selector=random", "perturbation=gaussian_noise", "regularizer=[gradient]"],
        [*IMAGES, "regularizer=[gradient]", "regularizer.gradient.m_in=null", "regularizer.gradient.m_out=null"],
        [*IMAGES, "selector=poem", "perturbation=mix", "perturbation.outlier_label=uniform"],
        ["method=vos", "regularizer=[feature_gradient]"],
        ["method=dos", "auxiliary=fractals", "scorer=[absent_class,energy,msp,react]"],
        ["method=openmix", "auxiliary=fractals", "scorer=[absent_class]"],
        ["method=ce", "head=absent_class"],
        ["method=ce", "synthesizer=random_sphere", "outlier_loss=equidistant"],
        ["id_loss.cider.start=1", "outlier_loss.start=0.5", "outlier_loss.end=7"],
    ],
)
def test_what_can_work_is_not(overrides: list[str]) -> None:
    assert prepare(overrides).run_id


def rounds() -> Iterator[tuple[str, dict[str, str]]]:
    """Every part in recipes with values for parts of every kind, and in one with none: one of each group at a time."""
    for recipe in ("vos", "hamos_released", "greg_plus", "openmix", "ares"):
        for chosen in zip_longest(*(groups()[group] for group in PART_GROUPS)):
            yield recipe, {g: name for g, name in zip(PART_GROUPS, chosen, strict=True) if name is not None}


def test_a_recipes_values_stay_with_the_part_that_they_are_for() -> None:
    for recipe, chosen in rounds():
        overrides = [
            f"{group}=[{name}]" if group in LIST_GROUPS else f"{group}={name}" for group, name in chosen.items()
        ]
        composed = compose([f"method={recipe}", *overrides])
        experiment = Experiment.of(composed.whole, composed.choices)
        for part in experiment.parts:
            assert set(part.options) <= set(signature(part.target).parameters), f"a ghost in {recipe}, {chosen}"
        values = of_file("method", recipe).get("values", {})
        for group, name in chosen.items():
            if name not in values.get(group, {}):
                (part,) = experiment.of_group(group)
                own = {key: value for key, value in of_file(group, name).items() if not isinstance(value, str)}
                assert {key: part.node[key] for key in own} == own, f"{recipe}, {group}={name}"


def test_a_recipes_value_counts_for_its_part_and_the_users_over_it(tmp_path: Path) -> None:
    assert compose(["method=hamos_released"]).plain("outlier_loss.weight") == 0.14285714
    assert compose(["method=hamos_released", "outlier_loss.weight=1"]).plain("outlier_loss.weight") == 1
    assert compose(["method=hamos_released", "outlier_loss=equidistant"]).plain("outlier_loss.weight") == 0.1
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /method: hamos_released\noutlier_loss: {weight: 0.7}\n"
        "id_loss: {cider: {w_compactness: 0.5}}\n"
    )
    composed = compose(["experiment=mine"], folder=tmp_path)
    assert composed.plain("outlier_loss.weight") == 0.7
    assert composed.plain("id_loss.cider.w_compactness") == 0.5, "stated, though it is the part's own value"
    assert composed.plain("id_loss.cider.w_dispersion") == 0.5, "the recipe's"


RECIPE = """
defaults:
  - override /id_loss@_global_.id_loss: [ce]
values:
  GROUP:
    NAME: {weight: 0.3}
stage: pretrain
optimizer: {_target_: ood_lab.optimizer.SGD, lr: 0.1, momentum: 0.9, weight_decay: 0.0, warmup: 0.0}
"""


@each(
    ("group", "name", "said"),
    [
        ("id_loss", "cee", "method.values.id_loss.cee: no such id_loss. Did you mean 'ce'?"),
        ("ID_loss", "ce", "method.values.ID_loss: no such group of parts. Did you mean 'id_loss'?"),
        ("head", "linear", "method.values.head.linear.weight: head.linear has no such option."),
    ],
)
def test_a_recipes_value_for_nothing_is_refused(group: str, name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method/mine.yaml").write_text(RECIPE.replace("GROUP", group).replace("NAME", name))
    with pytest.raises(RequestError) as info:
        prepare(["method=mine"], tmp_path)
    assert said in str(info.value)


@each(
    ("package", "reads", "said"),
    [
        ("", '("logits",)', "must begin with '# @package id_loss.NAME'"),
        ("# @package id_loss.mine", '("zz",)', "declares reads 'zz', which does not exist."),
        ("# @package id_loss.mine", '("logit",)', "Did you mean 'logits'?"),
        ("# @package id_loss.mine", '(*Term.reads, "z")', "reads is read without running the class"),
    ],
)
def test_an_own_term_that_cannot_be_run_is_refused_before_it_is(
    package: str, reads: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "conf/id_loss").mkdir(parents=True)
    (tmp_path / "conf/id_loss/mine.yaml").write_text(f"{package}\n_target_: carelesslab.Mine\n")
    (tmp_path / "carelesslab.py").write_text(
        f"from ood_lab.parts import Term\n\nclass Mine(Term):\n    reads = {reads}\n"
    )
    with pytest.raises(RequestError) as info:
        prepare(["method=ce", "id_loss=[ce,mine]"], tmp_path / "conf")
    assert said in str(info.value)


# Identity by values.


def run_id(*overrides: str) -> str:
    return prepare(overrides).run_id


SPELLED = [
    "method=hamos", "outlier_loss=released", "outlier_loss.weight=0.14285714", "id_loss.cider.w_compactness=1.4285714",
    "id_loss.cider.w_dispersion=0.5", "synthesizer.rounds=2", "synthesizer.margin=0.05",
    "synthesizer.density=released", "synthesizer.centroids=raw",
]  # fmt: skip


def test_a_recipe_and_its_values_spelled_out_are_one_run() -> None:
    assert run_id(*SPELLED) == run_id("method=hamos_released")
    assert run_id(*SPELLED).startswith("hamos_released-")
    assert run_id("method=ce", "id_loss=[cider,ce]", "init=pretrained", "method.stage=finetune",
                  "method.optimizer.lr=0.01", "method.optimizer.weight_decay=1e-4", "method.optimizer.warmup=0",
                  ) == run_id("method=cider")  # fmt: skip


def test_the_order_of_a_list_means_nothing_and_its_members_count() -> None:
    assert run_id("id_loss=[cider,ce]") == run_id("id_loss=[ce,cider]") == run_id()
    ids = {run_id(f"id_loss={terms}") for terms in ("[ce]", "[cider]", "[ce,cider]")}
    assert len(ids) == 3


def test_a_whole_number_and_a_fraction_are_one_value() -> None:
    assert run_id("outlier_loss.weight=1") == run_id("outlier_loss.weight=1.0")


def test_the_names_of_files_of_a_lists_parts_mean_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ood_lab.config.identity import order_of

    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "twinlab_terms.py").write_text(OWN.replace("EXTRA", ""))
    ids, orders = set(), set()
    for number, values in enumerate([(2, 3), (3, 2)]):
        folder = tmp_path / f"conf{number}/id_loss"
        folder.mkdir(parents=True)
        for name, value in zip(("h1", "h2"), values, strict=True):
            (folder / f"{name}.yaml").write_text(
                f"# @package id_loss.{name}\n_target_: twinlab_terms.Mine\na: {value}\n"
            )
        experiment = prepare(["method=ce", "id_loss=[ce,h1,h2]"], folder.parent)
        nodes = experiment.value("id_loss")
        orders.add(tuple(nodes[name].get("a") for name in sorted(nodes, key=lambda n: order_of("id_loss", nodes[n]))))
        ids.add(experiment.run_id)
    assert len(ids) == len(orders) == 1, "the order in which they are built and summed goes by what they are"


def test_how_auxiliary_images_are_chosen_counts_and_the_sets_own_recipe_does_not() -> None:
    images = ("method=oe", "dataset=cifar10", "auxiliary=tiny_imagenet")

    def of(*overrides: str) -> str:
        return prepare([*images, *overrides], look=False).run_id

    assert of() != of("benchmark=imagenet"), "another benchmark excludes other classes"
    assert of() == of("auxiliary.recipe=null")


def test_a_file_of_ones_own_with_a_built_in_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outlier_loss").mkdir()
    (tmp_path / "outlier_loss/equidistant.yaml").write_text("weight: 0.7\n")
    with pytest.raises(RequestError, match="has the name of a built-in file"):
        prepare([], tmp_path)


def test_a_network_is_called_by_its_values() -> None:
    same = run_id("method=ce", "backbone=narrow", "backbone.width=64", "backbone.depths=[2,2,2,2]")
    assert same == run_id("method=ce", "backbone=resnet18") == run_id("method=ce", "backbone=resnet")
    assert same.startswith("ce-digits-resnet18-")
    assert run_id("method=ce", "backbone.width=8").startswith("ce-digits-narrow-")


def test_a_projector_that_nothing_builds_counts_for_nothing() -> None:
    plain = compose(["method=ce"])
    wide = compose(["method=ce", "dataset.recipe.projection_dim=7"])
    assert plain.plain("head") != wide.plain("head")
    assert run_id("method=ce") == run_id("method=ce", "dataset.recipe.projection_dim=7")
    assert run_id("method=cider") != run_id("method=cider", "dataset.recipe.projection_dim=7")


OWN = """
from ood_lab.parts import Term

class Mine(Term):
    reads = ("logits",)
    def __init__(self, dims, *, a: float = 1.0, EXTRA**rest):
        super().__init__(dims, **rest)
"""


def test_an_option_added_with_a_default_changes_no_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a class of this program; the code of one's own counts as a whole."""
    monkeypatch.setattr(identity, "code_digest", lambda _: None)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "conf/id_loss").mkdir(parents=True)
    (tmp_path / "conf/id_loss/mine.yaml").write_text("# @package id_loss.mine\n_target_: ownlab_terms.Mine\na: 2\n")

    def of(extra: str, *overrides: str) -> str:
        (tmp_path / "ownlab_terms.py").write_text(OWN.replace("EXTRA", extra))
        return prepare(["method=ce", "id_loss=[mine]", *overrides], tmp_path / "conf").run_id

    before = of("")
    assert before.startswith("mine-")
    assert of("b: int = 3, ") == before
    assert of("b: int = 3, ", "id_loss.mine.b=3") == before
    assert of("b: int = 3, ", "id_loss.mine.b=4") != before
    assert of("b: int = 3, ", "id_loss.mine.a=3") != before


def test_runs_of_another_way_of_naming_stay_and_are_made_anew(tmp_path: Path) -> None:
    old = tmp_path / "outputs/hamos-digits-narrow-s0-a495f34d"  # as ids were before they went by values
    old.mkdir(parents=True)
    (old / "DONE").write_text("{}")
    experiment = prepare([f"paths.output={tmp_path}/outputs"])
    assert not experiment.run_dir.exists()
    assert (old / "DONE").is_file()

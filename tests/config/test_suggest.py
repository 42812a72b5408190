"""What was probably meant: in any case, in the words of other libraries, and by the last part of an option."""

from __future__ import annotations

import pytest

from ood_lab.config import RequestError, prepare
from ood_lab.config.groups import groups
from ood_lab.config.suggest import OPTIONS, OTHERS, nearest, options_like
from tests.cases import each


@each(
    ("override", "meant"),
    [
        ("scorer=[mds]", "'mahalanobis'"),
        ("scorer=[EBO]", "'energy'"),
        ("scorer=[klm]", "'kl_matching'"),
        ("scorer=[mls]", "'maxlogit'"),
        ("scorer=[MaxSoftmax]", "'msp'"),
        ("scorer=[ViM]", "'vim'"),
        ("method=HAMOS", "'hamos'"),
        ("method=GRegPlus", "'greg_plus'"),
        ("method=base", "'ce'"),
        ("dataset=CIFAR-10", "'cifar10'"),
        ("lr=0.1", "'method.optimizer.lr'"),
        ("epochs=3", "'trainer.max_epochs'"),
        ("trainer.epochs=3", "'max_epochs'"),
        ("knn.k=3", "'scorer.knn.k'"),
        ("batch_size=3", "'trainer.batch_size'"),
        ("methd=ce", "'method'"),
    ],
)
def test_what_was_probably_meant_is_named(override: str, meant: str) -> None:
    with pytest.raises(RequestError) as error:
        prepare([override])
    assert meant in str(error.value)


def test_the_names_of_other_libraries_stand_for_choices_that_there_are() -> None:
    for group, names in OTHERS.items():
        assert set(names.values()) <= set(groups()[group])
    values = {"trainer": {"max_epochs": 1, "batch_size": 2}, "method": {"optimizer": {"lr": 1}}}
    assert "trainer.max_epochs" in options_like("epochs", values)
    assert all(key.count(".") >= 1 for keys in OPTIONS.values() for key in keys)


def test_a_name_that_is_like_none_gets_the_choices() -> None:
    assert nearest("zzzz", ["msp", "knn"]) == " Choose from: knn, msp."
    assert nearest("zzzz", []) == ""
    assert options_like("qqqq", {"seed": 0}) == ""

"""Any name goes through Hydra's grammar and OmegaConf and comes back as it was."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from ood_lab.config import RequestError, compose, prepare
from ood_lab.config.quoting import as_override, as_typed, quote, uninterpolated
from tests.cases import each

# What Hydra's grammar and OmegaConf know, and anything else that a file system takes.
TEXTS = st.one_of(
    st.text("\\'\"${}ab,=[]() #:~.*?&|;<>@%\t", min_size=1, max_size=12),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12),
    st.sampled_from(["null", "True", "nan", "Inf", "1", ".5", "1e5", "${oc.env:HOME}", "\\", "\\'", "a\\${b}", "''"]),
)


@settings(deadline=None)
@given(TEXTS)
def test_a_quoted_string_is_one_value_and_the_same_string(text: str) -> None:
    assume(text != "???")  # OmegaConf's mark of a value that is missing, which nothing can quote
    override = OverridesParser.create().parse_override(f"key={quote(text)}")
    assert not override.is_sweep_override()
    cfg = OmegaConf.create({"key": override.value(), "below": "${key}/x"})
    assert (cfg.key, cfg.below) == (text, f"{text}/x")


@settings(deadline=None)
@given(TEXTS)
def test_any_path_goes_through_composition(text: str) -> None:
    composed = compose([f"paths.data={quote(text)}", f"paths.output={quote(text)}"])
    wanted = os.path.expanduser(text)  # noqa: PTH111
    assert composed.plain("paths") == {"data": wanted, "output": wanted, "cache": f"{wanted}/.images"}
    again = compose([f"paths.data={quote(composed.plain('paths.data'))}"]).plain("paths.data")
    assert again == wanted


NODES = st.recursive(
    st.one_of(TEXTS, st.integers(), st.none(), st.booleans()),
    lambda children: st.one_of(st.lists(children, max_size=3), st.dictionaries(st.sampled_from("abc"), children)),
    max_leaves=5,
)


@settings(deadline=None)
@given(NODES)
def test_a_plain_node_comes_back_from_omegaconf_and_from_its_yaml(node: Any) -> None:
    cfg = OmegaConf.create({"node": uninterpolated(node)})
    assert OmegaConf.to_container(cfg, resolve=True) == {"node": node}


@settings(deadline=None)
@given(st.one_of(TEXTS, st.lists(TEXTS, max_size=3), st.integers(), st.booleans(), st.none()))
def test_values_are_written_and_parsed_back(value: Any) -> None:
    cfg = OmegaConf.create({"key": OverridesParser.create().parse_override(f"key={as_override(value)}").value()})
    assert OmegaConf.to_container(cfg) == {"key": uninterpolated(value)} or OmegaConf.to_container(
        cfg, resolve=True
    ) == {"key": value}


@each("name", ["ü", "a b", "c,d", "c(1)", "lr=0.1", "it's", "c[1]", "c#1", "${x}", "True", "'q'"])
@each("multirun", [False, True])
def test_a_path_is_taken_as_it_is_typed(name: str, multirun: bool, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    for key in ("paths.data", "paths.output"):
        composed = compose([as_typed(f"{key}={tmp_path}/{name}", multirun)])
        assert composed.plain(key) == f"{tmp_path}/{name}"


@settings(deadline=None)
@given(TEXTS)
def test_what_is_typed_for_paths_is_never_a_sweep_and_twice_is_once(text: str) -> None:
    typed = as_typed(f"paths.output=/{text}", multirun=True)
    assert compose([typed]).plain("paths.output") == f"/{text}"
    assert compose([as_typed(typed)]).plain("paths.output") == f"/{text}"


def test_with_m_a_comma_parts_checkpoints_unless_there_is_such_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert as_typed("init.checkpoint=a.pt,b.pt", multirun=True) == "init.checkpoint=a.pt,b.pt"
    assert as_typed("init.checkpoint=a.pt,b.pt") == "init.checkpoint='a.pt,b.pt'"
    Path("a.pt,b.pt").touch()
    assert as_typed("init.checkpoint=a.pt,b.pt", multirun=True) == "init.checkpoint='a.pt,b.pt'"
    assert as_typed("init.checkpoint=null") == "init.checkpoint=null"


def test_hydras_own_quotes_are_taken_off() -> None:
    assert compose([as_typed("paths.data='a,b'")]).plain("paths.data") == "a,b"
    assert compose([as_typed('paths.data="a,b"')]).plain("paths.data") == "a,b"
    assert compose([as_typed("protocol.far=['./a,b',photos,\"${x}/y\"]")]).plain("protocol.far") == [
        "./a,b",
        "photos",
        "${x}/y",
    ]


@each("value", ["~", "~/x y", "~nobody_of_that_name/x"])
def test_the_home_folder_is_expanded_wherever_it_is_written(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = os.path.expanduser(value)  # noqa: PTH111
    assert compose([as_typed(f"paths.data={value}")]).plain("paths.data") == wanted
    monkeypatch.setenv("OOD_LAB_OUTPUT", f"{value}/from the environment")
    composed = compose(["seed=77", f"init.checkpoint={quote(value)}"])
    assert composed.plain("paths.output") == f"{wanted}/from the environment"
    assert composed.plain("paths.cache") == f"{wanted}/from the environment/.images"
    assert composed.plain("init.checkpoint") == wanted


def test_an_environment_variable_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("c,d", "${x}", "it's", "c[1]", "null"):
        monkeypatch.setenv("OOD_LAB_DATA", value)
        assert compose(["seed=78"]).plain("paths.data") == value


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match=r"paths\.data=: .*udcff.* is not UTF-8; rename it"):
        as_typed(f"paths.data={tmp_path}/\udcff")
    monkeypatch.setenv("OOD_LAB_DATA", "\udcff")
    with pytest.raises(RequestError, match=r"paths\.data: .*is not UTF-8"):
        prepare(["seed=79"])


@each(
    ("typed", "wanted"),
    [
        ("[a=b]", ["a=b"]),
        (
            "[trainer.max_epochs=3,protocol.far=[photos,letters]]",
            ["trainer.max_epochs=3", "protocol.far=[photos,letters]"],
        ),
        ("['a=b','c=d']", ["a=b", "c=d"]),
        ("[]", []),
    ],
)
def test_overrides_of_a_needed_run_need_no_quotes(typed: str, wanted: list[str]) -> None:
    assert compose([as_typed(f"init.overrides={typed}")]).plain("init.overrides") == wanted

"""Tables as runs: each run is planned once; a run as a table asks for it is the run that a command line makes."""

from __future__ import annotations

from pathlib import Path

from ood_lab.config.compose import only_chooses
from ood_lab.config.identity import weight_values
from ood_lab.config.prepare import prepare, with_ood_sets, with_seed
from ood_lab.tables.adapt import adapt, load_scale
from ood_lab.tables.plan import Job, Place, jobs_of, merged, plan
from ood_lab.tables.spec import load_table
from tests.cases import each


def place(row: int) -> Place:
    return Place("t", row, "cifar10", None)


def test_a_run_with_other_detectors_is_one_run() -> None:
    same = ("method=ce", "dataset=cifar10")
    jobs = [
        Job(same, (0,), (), {"msp": {}}, [place(0)]),
        Job(same, (0,), (), {"knn": {"k": 10}}, [place(1)]),
        Job(("method=hamos", "dataset=cifar10"), (0,), (), {"msp": {}}, [place(2)]),
    ]
    first, second = merged(jobs)
    assert first.detectors == {"msp": {}, "knn": {"k": 10}}
    assert first.places == [place(0), place(1)]
    assert second.places == [place(2)]
    assert first.overrides == (*same, "scorer=[msp,knn]", "scorer.knn.k=10")


@each(
    "other",
    [
        Job(("method=ce",), (0,), (), {"knn": {"k": 50}}, [place(1)]),
        Job(("method=ce",), (0,), ("svhn",), {}, [place(1)]),
        Job(("method=ce",), (0, 1), (), {}, [place(1)]),
    ],
)
def test_jobs_that_ask_for_different_things_stay_apart(other: Job) -> None:
    assert len(merged([Job(("method=ce",), (0,), (), {"knn": {"k": 10}}, [place(0)]), other])) == 2


def test_tables_share_runs() -> None:
    tiny = load_scale("tiny")
    alone = [adapt(load_table(name), tiny) for name in ("hamos_t16", "hamos_t17")]
    first, second = (plan([table], look=False).run_ids for table in alone)
    assert first & second  # the default row stands in both
    assert plan(alone, look=False).run_ids == first | second


def test_rows_of_differences_run_nothing() -> None:
    table = load_table("bood_t1")
    derived = [number for number, row in enumerate(table.rows) if row.derived]
    assert derived
    assert not {job.places[0].row for job in jobs_of(table)} & set(derived)


def test_a_run_is_asked_for_the_sets_of_its_table_only() -> None:
    table = load_table("hamos_t1")
    found = plan([table], look=False)
    run = found.experiments[Place.of(table, 0, table.columns[0])][0]
    assert set(run.ood_sets) == set(table.sets["cifar10"])
    assert run.value("protocol.near") == []


def test_a_request_for_some_sets_is_the_request_that_its_words_make() -> None:
    overrides = ["method=hamos", "dataset=digits", "seed=3"]
    quick = with_ood_sets(prepare(overrides), ["photos", "letters"])
    slow = prepare(quick.overrides)
    assert quick.overrides == (*overrides, "protocol.near=[letters]", "protocol.far=[photos]")
    assert (quick.run_id, quick.groups_of_sets) == (slow.run_id, slow.groups_of_sets)
    assert quick.convention("photos") == slow.convention("photos")
    assert quick.prerequisite_ids == slow.prerequisite_ids
    assert quick.values() == slow.values()
    assert quick.prerequisites["init"].ood_sets == slow.prerequisites["init"].ood_sets
    assert with_ood_sets(quick, ["letters", "photos", "other"]) is quick


def test_another_seed_is_the_request_that_its_words_make() -> None:
    base = prepare(["method=hamos", "seed=0"])
    quick, slow = with_seed(base, 2), prepare(["method=hamos", "seed=2"])
    assert quick.overrides == slow.overrides
    assert (quick.run_id, weight_values(quick)) == (slow.run_id, weight_values(slow))
    assert quick.prerequisite_ids == slow.prerequisite_ids
    assert quick.values() == slow.values()
    assert base.seed == 0


@each("override", ["init.overrides=['seed=0']", "paths.output=out${seed}"])
def test_another_seed_where_something_else_depends_on_it(override: str) -> None:
    quick = with_seed(prepare(["method=hamos", override, "seed=0"], look=False), 2)
    slow = prepare(["method=hamos", override, "seed=2"], look=False)
    assert quick.run_id == slow.run_id
    assert quick.prerequisites["init"].run_dir == slow.prerequisites["init"].run_dir


def test_a_detector_that_is_taken_away_is_not_asked_of_needed_runs() -> None:
    experiment = prepare(["method=hamos", "scorer=[msp,odin]", "~scorer.odin"], look=False)
    assert experiment.choices["scorer"] == ["msp"]
    assert list(experiment.prerequisites["init"].detectors) == ["msp"]


@each(
    ("name", "text", "said"),
    [
        ("identity.json", "{", "was changed by something else"),
        ("identity.json", '{"run_id": 1}', "was changed by something else"),
        ("identity.json", '{"leaves": {"outlier_loss.weight": 7}}', "was made with outlier_loss.weight=7"),
        ("results.jsonl", '{"metric": "auroc"}\n', "line 1: not a whole row"),
    ],
)
def test_a_folder_that_was_edited_costs_its_row_only(name: str, text: str, said: str, tmp_path: Path) -> None:
    table = adapt(load_table("hamos_t17"), load_scale("tiny"), [f"paths.output={tmp_path}"])
    run = plan([table]).experiments[Place.of(table, 1, table.columns[0])][0]
    run.run_dir.mkdir(parents=True)
    (run.run_dir / name).write_text(text)
    found = plan([table])
    assert [place.row for place in found.unavailable] == [1]
    assert said in found.unavailable[Place.of(table, 1, table.columns[0])]
    assert len(found.runs) == 4


def test_an_experiment_that_only_chooses_is_told_from_one_that_sets_values() -> None:
    found = {name: only_chooses("experiment", name) for name in ("hamos", "aoe", "bood", "cifar10_two_cores")}
    assert found == {"hamos": True, "aoe": True, "bood": False, "cifar10_two_cores": False}


def test_an_experiment_that_only_chooses_is_the_run_of_its_choices() -> None:
    named = prepare(["experiment=hamos", "method=hamos", "trainer.max_epochs=7"], look=False)
    spelled = ["dataset=cifar10", "backbone=resnet34", "protocol=hamos", "scorer=[knn]"]
    assert named.run_id == prepare([*spelled, "method=hamos", "trainer.max_epochs=7"], look=False).run_id

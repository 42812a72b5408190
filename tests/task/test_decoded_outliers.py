"""What a small chain of runs decodes: pictures of the outliers that it is trained on, and of their ways, by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

import ood_lab
from ood_lab.config import prepare
from ood_lab.config.objective import caveats
from ood_lab.config.quoting import as_typed
from ood_lab.decoder.base import Decoder
from ood_lab.evaluation.extract import load_features
from ood_lab.reader.shards import rows_of
from ood_lab.results.store import read_rows
from ood_lab.runs import cost
from ood_lab.runs.cost import seconds_of, stages_of
from ood_lab.runs.run_folder import RunFolder
from ood_lab.task import decoded_outliers, latent, synthesize
from ood_lab.task.build import build
from ood_lab.task.decoded_outliers import CLASSES, FACTORS, FURTHER, MOMENTS, WALKED, DecodedOutliers
from ood_lab.task.features import Features
from ood_lab.task.shown import caption, stored
from ood_lab.task.synthesize import build_producer
from tests.cases import each

Found = Mapping[str, NDArray[Any]]

ALPHA, FURTHER_STEPS, MAX_STEPS = 0.001, 2, 100
SMALL = [
    "decoder=tiny", "generator=diffusion_small", "generator.epochs=1", "generator.widths=[8,16]",
    "generator.attention=null", "decoder.count=40", "decoder.steps=2", "backbone=narrow", "backbone.width=8",
    "outliers.needs.encoder=[method=anchored,trainer.max_epochs=4,trainer.threads=1,scorer=[msp],figure=[]]",
    "protocol.near=[]", "protocol.far=[gaussian_noise]", "scorer=[energy]", "trainer.max_epochs=1", "trainer.threads=1",
    "figure=[decoded_outliers]",
]  # fmt: skip
# Embeddings at any distance from a boundary, by short steps: the nearest are all one step away.
BOOD = ["method=bood", *SMALL, "outliers.share=20", "outliers.identification=random", f"outliers.alpha={ALPHA}"]
# The same encoder, generator and anchors.
DREAMOOD = ["method=dreamood", *SMALL, "outliers=low_likelihood", "outliers.candidates=20", "outliers.rounds=1",
            "outliers.boundary=3"]  # fmt: skip


class Chain:
    """The runs of a chain that was made, and what they stored."""

    def __init__(self, words: list[str], folder: Path) -> None:
        self.experiment = prepare([*map(as_typed, words), f"paths.output={folder}"])
        self.stages = stages_of(self.experiment)

    def make(self, *names: str) -> None:
        """Here and not in a process of its own each, which would start anew."""
        for name in names or tuple(self.stages):
            ood_lab.run([*self.stages[name].overrides])

    def rows(self, stage: str, name: str) -> Tensor:
        """A tensor of the set that a stage made."""
        return torch.from_numpy(rows_of(self.stages[stage].product, name).whole)

    @cached_property
    def embeddings(self) -> Tensor:
        """Of the training images, as the encoder's run has stored them."""
        (path,) = (self.stages["encoder"].run_dir / "features").glob("train-*")
        return load_features(path).tensors["embedding"]

    @cached_property
    def decoder(self) -> Decoder:
        decoder = build_producer(self.stages["images"])
        assert isinstance(decoder, Decoder)
        return decoder


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("decoded_outliers")


@pytest.fixture(scope="module")
def chain(output: Path) -> Chain:
    made = Chain(BOOD, output)
    made.make()
    return made


@pytest.fixture(scope="module")
def found(chain: Chain) -> Found:
    artifact = DecodedOutliers(chain.experiment)
    assert artifact.path.is_file(), "the figure has asked for them"
    return artifact.load()


def rows_last(images: Tensor) -> NDArray[np.uint8]:
    return images.permute(0, 2, 3, 1).numpy()


def apart(ours: NDArray[Any], theirs: NDArray[Any]) -> int:
    """The largest difference of two sets of pictures."""
    assert ours.shape == theirs.shape
    return int(np.abs(ours.astype(int) - theirs.astype(int)).max())


def test_what_is_stored_has_a_column_for_each_class_and_for_each_value(found: Found) -> None:
    assert {name: found[name].shape for name in ("images", "embeddings", "outliers")} == {
        "images": (CLASSES, 32, 32, 3), "embeddings": (CLASSES, 16, 16, 3), "outliers": (CLASSES, 16, 16, 3),
    }  # fmt: skip
    for name, columns in (("steps", MOMENTS), ("further", len(FURTHER)), ("alpha", len(FACTORS))):
        assert found[f"{name}/pictures"].shape == (columns, WALKED, 16, 16, 3)
        assert found[f"{name}/pictures"].dtype == np.uint8
        for series in ("values", "own", "other"):
            assert found[f"{name}/{series}"].shape == (columns, WALKED)
            assert found[f"{name}/{series}"].dtype == np.float32
    assert len(found) == 3 + 3 * 4


def test_the_images_are_those_that_the_outliers_come_from_one_of_each_class(chain: Chain, found: Found) -> None:
    origins, labels = chain.rows("outliers", "origin")[:CLASSES], chain.rows("outliers", "labels")[:CLASSES]
    assert sorted(labels.tolist()) == list(range(CLASSES))
    listing = build(chain.stages["encoder"].dataset).listing("train")
    for image, origin, label in zip(found["images"], origins.tolist(), labels.tolist(), strict=True):
        assert np.array_equal(image, np.asarray(listing.image(origin)))
        assert listing.labels[origin] == label


def test_outliers_and_embeddings_are_what_the_decoder_gives_for_them(chain: Chain, found: Found) -> None:
    decoder, labels = chain.decoder, chain.rows("outliers", "labels")[:CLASSES]
    points = chain.rows("outliers", "outliers")[:CLASSES]
    anchors = chain.rows("anchors", "anchors")[labels].norm(dim=1, keepdim=True)
    assert apart(found["outliers"], rows_last(decoder.decode(F.normalize(points, dim=1) * anchors, labels, 0))) <= 1
    embeddings = chain.embeddings[chain.rows("outliers", "origin")[:CLASSES]]
    decoded = rows_last(decoder.decode(F.normalize(embeddings, dim=1) * anchors, labels, 0))
    assert apart(found["embeddings"], decoded) <= 1
    assert apart(found["embeddings"], found["outliers"]) > 1


def test_the_pictures_of_outliers_are_the_first_images_that_the_run_is_trained_on(chain: Chain, found: Found) -> None:
    trained_on = rows_of(chain.stages["images"].product, "images")[:CLASSES]
    assert apart(found["outliers"], trained_on) <= 1
    assert apart(found["alpha/pictures"][FACTORS.index(1.0)], trained_on[:WALKED]) <= 1
    assert apart(found["further/pictures"][FURTHER.index(FURTHER_STEPS)], trained_on[:WALKED]) <= 1


def test_the_values_are_steps_to_the_boundary_and_behind_it_and_their_length(chain: Chain, found: Found) -> None:
    steps = chain.rows("outliers", "steps")[:WALKED].tolist()
    assert max(steps) >= MOMENTS - 1, "some way must be long enough to be told apart from a jump"
    expected = [[round(k * number / (MOMENTS - 1)) for k in steps] for number in range(MOMENTS)]
    assert found["steps/values"].tolist() == expected
    assert found["further/values"].tolist() == [[c] * WALKED for c in FURTHER]
    lengths = np.array([[ALPHA * factor] * WALKED for factor in FACTORS])
    assert found["alpha/values"] == pytest.approx(lengths)


def probabilities(chain: Chain, points: Tensor) -> tuple[Tensor, Tensor]:
    """Of the first embeddings' own classes, and the highest of another, in float64."""
    exponentials = logits(chain, points).exp()
    softmax = (exponentials / exponentials.sum(1, keepdim=True)).tolist()
    own, other = [], []
    for row, label in zip(softmax, chain.rows("outliers", "labels").tolist(), strict=False):
        own.append(row.pop(label))
        other.append(max(row))
    return torch.tensor(own), torch.tensor(other)


def logits(chain: Chain, points: Tensor) -> Tensor:
    """Cosines over the encoder's temperature."""
    anchors, h = chain.rows("anchors", "anchors").double(), points.double()
    temperature = chain.stages["encoder"].head.options["temperature"]
    return (h / h.norm(dim=1, keepdim=True)) @ (anchors / anchors.norm(dim=1, keepdim=True)).T / temperature


def way(chain: Chain, row: int, alpha: float = ALPHA) -> Iterator[tuple[Tensor, bool]]:
    """An embedding [1, D] as it goes up the loss of its class, by autograd in float64, and whether it has crossed."""
    origin, label = chain.rows("outliers", "origin")[row], chain.rows("outliers", "labels")[row : row + 1]
    h = chain.embeddings[origin][None].double()
    while True:
        h = h.detach().requires_grad_()
        found = logits(chain, h)
        yield h.detach(), int(found.argmax()) != int(label)
        (gradient,) = torch.autograd.grad(F.cross_entropy(found, label), h)
        h = h + alpha * gradient.sign()


def walked(chain: Chain, row: int, steps: int) -> Tensor:
    """An embedding after so many steps."""
    return next(islice(way(chain, row), steps, None))[0]


def across(chain: Chain, row: int, alpha: float) -> Tensor:
    """An embedding behind the boundary, or after as many steps as are taken before it: of smaller ones as many more."""
    points = way(chain, row, alpha)
    for _ in range(math.ceil(MAX_STEPS * max(1, ALPHA / alpha)) + 1):
        point, crossed = next(points)
        if crossed:
            return next(islice(points, FURTHER_STEPS - 1, None))[0]
    return point


def assert_probabilities(found: Found, name: str, column: int, expected: tuple[Tensor, Tensor], within: float) -> None:
    for series, values in zip(("own", "other"), expected, strict=True):
        assert found[f"{name}/{series}"][column] == pytest.approx(values.numpy(), abs=within), (name, column, series)


def test_the_first_of_the_steps_is_the_embedding_itself(chain: Chain, found: Found) -> None:
    origins, labels = chain.rows("outliers", "origin")[:WALKED], chain.rows("outliers", "labels")[:WALKED]
    assert apart(found["steps/pictures"][0], found["embeddings"][:WALKED]) <= 1
    assert_probabilities(found, "steps", 0, probabilities(chain, chain.embeddings[origins]), 1e-5)
    assert (chain.decoder.labels[:WALKED] == labels).all()


def test_the_boundary_is_crossed_at_the_last_of_the_steps_and_not_before(found: Found) -> None:
    crossed = found["steps/own"] < found["steps/other"]
    assert crossed.tolist() == (found["steps/values"] == found["steps/values"][-1]).tolist()
    assert crossed[-1].all()
    assert not crossed[0].any()
    assert (found["further/own"] < found["further/other"]).all(), "behind it"


def test_the_probabilities_along_the_steps_are_those_of_a_plain_loop(chain: Chain, found: Found) -> None:
    for column in range(MOMENTS):
        moments = found["steps/values"][column].astype(int)
        points = torch.cat([walked(chain, row, int(moment)) for row, moment in enumerate(moments)])
        assert_probabilities(found, "steps", column, probabilities(chain, points), 1e-4)


def test_the_probabilities_behind_the_boundary_are_those_of_a_plain_loop(chain: Chain, found: Found) -> None:
    steps = chain.rows("outliers", "steps")[:WALKED].tolist()
    for column, further in enumerate(FURTHER):
        points = torch.cat([walked(chain, row, k + further) for row, k in enumerate(steps)])
        assert_probabilities(found, "further", column, probabilities(chain, points), 1e-4)
    stored_points = chain.rows("outliers", "outliers")[:WALKED]
    assert_probabilities(found, "further", FURTHER.index(FURTHER_STEPS), probabilities(chain, stored_points), 1e-5)
    assert_probabilities(found, "alpha", FACTORS.index(1.0), probabilities(chain, stored_points), 1e-5)


def test_with_steps_of_another_length_they_lie_as_many_steps_behind_the_boundary(chain: Chain, found: Found) -> None:
    for column, factor in enumerate(FACTORS):
        points = torch.cat([across(chain, row, ALPHA * factor) for row in range(WALKED)])
        assert_probabilities(found, "alpha", column, probabilities(chain, points), 1e-4)


# The run as a whole.


def test_what_is_stored_is_found_again(chain: Chain, found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = DecodedOutliers(chain.experiment)
    made = artifact.path.stat().st_mtime_ns
    monkeypatch.setattr(decoded_outliers, "build_producer", lambda _: pytest.fail("it is made again"))
    again = artifact.load()
    assert artifact.path.stat().st_mtime_ns == made
    assert all(np.array_equal(again[name], found[name]) for name in found)


def test_the_figure_of_the_report_is_drawn_of_them(chain: Chain) -> None:
    figures = chain.experiment.run_dir / "figures"
    assert {path.name for path in figures.iterdir()} == {f"decoded_outliers.{end}" for end in ("png", "pdf", "csv")}
    bars = (figures / "decoded_outliers.csv").read_text().splitlines()[1:]
    assert len(bars) == 2 * WALKED * (MOMENTS + len(FURTHER) + len(FACTORS))
    assert "Decoded outliers" in (chain.experiment.run_dir / "report.html").read_text()


def test_each_stage_has_its_time_and_the_bytes_that_lie_on_the_disk(chain: Chain) -> None:
    rows = {row["metric"]: row for row in read_rows(chain.experiment.run_dir) if row["metric"].startswith("stage_")}
    assert list(chain.stages) == ["anchors", "encoder", "outliers", "generator", "images", "training"]
    assert set(rows) == {f"stage_{what}/{name}" for what in ("time", "bytes") for name in chain.stages}
    for name, run in chain.stages.items():
        time, size = rows[f"stage_time/{name}"], rows[f"stage_bytes/{name}"]
        assert time["value"] > 0
        assert (time["unit"], size["unit"]) == ("s", "bytes")
        assert time["hardware"]
        files = list(run.product.glob("*.safetensors")) if run.produces else [RunFolder(run.run_dir).weights]
        assert size["value"] == sum(path.stat().st_size for path in files) > 0


def test_the_time_of_a_network_is_that_of_its_training_and_of_a_set_that_of_its_shards(chain: Chain) -> None:
    for name, run in chain.stages.items():
        lines = [json.loads(line) for line in (run.run_dir / "cost.jsonl").read_text().splitlines()]
        expected = {"search", "shard 0"} if run.produces else {"training"}
        assert {line["work"] for line in lines} - {"features"} == expected, name


@each(
    "said",
    [
        "anchors are fixed random unit vectors, no embeddings of text",
        "outlier images are of a small diffusion model trained on the ID set, not of Stable Diffusion",
    ],
)
def test_every_result_says_what_is_not_as_in_the_paper(said: str, chain: Chain) -> None:
    assert said in caveats(chain.experiment)
    assert said in caption(chain.experiment, stored(chain.experiment))
    assert said in (chain.experiment.run_dir / "report.html").read_text()


class Hand:
    """The hand of a clock that a test moves; it stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_the_time_of_embedding_the_training_images_counts_once(
    chain: Chain, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is part of building the latent space: the outliers' own time is without it."""
    other = Chain([*BOOD, "outliers.share=10"], output)
    encoder, outliers = other.stages["encoder"], other.stages["outliers"]
    assert encoder.run_id == chain.stages["encoder"].run_id
    hand, kept = Hand(), (encoder.run_dir / "cost.jsonl").read_bytes()

    class Slow(Features):
        def of(self, *args: Any, **options: Any) -> Any:
            hand.now += 100
            return super().of(*args, **options)

    for module in (cost, synthesize):
        monkeypatch.setattr(module, "time", hand)
    monkeypatch.setattr(latent, "Features", Slow)
    before = seconds_of(encoder.run_dir, ("features",))  # of which the longest counts, by another clock until now
    assert before is not None
    other.make("outliers")
    try:
        added = (seconds_of(encoder.run_dir) or 0.0) - before + (seconds_of(outliers.run_dir) or 0.0)
        assert added == pytest.approx(100, abs=1)
    finally:
        (encoder.run_dir / "cost.jsonl").write_bytes(kept)


def test_outliers_that_come_from_no_embedding_stand_beside_the_first_of_their_class(chain: Chain, output: Path) -> None:
    """DreamOOD's are drawn around many: there are no steps to show."""
    other = Chain(DREAMOOD, output)
    for name in ("anchors", "encoder", "generator"):
        assert other.stages[name].run_id == chain.stages[name].run_id, "no network is trained again"
    other.make("outliers", "images")
    found = DecodedOutliers(other.experiment).load()
    assert set(found) == {"images", "embeddings", "outliers"}
    listing = build(other.stages["encoder"].dataset).listing("train")
    firsts = [int(np.flatnonzero(listing.labels == c)[0]) for c in range(CLASSES)]
    assert other.rows("outliers", "labels")[:CLASSES].tolist() == list(range(CLASSES))
    assert np.array_equal(found["images"], np.stack([np.asarray(listing.image(row)) for row in firsts]))
    labels = torch.arange(CLASSES)
    decoder = other.decoder
    points = decoder.with_norm(other.embeddings[firsts], labels)
    assert apart(found["embeddings"], rows_last(decoder.decode(points, labels, 0))) <= 1
    assert apart(found["outliers"], rows_of(other.stages["images"].product, "images")[:CLASSES]) <= 1

"""Serving a resident set: batches are a function of (seed, epoch, step), so a resumed run sees what it would have."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as tv

from ood_lab.augmentation.base import Augmentation
from ood_lab.augmentation.crop_flip import CropFlip
from ood_lab.augmentation.simclr import SimCLR
from ood_lab.errors import RunError
from ood_lab.images.pixels import Decoded, Reading
from ood_lab.random import Draws
from ood_lab.reader import folder
from ood_lab.reader.base import Listing
from ood_lab.training.datamodule import DataModule, Sizes
from ood_lab.training.evaluation_set import EvalLoader
from ood_lab.training.normalise import Normalise
from ood_lab.training.train_loader import Order
from ood_lab.types import Batch
from tests.cases import each
from tests.trees import pixels

ROWS = 37


class Source:
    """Images whose every pixel tells the row they are."""

    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]

    name = "rows"

    def __init__(self, rows: int = ROWS) -> None:
        self.rows = rows

    def listing(self, split: str, id_val: int = 0) -> Listing:
        rows = 10 if split == "val" else self.rows
        pixels = np.broadcast_to(np.arange(rows, dtype=np.uint8)[:, None, None, None], (rows, 32, 32, 3)).copy()
        pixels[:, :, 16:] += 100
        return Listing(np.arange(rows) % 3, ("a", "b", "c"), f"rows {split}", pixels=pixels)


class Pictures(Source):
    """Images of random pixels."""

    def listing(self, split: str, id_val: int = 0) -> Listing:
        rows = super().listing(split)
        return replace(rows, pixels=pixels(len(rows)))


class Plain(Augmentation):
    """No change but the scale."""

    def draw(self, rows: int, generator: torch.Generator) -> Draws:
        return {}

    def apply(self, pixels: torch.Tensor, draws: Draws, cropped: bool = False) -> torch.Tensor:
        return pixels.float().div(255)


def reading(cache: Path = Path("nowhere"), workers: int = 0) -> Reading:
    return Reading(32, 32, cache, 1.0, workers)


def module(
    augmentation: Augmentation | None = None, views: int = 1, seed: int = 0, batch: int = 8, **options: Any
) -> Any:
    return DataModule(
        options.pop("source", Source()),
        augmentation or CropFlip(padding=4, flip=0.5),
        options.pop("reading", reading()),
        normalise=Normalise(Source.mean, Source.std),
        views=views,
        sizes=Sizes(batch, options.pop("auxiliary_size", 8), 4, distinct=options.pop("distinct", None)),
        seed=seed,
        device=torch.device("cpu"),
        **options,
    )


def at(data: Any, epoch: int, step: int = 0, rank: int = 0, world: int = 1) -> Any:
    """Give the module a trainer that stands at a step of an epoch."""
    progress = SimpleNamespace(current=SimpleNamespace(ready=step))
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    data.trainer = SimpleNamespace(current_epoch=epoch, fit_loop=loop, global_rank=rank, world_size=world)
    return data


def served(data: Any) -> list[Batch]:
    return list(data.train_dataloader())


def same(a: list[Batch], b: list[Batch]) -> bool:
    if len(a) != len(b):
        return False
    pairs = [(p, q) for x, y in zip(a, b, strict=True) for p, q in zip(x, y, strict=True)]
    return all(p is q is None or np.array_equal(np.asarray(p), np.asarray(q)) for p, q in pairs)


def row_of(batch: Batch) -> list[int]:
    """The rows in a batch that was served without augmentation."""
    return (batch.images[:, 0, 0, 0] * Source.std[0] + Source.mean[0]).mul(255).round().long().tolist()


def test_an_epoch_is_a_permutation_that_differs_from_epoch_to_epoch_and_seed_to_seed() -> None:
    orders = {(s, e): module(seed=s).train_dataloader().id_order.permutation(e) for s in (0, 1) for e in (0, 1, 2)}
    for order in orders.values():
        assert sorted(order.tolist()) == list(range(ROWS))
    assert len({tuple(o.tolist()) for o in orders.values()}) == 6


def test_the_batches_of_an_epoch_are_disjoint_and_the_incomplete_one_is_dropped() -> None:
    data = at(module(Plain()), 0)
    rows = [row for batch in served(data) for row in row_of(batch)]
    assert data.steps_per_epoch == len(data.train_dataloader()) == ROWS // 8
    assert len(rows) == len(set(rows)) == 32
    assert rows == data.train_dataloader().id_order.permutation(0)[:32].tolist()


def test_images_keep_their_labels() -> None:
    for batch in served(at(module(Plain()), 1)):
        assert batch.labels.tolist() == [row % 3 for row in row_of(batch)]


def test_the_same_seed_epoch_and_step_give_the_same_batch() -> None:
    first = module().train_dataloader().batch(3, 2)
    again = module()
    again.train_dataloader().batch(0, 0)
    torch.manual_seed(5)
    second = again.train_dataloader().batch(3, 2)
    assert same([first], [second])


@each(("seed", "epoch"), [(1, 3), (0, 4)])
def test_another_seed_or_epoch_gives_another_batch(seed: int, epoch: int) -> None:
    first = module().train_dataloader().batch(3, 2)
    other = module(seed=seed).train_dataloader().batch(epoch, 2)
    assert not torch.equal(first.images, other.images)


def test_each_step_draws_its_own_augmentation() -> None:
    class Noise(Augmentation):
        def draw(self, rows: int, generator: torch.Generator) -> Draws:
            return {"noise": torch.rand(rows, 3, 32, 32, generator=generator)}

        def apply(self, pixels: torch.Tensor, draws: Draws, cropped: bool = False) -> torch.Tensor:
            return draws["noise"]

    loader = module(Noise()).train_dataloader()
    draws = [loader.batch(epoch, step).images for epoch in (0, 1) for step in (0, 1)]
    assert len({d.sum().item() for d in draws}) == 4


@each("start", [0, 1, 3])
def test_an_epoch_begun_in_the_middle_goes_on_with_the_same_batches(start: int) -> None:
    whole = served(at(module(), 2))
    assert same(served(at(module(), 2, start)), whole[start:])


def test_the_position_is_asked_when_the_first_batch_is_wanted() -> None:
    data = at(module(), 0)
    iterator = iter(data.train_dataloader())
    at(data, 2, 1)
    assert same(list(iterator), served(at(module(), 2))[1:])


def test_two_views_are_stacked_with_labels_repeated_and_augmented_differently() -> None:
    batch = module(views=2).train_dataloader().batch(0, 0)
    assert batch.images.shape == (16, 3, 32, 32)
    assert torch.equal(batch.labels[:8], batch.labels[8:])
    first, second = batch.images[:8], batch.images[8:]
    assert sum(torch.equal(a, b) for a, b in zip(first, second, strict=True)) <= 2


def test_two_views_are_of_the_same_images() -> None:
    batch = module(Plain(), views=2).train_dataloader().batch(0, 0)
    assert torch.equal(batch.images[:8], batch.images[8:])


def test_normalise_is_torchvisions() -> None:
    pixels = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = pixels.clone()
    expected = tv.normalize(pixels.float() / 255, Source.mean, Source.std)
    normalise = Normalise(Source.mean, Source.std)
    torch.testing.assert_close(normalise(pixels), expected)
    torch.testing.assert_close(normalise(pixels.float() / 255), expected)
    assert torch.equal(pixels, before)


def test_a_float_input_of_normalise_is_left_as_it_was() -> None:
    images = torch.rand(2, 3, 4, 4)
    before = images.clone()
    Normalise(Source.mean, Source.std)(images)
    assert torch.equal(images, before)


def test_validation_is_in_order_whole_and_not_augmented() -> None:
    data = module()
    batches = list(data.val_dataloader())
    assert [len(b.labels) for b in batches] == [4, 4, 2]
    assert len(data.val_dataloader()) == 3
    images = Source().listing("val")
    pixels = torch.from_numpy(images.pixels).permute(0, 3, 1, 2)  # type: ignore[arg-type]
    torch.testing.assert_close(torch.cat([b.images for b in batches]), data.normalise(pixels))
    assert torch.cat([b.labels for b in batches]).tolist() == images.labels.tolist()


@each(("rows", "size", "batches"), [(8, 4, 2), (9, 4, 3), (1, 4, 1)])
def test_an_eval_loader_tells_its_length(rows: int, size: int, batches: int) -> None:
    pixels = Decoded(np.zeros((rows, 3, 4, 4), np.uint8))
    loader = EvalLoader(pixels, np.zeros(rows, np.int64), Normalise([0.0] * 3, [1.0] * 3), size, torch.device("cpu"))
    assert len(loader) == len(list(loader)) == batches
    assert loader.images == rows


def test_a_batch_larger_than_the_set_is_the_whole_set() -> None:
    data = at(module(Plain(), batch=1000), 0)
    (batch,) = served(data)
    assert sorted(row_of(batch)) == list(range(ROWS))
    assert data.steps_per_epoch == 1


def test_the_train_sample_is_balanced_fixed_and_not_augmented() -> None:
    data = module()
    first, second = (list(data.train_sample(4)) for _ in range(2))
    assert same(first, second)
    assert torch.cat([b.labels for b in first]).bincount().tolist() == [4, 4, 4]
    rows = [row for batch in first for row in row_of(batch)]
    assert rows == sorted(set(rows))
    assert torch.cat([b.labels for b in first]).tolist() == [row % 3 for row in rows]


@each("views", [1, 2])
@each("world", [2, 4])
def test_the_devices_share_a_batch_row_by_row(world: int, views: int) -> None:
    whole = module(views=views, auxiliary=Source(50), auxiliary_size=12).train_dataloader().batch(1, 2)
    for rank in range(world):
        data = at(module(views=views, auxiliary=Source(50), auxiliary_size=12), 0, rank=rank, world=world)
        part = data.train_dataloader().batch(1, 2)
        assert torch.equal(part.images, whole.images.unflatten(0, (views, -1))[:, rank::world].flatten(0, 1))
        assert torch.equal(part.labels, whole.labels.unflatten(0, (views, -1))[:, rank::world].flatten(0, 1))
        assert part.auxiliary is not None
        assert whole.auxiliary is not None
        assert torch.equal(part.auxiliary, whole.auxiliary[rank::world])


def auxiliary_rows(data: Any, epochs: int) -> list[list[int]]:
    return [row_of(Batch(b.auxiliary, b.labels)) for epoch in range(epochs) for b in served(at(data, epoch))]


@each(("count", "size"), [(5, 8), (13, 8), (100, 8), (100, 3), (8, 8)])
def test_the_auxiliary_stream_takes_every_image_in_turn_through_the_epochs(count: int, size: int) -> None:
    data = module(Plain(), auxiliary=Source(count), auxiliary_size=size)
    assert data.steps_per_epoch == ROWS // 8
    batches = auxiliary_rows(data, epochs=12)
    assert [len(b) for b in batches] == [size] * (12 * (ROWS // 8))
    stream = [row for batch in batches for row in batch]
    passes = [stream[i : i + count] for i in range(0, len(stream) - count + 1, count)]
    assert passes
    assert all(sorted(p) == list(range(count)) for p in passes)
    assert len(passes) == 1 or passes[0] != passes[1]


def test_the_id_batches_do_not_depend_on_the_auxiliary_set() -> None:
    plain, beside = (at(module(**options), 1) for options in ({}, {"auxiliary": Source(5), "auxiliary_size": 3}))
    assert all(torch.equal(a.images, b.images) for a, b in zip(served(plain), served(beside), strict=True))


def test_an_epoch_begun_in_the_middle_goes_on_with_the_same_auxiliary_images() -> None:
    whole = served(at(module(auxiliary=Source(13), auxiliary_size=5), 2))
    assert same(served(at(module(auxiliary=Source(13), auxiliary_size=5), 2, 3)), whole[3:])


def test_an_order_reads_through_its_passes_from_any_position() -> None:
    stream = torch.cat([Order(7, 0, "x").permutation(i) for i in range(5)])
    for start in range(25):
        for size in (1, 3, 7, 10):
            assert torch.equal(Order(7, 0, "x").rows(start, size), stream[start : start + size])


def distinct_rows(count: int, distinct: int | None, seed: int = 0) -> set[int]:
    """The rows of an auxiliary set that training sees."""
    data = module(Plain(), seed=seed, auxiliary=Source(count), distinct=distinct)
    return {row for batch in auxiliary_rows(data, epochs=8) for row in batch}


@each("seed", [0, 1])
def test_of_the_auxiliary_set_only_so_many_images_are_served(seed: int) -> None:
    used = [distinct_rows(50, count, seed) for count in (1, 7, 8, 30, 50, None)]
    assert [len(rows) for rows in used] == [1, 7, 8, 30, 50, 50]
    for few, more in itertools.pairwise(used):
        assert few <= more
    assert used[3] != set(range(30))
    assert used[3] != distinct_rows(50, 30, seed + 2)


def test_so_many_images_of_an_auxiliary_set_are_taken_in_turn() -> None:
    data = module(Plain(), auxiliary=Source(50), auxiliary_size=8, distinct=13)
    stream = [row for batch in auxiliary_rows(data, epochs=12) for row in batch]
    for start in range(0, len(stream) - 13, 13):
        assert len(set(stream[start : start + 13])) == 13


def test_as_many_images_as_an_auxiliary_set_has_are_the_whole_set() -> None:
    every, some = (module(auxiliary=Source(13), auxiliary_size=5, distinct=count) for count in (None, 13))
    assert same(served(at(every, 2)), served(at(some, 2)))


def test_id_images_do_not_depend_on_the_number_of_auxiliary_images() -> None:
    every, some = (at(module(auxiliary=Source(50), distinct=count), 1) for count in (None, 6))
    for a, b in zip(served(every), served(some), strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)


@each("world", [2, 4])
def test_all_devices_have_the_same_auxiliary_images(world: int) -> None:
    whole = module(Plain(), auxiliary=Source(50), distinct=9).train_dataloader().batch(1, 2)
    for rank in range(world):
        data = at(module(Plain(), auxiliary=Source(50), distinct=9), 0, rank=rank, world=world)
        assert torch.equal(data.train_dataloader().batch(1, 2).auxiliary, whole.auxiliary[rank::world])


def test_more_auxiliary_images_than_there_are_is_an_error() -> None:
    data = module(auxiliary=Source(50), distinct=51)
    with pytest.raises(RunError, match=r"trainer\.auxiliary_images=51: rows has 50 images"):
        data.train_dataloader()


class Kept(Source):
    """Images of another size out of one file, so that the decoded ones are kept in the cache."""

    def __init__(self, file: Path, rows: int) -> None:
        super().__init__(rows)
        self.file = file
        file.write_bytes(b"images")

    def listing(self, split: str, id_val: int = 0) -> Listing:
        rows = super().listing(split)
        return replace(rows, pixels=rows.pixels[:, ::2, ::2], labels=np.full(len(rows), -1), files=(self.file,))


def test_the_cache_does_not_take_one_choice_of_auxiliary_images_for_another(tmp_path: Path) -> None:
    source, found = Kept(tmp_path / "file", 50), {}
    for seed, count in ((0, None), (0, 8), (0, 9), (1, 8), (0, 8)):
        data = module(Plain(), seed=seed, auxiliary=source, distinct=count, reading=reading(tmp_path / "cache"))
        rows = {row for batch in auxiliary_rows(data, epochs=6) for row in batch}
        assert len(rows) == (count or 50)
        assert rows == distinct_rows(50, count, seed)
        assert found.setdefault((seed, count), rows) == rows
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 4


class Files:
    """Pictures of different shapes in files."""

    name, mean, std = "files", Source.mean, Source.std

    def __init__(self, root: Path, count: int = 20) -> None:
        for i in range(count):
            rng = np.random.default_rng(i)
            path = root / "ab"[i % 2] / f"{i:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (40 + i, 60 - i, 3), dtype=np.uint8)).save(path)
        self.root = root

    def listing(self, split: str, id_val: int = 0) -> Listing:
        return folder.read(self.root, {"folder": "."})


SIMCLR: dict[str, Any] = {
    "scale": [0.2, 1.0], "ratio": [0.75, 1.3333], "flip": 0.5, "jitter": 0.8, "brightness": 0.4, "contrast": 0.4,
    "saturation": 0.4, "hue": 0.1, "grey": 0.2,
}  # fmt: skip


@each("augmentation", [CropFlip(padding=4, flip=0.5), SimCLR(**SIMCLR)])
def test_streamed_batches_are_the_same_with_any_number_of_workers(augmentation: Augmentation, tmp_path: Path) -> None:
    source = Files(tmp_path / "pictures")
    runs = []
    for workers in (0, 1, 3):
        data = module(
            augmentation, views=2, batch=4, source=source, stream=True, reading=reading(tmp_path, workers),
            auxiliary=Source(9), auxiliary_size=3,
        )  # fmt: skip
        assert data.streams
        runs.append(served(at(data, 1, 1)))
    assert len(runs[0]) == 4
    assert same(runs[0], runs[1])
    assert same(runs[0], runs[2])


def test_streamed_and_resident_batches_are_the_same_where_the_decoding_crops_nothing(tmp_path: Path) -> None:
    source = Files(tmp_path / "pictures")
    streamed, resident = (
        served(at(module(source=source, batch=6, stream=stream, reading=reading(tmp_path / "cache")), 2))
        for stream in (True, False)
    )
    assert same(streamed, resident)


def test_streamed_crops_take_all_pixels_of_the_picture(tmp_path: Path) -> None:
    """A crop of everything is PIL's resize of the whole picture, not of its centre."""
    source = Files(tmp_path / "pictures", count=4)
    everything = SIMCLR | {"scale": [1.0, 1.0], "ratio": [1.0, 1.0], "flip": 0.0, "jitter": 0.0, "grey": 0.0}
    data = module(SimCLR(**everything), source=source, batch=4, stream=True)
    batch = data.train_dataloader().batch(0, 0)
    rows = data.train_dataloader().id_order.permutation(0)
    for image, row in zip(batch.images, rows.tolist(), strict=True):
        picture = source.listing("train").image(row)
        width, height = picture.size
        # All of the area leaves the box no choice of aspect.
        assert width != height
        expected = np.asarray(picture.resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        torch.testing.assert_close(image, data.normalise(torch.from_numpy(expected.copy())[None])[0])


@each("augmentation", [Plain(), CropFlip(padding=4, flip=0.5), SimCLR(**SIMCLR)])
@each("world", [1, 2])
def test_raw_auxiliary_images_are_their_pixels_over_255_and_not_augmented(
    world: int, augmentation: Augmentation
) -> None:
    pixels = torch.from_numpy(Pictures(40).listing("auxiliary").pixels).permute(0, 3, 1, 2)
    for rank in range(world):
        raw, plain = (
            at(module(augmentation, views=2, auxiliary=Pictures(40), outlier_space=space), 1, rank=rank, world=world)
            for space in ("raw01", "normalised")
        )
        for step, (batch, beside) in enumerate(zip(served(raw), served(plain), strict=True)):
            order = raw.train_dataloader().auxiliary_order
            rows = order.rows((len(raw.train_dataloader()) + step) * 8, 8)[rank::world]
            assert torch.equal(batch.auxiliary, pixels[rows].float() / 255)
            assert batch.auxiliary.min() >= 0
            assert batch.auxiliary.max() <= 1
            assert beside.auxiliary.min() < -0.2
            assert torch.equal(batch.images, beside.images)
            assert torch.equal(batch.labels, beside.labels)


def test_raw_auxiliary_images_out_of_files_are_whole_pictures(tmp_path: Path) -> None:
    """Resident, or decoded for each step."""
    source, options = Files(tmp_path / "pictures"), {"outlier_space": "raw01"}
    resident, streamed = (
        at(module(auxiliary=source, reading=Reading(32, 32, tmp_path, limit, 0), **options), 1) for limit in (1.0, 0.0)
    )
    assert not resident.streams
    assert streamed.streams
    for a, b in zip(served(resident), served(streamed), strict=True):
        assert torch.equal(a.auxiliary, b.auxiliary)

"""Serving a resident set: batches are a function of (seed, epoch, step), so a resumed run sees what it would have."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torchvision.transforms import functional as tv

from ood_lab.augmentation.base import Augmentation
from ood_lab.augmentation.crop_flip import CropFlip
from ood_lab.datamodule import EvalLoader, Normalise, ResidentDataModule
from ood_lab.types import Batch, Images

ROWS = 37


class Source:
    """Images whose every pixel tells the row they are."""

    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]

    def load(self, split: str) -> Images:
        rows = {"train": ROWS, "val": 10}[split]
        pixels = torch.arange(rows, dtype=torch.uint8).view(rows, 1, 1, 1).expand(rows, 3, 32, 32).contiguous()
        pixels[:, :, :, 16:] += 100
        return Images(pixels, torch.arange(rows) % 3)


class Plain(Augmentation):
    """No change but the scale."""

    def __call__(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return pixels.float().div(255)


def module(augmentation: Augmentation | None = None, views: int = 1, seed: int = 0, batch: int = 8) -> Any:
    return ResidentDataModule(
        Source(),  # type: ignore[arg-type]
        augmentation or CropFlip(padding=4, flip=0.5),
        views=views,
        batch_size=batch,
        eval_batch_size=4,
        seed=seed,
        device=torch.device("cpu"),
    )


def at(data: Any, epoch: int, step: int = 0) -> Any:
    """Give the module a trainer that stands at a step of an epoch."""
    progress = SimpleNamespace(current=SimpleNamespace(ready=step))
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    data.trainer = SimpleNamespace(current_epoch=epoch, fit_loop=loop)
    return data


def served(data: Any) -> list[Batch]:
    return list(data.train_dataloader())


def same(a: list[Batch], b: list[Batch]) -> bool:
    if len(a) != len(b):
        return False
    return all(torch.equal(p, q) for x, y in zip(a, b, strict=True) for p, q in zip(x, y, strict=True))


def row_of(batch: Batch) -> list[int]:
    """The rows in a batch that was served without augmentation."""
    return (batch.images[:, 0, 0, 0] * Source.std[0] + Source.mean[0]).mul(255).round().long().tolist()


def test_an_epoch_is_a_permutation_that_differs_from_epoch_to_epoch_and_seed_to_seed() -> None:
    orders = {(s, e): module(seed=s).train_dataloader().order(e) for s in (0, 1) for e in (0, 1, 2)}
    for order in orders.values():
        assert sorted(order.tolist()) == list(range(ROWS))
    assert len({tuple(o.tolist()) for o in orders.values()}) == 6


def test_the_batches_of_an_epoch_are_disjoint_and_the_incomplete_one_is_dropped() -> None:
    data = at(module(Plain()), 0)
    rows = [row for batch in served(data) for row in row_of(batch)]
    assert data.steps_per_epoch == len(data.train_dataloader()) == ROWS // 8
    assert len(rows) == len(set(rows)) == 32
    assert rows == data.train_dataloader().order(0)[:32].tolist()


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


@pytest.mark.parametrize(("seed", "epoch"), [(1, 3), (0, 4)])
def test_another_seed_or_epoch_gives_another_batch(seed: int, epoch: int) -> None:
    first = module().train_dataloader().batch(3, 2)
    other = module(seed=seed).train_dataloader().batch(epoch, 2)
    assert not torch.equal(first.images, other.images)


def test_each_step_draws_its_own_augmentation() -> None:
    class Noise(Augmentation):
        def __call__(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            return torch.rand(pixels.shape, generator=generator)

    loader = module(Noise()).train_dataloader()
    draws = [loader.batch(epoch, step).images for epoch in (0, 1) for step in (0, 1)]
    assert len({d.sum().item() for d in draws}) == 4


@pytest.mark.parametrize("start", [0, 1, 3])
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
    images = Source().load("val")
    torch.testing.assert_close(torch.cat([b.images for b in batches]), data.normalise(images.pixels))
    assert torch.equal(torch.cat([b.labels for b in batches]), images.labels)


@pytest.mark.parametrize(("rows", "size", "batches"), [(8, 4, 2), (9, 4, 3), (1, 4, 1)])
def test_an_eval_loader_tells_its_length(rows: int, size: int, batches: int) -> None:
    images = Images(torch.zeros(rows, 3, 2, 2, dtype=torch.uint8), torch.zeros(rows, dtype=torch.int64))
    loader = EvalLoader(images, Normalise([0.0] * 3, [1.0] * 3), size)
    assert len(loader) == len(list(loader)) == batches


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

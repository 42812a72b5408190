"""Outliers mixed with ID images: pixels and soft labels against loops, how lambda is drawn, and several devices."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.stats import chisquare, kstest
from torch import Tensor

from ood_lab.errors import RunError
from ood_lab.network import Network
from ood_lab.perturbation.base import Beside, OutlierImages
from ood_lab.perturbation.mix import Mix, pasted
from ood_lab.random import beta
from tests.cases import each

C, ROWS = 4, 8
LABELS = torch.tensor([2, 0, 1, 3, 3, 0, 2, 1])
SHAPE = (3, 6, 9)
OPERATIONS = ["blend", "paste"]
OUTLIER_LABELS = ["absent", "uniform"]
SEEDS = range(12)


def unused(*_: Any) -> Any:
    raise AssertionError("mixing asks no network")


NETWORK = Network(torch.nn.Identity(), unused)


def images(rows: int = ROWS, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(rows, *SHAPE, generator=draw, dtype=torch.float64).to(dtype)


ID, OUTLIERS = images(), images(seed=1)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mix(operation: Any = "blend", outlier_label: Any = "absent", a: float = 2.0, b: float = 2.0) -> Mix:
    return Mix(operation=operation, beta_a=a, beta_b=b, outlier_label=outlier_label)


def beside(own: Tensor = ID, labels: Tensor = LABELS, outputs: int = C + 1, rank: int = 0, world: int = 1) -> Beside:
    return Beside(own, labels, C, outputs, NETWORK, rank, world)


def drawn(operation: str, seed: int) -> tuple[float, list[float]]:
    """Lambda as it comes from the Beta distribution, and the centre of a box in shares of height and width."""
    stream = generator(seed)
    share = beta(2.0, 2.0, (), stream).float()
    centre = torch.rand(2, generator=stream).tolist() if operation == "paste" else []
    return share.item(), centre


def bounds(size: int, share: float, middle: float) -> range:
    """One side of a box of CutMix's code: as long as it is cut, less one where that is odd."""
    cut, place = int(size * math.sqrt(1 - share)), int(middle * size)
    return range(max(place - cut // 2, 0), min(place + cut // 2, size))


def boxed(own: list, others: list, share: float, centre: list[float]) -> tuple[list, float]:
    """ID images with a box of the outlier in each, pixel by pixel, and the share that is kept."""
    height, width = len(own[0][0]), len(own[0][0][0])
    rows, columns = bounds(height, share, centre[0]), bounds(width, share, centre[1])
    made = [[[line[:] for line in channel] for channel in image] for image in own]
    for image, other in zip(made, others, strict=True):
        for channel, source in zip(image, other, strict=True):
            for y in rows:
                for x in columns:
                    channel[y][x] = source[y][x]
    return made, 1 - len(rows) * len(columns) / (height * width)


def blended(own: list, others: list, share: float) -> list:
    if isinstance(own, list):
        return [blended(a, b, share) for a, b in zip(own, others, strict=True)]
    return share * own + (1 - share) * others


def soft(labels: list[int], share: float, outlier_label: str, outputs: int) -> list[list[float]]:
    rows = []
    for label in labels:
        row = [0.0] * outputs
        row[label] += share
        if outlier_label == "absent":
            row[-1] += 1 - share
        else:
            row[:C] = [x + (1 - share) / C for x in row[:C]]
        rows.append(row)
    return rows


def naive(own: Tensor, others: Tensor, labels: Tensor, seed: int, kind: tuple[str, str, int]) -> tuple[Tensor, Tensor]:
    operation, outlier_label, outputs = kind
    share, centre = drawn(operation, seed)
    if operation == "paste":
        made, share = boxed(own.tolist(), others.tolist(), share, centre)
    else:
        made = blended(own.tolist(), others.tolist(), share)
    targets = soft(labels.tolist(), share, outlier_label, outputs)
    return torch.tensor(made, dtype=torch.float64), torch.tensor(targets, dtype=torch.float64)


def targets_of(found: OutlierImages) -> Tensor:
    assert found.targets is not None
    return found.targets


@each(("outlier_label", "outputs"), [("absent", C + 1), ("uniform", C), ("uniform", C + 1)])
@each("operation", OPERATIONS)
def test_images_and_soft_labels_match_the_loops(operation: str, outlier_label: str, outputs: int) -> None:
    for seed in SEEDS:
        found = mix(operation, outlier_label)(OUTLIERS, beside(outputs=outputs), generator(seed))
        made, targets = naive(ID, OUTLIERS, LABELS, seed, (operation, outlier_label, outputs))
        torch.testing.assert_close(found.images, made, atol=1e-6, rtol=0)
        torch.testing.assert_close(targets_of(found), targets, atol=1e-6, rtol=0)
        torch.testing.assert_close(targets_of(found).sum(1), torch.ones(ROWS).double(), atol=1e-6, rtol=0)


@each("share", [0.0, 0.1, 0.5, 0.75, 0.97, 1.0])
@each("size", [(6, 9), (8, 8), (5, 12), (1, 1)])
def test_a_box_has_the_images_aspect_and_is_cut_at_the_borders(size: tuple[int, int], share: float) -> None:
    own, others = torch.zeros(2, 3, *size).double(), torch.ones(2, 3, *size).double()
    for seed in SEEDS:
        found, kept = pasted(own, others, torch.tensor(share), generator(seed))
        centre = torch.rand(2, generator=generator(seed)).tolist()
        made, expected = boxed(own.tolist(), others.tolist(), share, centre)
        assert found.tolist() == made
        assert kept.item() == pytest.approx(expected, abs=1e-12)
        assert kept.item() == pytest.approx(1 - found.mean().item(), abs=1e-12)


def test_a_boxs_centre_is_uniform_over_rows_and_columns() -> None:
    own, others, stream = torch.zeros(1, 1, 4, 6), torch.ones(1, 1, 4, 6), generator(0)
    counts = [[0] * 6 for _ in range(4)]
    for _ in range(1500):
        made, _ = pasted(own, others, torch.tensor(0.75), stream)
        assert made.any()
        inside = made[0, 0].nonzero()
        y, x = inside.amax(0).tolist()  # of a box two rows high and two columns wide
        counts[y][x] += 1
    flat = torch.tensor(counts)
    assert chisquare(flat.flatten()).pvalue > 1e-3


@each("operation", OPERATIONS)
def test_there_is_one_lambda_for_the_whole_batch_and_another_in_the_next(operation: str) -> None:
    stream, found = generator(0), []
    for _ in range(10):
        absent = targets_of(mix(operation)(OUTLIERS, beside(), stream))[:, -1]
        assert (absent == absent[0]).all()
        found.append(absent[0].item())
    assert len(set(found)) > 5


def test_of_a_blend_lambda_is_the_id_images_share_of_every_pixel() -> None:
    own, others = torch.ones_like(ID), torch.full_like(ID, 3.0)
    found = mix("blend")(others, beside(own), generator(0))
    share = targets_of(found)[0, LABELS[0]].item()
    assert 0 < share < 1
    torch.testing.assert_close(found.images, torch.full_like(ID, share + 3 * (1 - share)), atol=1e-6, rtol=0)


@each(("a", "b"), [(10.0, 10.0), (0.1, 1.0), (1.0, 1.0), (5.0, 2.0)])
def test_lambda_comes_from_a_beta_distribution(a: float, b: float) -> None:
    stream, count = generator(0), 3000
    shares = torch.stack([beta(a, b, (), stream).float() for _ in range(count)]).double()
    mean, variance = a / (a + b), a * b / ((a + b) ** 2 * (a + b + 1))
    assert shares.mean().item() == pytest.approx(mean, abs=4 * math.sqrt(variance / count))
    assert shares.var().item() == pytest.approx(variance, rel=0.1)
    assert ((shares >= 0) & (shares <= 1)).all()
    assert kstest(shares.numpy(), "beta", (a, b)).pvalue > 1e-3


@each("operation", OPERATIONS)
def test_it_draws_lambda_from_its_own_beta_distribution(operation: str) -> None:
    perturbation, stream = mix(operation, a=200.0, b=50.0), generator(0)
    kept = [1 - targets_of(perturbation(OUTLIERS, beside(), stream))[0, -1].item() for _ in range(300)]
    if operation == "blend":
        assert sum(kept) / len(kept) == pytest.approx(0.8, abs=0.01)
    else:
        assert min(kept) == pytest.approx(1 - 2 * 4 / 54)  # boxes of about 0.45 of both sides, of even lengths


@each("operation", OPERATIONS)
@each(("ids", "outliers"), [(ROWS, 3), (3, ROWS), (1, 1)])
def test_unequal_numbers_are_cut_to_the_shorter(ids: int, outliers: int, operation: str) -> None:
    given = beside(ID[:ids], LABELS[:ids])
    found = mix(operation)(OUTLIERS[:outliers], given, generator(1))
    count = min(ids, outliers)
    made, targets = naive(ID[:count], OUTLIERS[:count], LABELS[:count], 1, (operation, "absent", C + 1))
    torch.testing.assert_close(found.images, made, atol=1e-6, rtol=0)
    torch.testing.assert_close(targets_of(found), targets, atol=1e-6, rtol=0)


@each("outlier_label", OUTLIER_LABELS)
@each("operation", OPERATIONS)
@each("outliers", [ROWS, 6])
def test_two_devices_make_together_what_one_makes(outliers: int, operation: str, outlier_label: str) -> None:
    perturbation = mix(operation, outlier_label)
    for seed in SEEDS:
        whole = perturbation(OUTLIERS[:outliers], beside(), generator(seed))
        for rank in (0, 1):
            place = beside(ID[rank::2], LABELS[rank::2], rank=rank, world=2)
            found = perturbation(OUTLIERS[:outliers][rank::2], place, generator(seed))
            assert torch.equal(found.images, whole.images[rank::2])
            assert torch.equal(targets_of(found), targets_of(whole)[rank::2])


@each("operation", OPERATIONS)
def test_it_is_a_function_of_the_generator_and_leaves_the_global_stream(operation: str) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = mix(operation)(OUTLIERS, beside(), generator(0))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    again, other = (mix(operation)(OUTLIERS, beside(), generator(seed)) for seed in (0, 1))
    assert torch.equal(again.images, first.images)
    assert (other.images - first.images).abs().max() > 0.1


@each("dtype", [torch.float32, torch.float64, torch.float16])
@each("operation", OPERATIONS)
def test_the_given_images_stay_and_precision_is_kept(operation: str, dtype: torch.dtype) -> None:
    own, others = images(dtype=dtype), images(seed=1, dtype=dtype)
    found = mix(operation)(others, beside(own), generator(0))
    assert torch.equal(own, images(dtype=dtype))
    assert torch.equal(others, images(seed=1, dtype=dtype))
    assert (found.images.shape, found.images.dtype, targets_of(found).dtype) == (own.shape, dtype, dtype)
    assert not found.images.requires_grad
    found.images.zero_()
    assert torch.equal(own, images(dtype=dtype))
    assert torch.equal(others, images(seed=1, dtype=dtype))


@each("operation", OPERATIONS)
def test_a_head_without_an_output_for_outliers_has_no_label_for_them(operation: str) -> None:
    with pytest.raises(RunError, match=r"outlier_label=absent.*head=absent_class"):
        mix(operation)(OUTLIERS, beside(outputs=C), generator(0))


def test_terms_may_read_the_soft_labels() -> None:
    assert Mix.gives == ("targets",)
    assert targets_of(mix()(OUTLIERS, beside(), generator(0))).shape == (ROWS, C + 1)

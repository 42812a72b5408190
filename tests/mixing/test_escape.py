"""Escape: rounds of one image after the other with PixMix's strengths, how they are drawn, and parts of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from ood_lab.images import operations as ops
from ood_lab.mixing.base import Mixing
from ood_lab.mixing.escape import COLOUR, GEOMETRIC_AND_TONE, Escape, blend, crops, pixmix
from ood_lab.random import Draws, share
from tests.cases import each

SIDE, PICTURE_SIDE, PICTURES = 18, 23, 5  # pixels enough for equalize
N = 20_000
MIXES = ["blend", "pixmix"]
SHARES = ["image", "step"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def escape(**changes: Any) -> Escape:
    options: dict[str, Any] = {
        "rounds": 4, "mix": "blend", "alpha": 3.0, "shares": "image", "p_clean": 0.0, "severity": 3.0, "colour": True,
    }  # fmt: skip
    return Escape(**{**options, **changes})


def pictures(count: int = PICTURES, side: int = PICTURE_SIDE) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side), generator=generator(9), dtype=torch.uint8)


def images(rows: int, seed: int = 1, side: int = SIDE) -> Tensor:
    """On the levels of a byte, as they come out of an augmentation of whole pixels."""
    return torch.randint(0, 256, (rows, 3, side, side), generator=generator(seed)).float() / 255


def row_of(draws: Draws, row: int) -> Draws:
    return {name: values[row : row + 1] for name, values in draws.items()}


def assert_same(found: Tensor, expected: Tensor) -> None:
    """But for few images: a value halfway between two levels of a byte may be rounded either way."""
    assert found.shape == expected.shape
    apart = (found.double() - expected.double()).abs().flatten(1)
    assert (apart.amax(1) < 1e-5).double().mean() > 0.9
    assert apart.mean(1).max() < 1e-3


# What is made of the choices.

# PixMix's strengths for a level u, and its sign where it has one; whole ones by int(), as in its code.
PIXMIX: list[tuple[Callable[..., Tensor], Callable[[float, float], float] | None]] = [
    (ops.autocontrast, None),
    (ops.equalize, None),
    (ops.posterize, lambda u, _: 4 - int(u * 4 / 10)),
    (ops.rotate, lambda u, sign: sign * int(u * 30 / 10)),
    (ops.solarize, lambda u, _: 256 - int(u * 256 / 10)),
    (ops.shear_x, lambda u, sign: sign * u * 0.3 / 10),
    (ops.shear_y, lambda u, sign: sign * u * 0.3 / 10),
    (ops.translate_x, lambda u, sign: sign * int(u * (SIDE / 3) / 10)),
    (ops.translate_y, lambda u, sign: sign * int(u * (SIDE / 3) / 10)),
    *(
        (change, lambda u, _: u * 1.8 / 10 + 0.1)
        for change in (ops.colour, ops.contrast, ops.brightness, ops.sharpness)
    ),
]


def changed(image: Tensor, which: int, level: float, sign: float) -> Tensor:
    """One image [3, S, S] under one operation."""
    change, strength = PIXMIX[which]
    given = [] if strength is None else [torch.tensor([float(strength(level, sign))])]
    return change(image[None], *given)[0]


def cut(of: Tensor, which: int, corner: list[float], side: int) -> np.ndarray:
    """The square of a picture [3, side, side] in [0, 1]."""
    top, left = (int(c * (of.shape[-1] - side + 1)) for c in corner)
    return of[which].double().numpy()[:, top : top + side, left : left + side] / 255


def pixmix_naive(x: np.ndarray, y: np.ndarray, a: float, b: float, adds: bool) -> np.ndarray:
    """PixMix's `add` and `multiply`, for given coefficients."""
    added = (a * (x * 2 - 1) + b * (y * 2 - 1) + 1) / 2
    multiplied = (x * 2) ** a * np.clip(y * 2, 1e-37, None) ** b / 2
    return np.clip(added if adds else multiplied, 0, 1)


def naive(image: Tensor, of: Tensor, d: Draws, row: int) -> np.ndarray:
    """One image, round by round: mixing in float64, operations on the single image."""
    x = image.double().numpy()
    y = cut(of, int(d["picture"][row]), d["corner"][row].tolist(), image.shape[-1])
    for turn in range(d["active"].shape[1]):
        if not d["active"][row, turn]:
            continue
        if not d["mixed"][row, turn]:
            choice = int(d["operation"][row, turn]), float(d["level"][row, turn]), float(d["sign"][row, turn])
            x = changed(torch.from_numpy(x).float(), *choice).double().numpy()
        elif "share" in d:
            x = float(d["share"][row, turn]) * x + (1 - float(d["share"][row, turn])) * y
        else:
            x = pixmix_naive(x, y, *(float(d[name][row, turn]) for name in "ab"), bool(d["adds"][row, turn]))
    return x


@each("mix", MIXES)
@each("shares", SHARES)
@each(("severity", "colour", "rounds"), [(3.0, True, 4), (9.9, True, 1), (3.0, False, 6), (9.9, False, 2)])
def test_every_image_is_what_one_round_after_the_other_makes_of_it(
    severity: float, colour: bool, rounds: int, shares: str, mix: str
) -> None:
    mixing = escape(mix=mix, shares=shares, severity=severity, colour=colour, rounds=rounds, p_clean=0.1)
    given, of = images(60), pictures()
    draws = mixing.draw(len(given), len(of), generator(3))
    found = mixing.apply(given, of, draws)
    assert found.dtype == torch.float32
    assert (found >= 0).all()
    assert (found <= 1 + 1e-6).all()
    assert_same(found, torch.stack([torch.from_numpy(naive(given[row], of, draws, row)) for row in range(60)]))


@each("which", range(len(PIXMIX)))
@each("sign", [-1.0, 1.0])
@each("level", [0.1, 0.94, 1.6, 2.49, 2.51, 3.0, 6.7, 9.9])
def test_an_operation_has_pixmixs_strength(level: float, sign: float, which: int) -> None:
    mixing, given = escape(rounds=1), images(3)
    draws = mixing.draw(3, PICTURES, generator())
    draws["mixed"], draws["operation"] = torch.zeros(3, 1, dtype=torch.bool), torch.full((3, 1), which)
    draws["level"], draws["sign"] = torch.full((3, 1), level), torch.full((3, 1), sign)
    found = mixing.apply(given, pictures(), draws)
    for row in range(3):
        torch.testing.assert_close(found[row], changed(given[row], which, level, sign), atol=1e-5, rtol=0)


def test_its_operations_are_pixmixs_and_colours_are_left_out_where_asked() -> None:
    assert len(escape(colour=True).operations) == len(PIXMIX) == 13
    assert escape(colour=False).operations == GEOMETRIC_AND_TONE
    assert escape(colour=True).operations == GEOMETRIC_AND_TONE + COLOUR
    for colour, count in ((True, 13), (False, 9)):
        draws = escape(colour=colour).draw(N, PICTURES, generator())
        assert_uniform(draws["operation"], count)


def test_a_blend_is_eq_1_with_the_share_of_the_image() -> None:
    given, others = images(3), images(3, seed=2)
    found = blend(given, others, torch.tensor([0.0, 1.0, 0.3], dtype=torch.float64))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[0], others[0])
    torch.testing.assert_close(found[1], given[1])
    torch.testing.assert_close(found[2], 0.3 * given[2] + 0.7 * others[2])


@each("adds", [True, False])
@each(("a", "b"), [(0.75, 0.25), (1.25, -0.25), (1.9, -0.99), (1.0, 0.0), (0.01, 0.99)])
def test_pixmix_adds_or_multiplies_and_cuts(a: float, b: float, adds: bool) -> None:
    x, y = images(2), images(2, seed=2)
    x[0, 0, 0], y[0, 0, :, 0], y[1, 1] = 0.0, 0.0, 0.0
    found = pixmix(x, y, *(torch.full((2,), value) for value in (a, b)), torch.full((2,), adds))
    expected = pixmix_naive(x.double().numpy(), y.double().numpy(), a, b, adds)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-6)
    if (a, b) == (1.0, 0.0):
        torch.testing.assert_close(found, x)


@each("side", [1, 5, PICTURE_SIDE])
def test_crops_are_squares_of_the_chosen_pictures_at_every_place(side: int) -> None:
    of, which = pictures(), torch.tensor([4, 0, 0, 2, 3])
    corner = torch.tensor([[0.0, 0.0], [0.999999, 0.0], [0.0, 0.999999], [0.37, 0.81], [0.5, 0.5]])
    found = crops(of, which, corner, side)
    assert found.shape == (5, 3, side, side)
    assert found.dtype == torch.float32
    for row in range(5):
        expected = cut(of, int(which[row]), corner[row].tolist(), side)
        np.testing.assert_allclose(found[row].numpy(), expected, atol=1e-6)


def test_a_crop_reaches_every_place_of_a_picture() -> None:
    draws = escape().draw(4000, 1, generator())
    mark = torch.arange(PICTURE_SIDE**2).view(1, 1, PICTURE_SIDE, PICTURE_SIDE).expand(1, 3, -1, -1) % 251
    found = crops(mark.to(torch.uint8), draws["picture"], draws["corner"], SIDE)[:, 0, 0, 0] * 255
    counts = np.bincount(found.round().long().numpy())
    assert (counts > 0).sum() == (PICTURE_SIDE - SIDE + 1) ** 2
    assert stats.chisquare(counts[counts > 0]).pvalue > 1e-3


# How the choices are drawn.


def assert_uniform(values: Tensor, count: int) -> None:
    found = np.bincount(values.flatten().numpy(), minlength=count)
    assert len(found) == count
    assert count == 1 or stats.chisquare(found).pvalue > 1e-3


@each("rounds", [1, 2, 4, 7])
def test_rounds_are_uniform_from_one_on_and_one_of_them_mixes_the_others_by_halves(rounds: int) -> None:
    draws = escape(rounds=rounds).draw(N, PICTURES, generator(1))
    active, mixed = draws["active"], draws["active"] & draws["mixed"]
    count = active.sum(1)
    assert_uniform(count - 1, rounds)
    assert torch.equal(active, torch.arange(rounds) < count[:, None])
    assert mixed.any(1).all()
    for n in range(1, rounds + 1):
        of = mixed[count == n]
        # Besides the one that mixes in any case, as many as heads of n - 1 coins; no place is preferred.
        expected = stats.binom(n - 1, 0.5).pmf(np.arange(n)) * len(of)
        assert n == 1 or stats.chisquare(np.bincount(of.sum(1).numpy() - 1, minlength=n), expected).pvalue > 1e-3
        share_of_place = of[:, :n].double().mean(0)
        assert (share_of_place - (n + 1) / (2 * n)).abs().max() < 5 * (0.25 / len(of)) ** 0.5


@each("p_clean", [0.0, 0.3, 1.0])
def test_so_large_a_share_of_images_is_left_as_it_is(p_clean: float) -> None:
    mixing = escape(p_clean=p_clean)
    clean = ~mixing.draw(N, PICTURES, generator(1))["active"].any(1)
    assert clean.double().mean().item() == pytest.approx(p_clean, abs=5 * (p_clean * (1 - p_clean) / N) ** 0.5)
    draws, given = mixing.draw(50, PICTURES, generator(1)), images(50)
    clean = ~draws["active"].any(1)
    found = mixing.apply(given, pictures(), draws)
    assert torch.equal(found[clean], given[clean])
    assert (found != given)[~clean].flatten(1).any(1).all()


@each("severity", [0.5, 3.0, 10.0])
def test_levels_signs_pictures_and_corners_are_uniform(severity: float) -> None:
    draws = escape(severity=severity).draw(N // 4, PICTURES, generator(2))
    level = draws["level"].flatten().double().numpy()
    assert level.min() >= 0.1 - 1e-6
    assert level.max() <= severity
    assert stats.kstest(level, stats.uniform(0.1, severity - 0.1).cdf).pvalue > 1e-3
    assert set(draws["sign"].unique().tolist()) == {-1.0, 1.0}
    assert abs(draws["sign"].mean()) < 5 / N**0.5
    assert_uniform(draws["picture"], PICTURES)
    assert ((draws["corner"] >= 0) & (draws["corner"] < 1)).all()
    assert stats.kstest(draws["corner"].flatten().numpy(), "uniform").pvalue > 1e-3


@each("alpha", [0.5, 3.0])
def test_shares_of_a_blend_follow_beta_for_each_image_and_round_or_once_a_step(alpha: float) -> None:
    each_own = escape(alpha=alpha).draw(N // 4, PICTURES, generator(2))["share"]
    assert each_own.shape == (N // 4, 4)
    assert stats.kstest(each_own.flatten().double().numpy(), stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    assert np.abs(np.corrcoef(each_own.T.numpy()) - np.eye(4)).max() < 5 / (N / 4) ** 0.5
    steps = [escape(alpha=alpha, shares="step").draw(3, PICTURES, generator(s))["share"] for s in range(300)]
    assert all(found.shape == (3, 4) and len(found.unique()) == 1 for found in steps)
    assert stats.kstest([float(found[0, 0]) for found in steps], stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_coefficients_are_pixmixs() -> None:
    draws = escape(mix="pixmix").draw(N // 4, PICTURES, generator(2))
    assert "share" not in draws
    a, b = draws["a"].flatten().double().numpy(), draws["b"].flatten().double().numpy()
    within = b >= 0
    assert abs(within.mean() - 0.5) < 2.5 / N**0.5
    laws = ((a[within], (3, 1)), (b[within], (1, 3)), (a[~within] - 1, (1, 3)), (-b[~within], (1, 3)))
    for values, (first, second) in laws:
        assert stats.kstest(values, stats.beta(first, second).cdf).pvalue > 1e-3
    for side in (within, ~within):
        assert abs(np.corrcoef(a[side], b[side])[0, 1]) < 5 / (N / 2) ** 0.5
    assert abs(draws["adds"].double().mean() - 0.5) < 2.5 / N**0.5


@each("mix", MIXES)
def test_choices_of_rows_and_of_rounds_are_not_tied_to_one_another(mix: str) -> None:
    draws = escape(mix=mix).draw(N, PICTURES, generator(4))
    names = ["level", "sign", "operation", "share" if mix == "blend" else "a"]
    columns = [draws[name][:, 0] for name in names] + [draws["level"][:, 1], draws["picture"]]
    columns += [draws["corner"][:, 0], draws["corner"][:, 1], draws["active"].sum(1), draws["level"][:, 0].roll(1)]
    found = np.corrcoef(np.stack([column.double().numpy() for column in columns]))
    assert np.abs(found - np.eye(len(columns))).max() < 5 / N**0.5


# Parts of a batch.


@each("mix", MIXES)
@each("shares", SHARES)
def test_choices_depend_on_the_generator_alone_and_the_input_stays(shares: str, mix: str) -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    mixing, given, of = escape(mix=mix, shares=shares), images(20), pictures()
    before = given.clone(), of.clone()
    draws, again, other = (mixing.draw(20, PICTURES, generator(s)) for s in (3, 3, 4))
    assert all(len(values) == 20 for values in draws.values())
    assert all(torch.equal(values, again[name]) for name, values in draws.items())
    assert not torch.equal(draws["level"], other["level"])
    kept = {name: values.clone() for name, values in draws.items()}
    found = mixing.apply(given, of, draws)
    assert torch.equal(found, mixing.apply(given, of, again))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(given, before[0])
    assert torch.equal(of, before[1])
    assert all(torch.equal(values, kept[name]) for name, values in draws.items())


@each("mix", MIXES)
def test_a_batch_is_its_images_one_at_a_time(mix: str) -> None:
    mixing, given, of = escape(mix=mix, severity=9.0), images(60), pictures()
    draws = mixing.draw(60, PICTURES, generator(3))
    found = mixing.apply(given, of, draws)
    alone = torch.cat([mixing.apply(given[row : row + 1], of, row_of(draws, row)) for row in range(60)])
    assert_same(alone, found)


@each("mix", MIXES)
@each("world", [2, 4, 8])
def test_devices_make_every_so_manieth_image_of_the_whole_batch(world: int, mix: str) -> None:
    mixing, given, of = escape(mix=mix), images(48), pictures()
    draws = mixing.draw(48, PICTURES, generator(3))
    whole = mixing.apply(given, of, draws)
    for rank in range(world):
        part = mixing.apply(given[rank::world], of, share(draws, rank, world))
        assert_same(part, whole[rank::world])


def test_a_mixing_must_say_how_it_draws_and_applies() -> None:
    for call in (lambda m: m.draw(1, 1, generator()), lambda m: m.apply(images(1), pictures(), {})):
        with pytest.raises(NotImplementedError, match="Mixing must define"):
            call(Mixing())
    assert isinstance(escape(), Mixing)

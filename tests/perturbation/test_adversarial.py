"""Images moved against their outlier score: steps and scores against loops, what is left alone, and several devices."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from scipy.stats import kstest
from torch import Tensor, nn

from ood_lab.network import Network
from ood_lab.perturbation.adversarial import Adversarial, outlier_score, sign_steps
from ood_lab.perturbation.base import Beside, OutlierImages
from ood_lab.types import BackboneOutput
from tests.cases import each

C = 4
OBJECTIVES = ["energy", "softmax", "outlier_exposure"]
STATISTICS = ["batch", "running"]
SHAPE = (3, 4, 4)
PIXELS = math.prod(SHAPE)
EPSILON = 0.25

Gradient = Callable[[list[float]], list[float]]


def images(rows: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(rows, *SHAPE, generator=draw, dtype=torch.float64).to(dtype)


OUTLIERS, ID = images(), images(rows=4, seed=1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def adversarial(**options: Any) -> Adversarial:
    """By default one step of length epsilon."""
    plain = {
        "objective": "energy", "epsilon": EPSILON, "steps": 1, "step": 1.0, "decay": 0.0, "random_start": False,
        "statistics": "running", "of": "outliers",
    }  # fmt: skip
    return Adversarial(**{**plain, **options})


def beside(network: Network, own: Tensor = ID, rank: int = 0, world: int = 1, outputs: int = C) -> Beside:
    return Beside(own, torch.arange(len(own)) % C, C, outputs, network, rank, world)


def network_of(net: nn.Module) -> Network:
    def forward(given: Tensor) -> BackboneOutput:
        return BackboneOutput(given, net(given))

    return Network(net, forward)


def linear(outputs: int = C) -> nn.Sequential:
    """f = W x + b."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, outputs)).double()
    for number, values in enumerate(net.parameters()):
        values.data = 0.4 * torch.randn(values.shape, generator=generator(2 + number), dtype=torch.float64)
    return net


def curved() -> nn.Sequential:
    """Without batch statistics; its gradient changes sign within epsilon."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 6), nn.Tanh(), nn.Linear(6, C)).double()
    for number, values in enumerate(net.parameters()):
        scale = 2.0 if number == 2 else 0.5
        values.data = scale * torch.randn(values.shape, generator=generator(7 + number), dtype=torch.float64)
    return net


def convolutional(dropout: float = 0.0) -> nn.Sequential:
    """With running statistics that are not those of its inputs."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(dropout), nn.Flatten(), nn.Linear(64, C)
    ).double()
    net(3 * images(seed=9) + 1)
    return net.train()


def unmoved() -> Network:
    """Outputs with a gradient of zero."""
    return Network(nn.Identity(), lambda x: BackboneOutput(x, 0 * x.flatten(1)[:, :C]))


# Scores and steps in loops.


def naive_score(logits: list[float], objective: str) -> float:
    total = math.log(sum(math.exp(f) for f in logits))
    if objective == "energy":
        return -total
    if objective == "softmax":
        return -math.log(max(math.exp(f) / sum(math.exp(g) for g in logits) for f in logits))
    return -(total - sum(logits) / len(logits))


def by_hand(net: nn.Sequential, objective: str, image: list[float]) -> list[float]:
    """dS/dx of f = W x + b of one image, of its first C outputs."""
    weight, bias = (values.tolist()[:C] for values in net[1].parameters())
    logits = [sum(w * x for w, x in zip(row, image, strict=True)) + b for row, b in zip(weight, bias, strict=True)]
    total = sum(math.exp(f) for f in logits)
    share = [math.exp(f) / total for f in logits]
    if objective == "energy":
        of_logits = [-p for p in share]
    elif objective == "softmax":
        of_logits = [p - (c == logits.index(max(logits))) for c, p in enumerate(share)]
    else:
        of_logits = [1 / C - p for p in share]
    return [sum(d * row[i] for d, row in zip(of_logits, weight, strict=True)) for i in range(PIXELS)]


def sign(value: float) -> int:
    return (value > 0) - (value < 0)


def stepped(
    image: Tensor, gradient: Gradient, *, steps: int, step: float, decay: float = 0.0, start: Tensor | None = None
) -> Tensor:
    """One image's steps, value by value."""
    origin = image.flatten().tolist()
    x = origin if start is None else (image + start).flatten().tolist()
    g = [0.0] * len(x)
    for _ in range(steps):
        found = gradient(x)
        if decay:
            norm = sum(abs(value) for value in found)
            g = [decay * a + b / norm for a, b in zip(g, found, strict=True)]
        else:
            g = found
        x = [value - step * EPSILON * sign(slope) for value, slope in zip(x, g, strict=True)]
        x = [min(max(value, o - EPSILON), o + EPSILON) for value, o in zip(x, origin, strict=True)]
    return torch.tensor(x, dtype=torch.float64).view(image.shape)


def slope_in(net: nn.Module, objective: str) -> Gradient:
    """Of one image alone, by backpropagation."""

    def gradient(image: list[float]) -> list[float]:
        x = torch.tensor(image, dtype=torch.float64, requires_grad=True)
        logits = net(x.view(1, *SHAPE))[0]
        chosen = {
            "energy": lambda f: -f.exp().sum().log(),
            "softmax": lambda f: -(f.exp() / f.exp().sum()).max().log(),
            "outlier_exposure": lambda f: f.mean() - f.exp().sum().log(),
        }
        (found,) = torch.autograd.grad(chosen[objective](logits), x)
        return found.tolist()

    return gradient


@each("objective", OBJECTIVES)
def test_the_score_matches_the_loop(objective: Any) -> None:
    logits = 3 * torch.randn(20, 6, generator=generator(), dtype=torch.float64)
    expected = [naive_score(row, objective) for row in logits.tolist()]
    torch.testing.assert_close(
        outlier_score(logits, objective), torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=0
    )
    assert outlier_score(1000 * logits, objective).isfinite().all()


@each("outputs", [C, C + 1])
@each("objective", OBJECTIVES)
def test_one_step_is_epsilon_along_the_sign_of_the_gradient_by_hand(objective: str, outputs: int) -> None:
    """Of a linear network; an output for the absent class does not count."""
    net = linear(outputs)
    found = adversarial(objective=objective)(OUTLIERS, beside(network_of(net), outputs=outputs), generator()).images
    rows = [by_hand(net, objective, x) for x in OUTLIERS.flatten(1).tolist()]
    slopes = torch.tensor(rows, dtype=torch.float64)
    assert slopes.abs().min() > 1e-9
    torch.testing.assert_close(found, OUTLIERS - EPSILON * slopes.sign().view(OUTLIERS.shape), atol=1e-12, rtol=0)


def test_where_there_is_no_gradient_nothing_changes_and_elsewhere_by_epsilon() -> None:
    net = linear()
    net[1].weight.data[:, ::3] = 0
    changed = adversarial()(OUTLIERS, beside(network_of(net)), generator()).images - OUTLIERS
    expected = torch.full((len(OUTLIERS), PIXELS), EPSILON).double()
    expected[:, ::3] = 0
    torch.testing.assert_close(changed.abs().flatten(1), expected, atol=1e-15, rtol=0)


@each("objective", OBJECTIVES)
@each("statistics", STATISTICS)
def test_one_step_follows_finite_differences(statistics: str, objective: str) -> None:
    """Of the sum of all scores: with batch statistics an image changes the others' scores, too."""
    net, given, h = convolutional(), images(rows=3), 1e-6
    found = adversarial(objective=objective, statistics=statistics)(given, beside(network_of(net)), generator()).images
    net.train(statistics == "batch")

    def score(flat: Tensor) -> float:
        return sum(naive_score(row, objective) for row in net(flat.view(given.shape)).tolist())

    slopes = torch.zeros(given.numel()).double()
    for i in range(given.numel()):
        up, down = given.flatten().clone(), given.flatten().clone()
        up[i], down[i] = up[i] + h, down[i] - h
        slopes[i] = (score(up) - score(down)) / (2 * h)
    clear = slopes.abs() > 1e-5
    assert clear.double().mean() > 0.95
    changed = (found - given).flatten()
    torch.testing.assert_close(changed[clear], -EPSILON * slopes.sign()[clear], atol=1e-12, rtol=0)


ATTACKS: list[dict[str, Any]] = [
    {"steps": 1, "step": 0.5},
    {"steps": 1, "step": 2.5},
    {"steps": 7, "step": 0.3},
    {"steps": 4, "step": 1.0},
    {"steps": 7, "step": 0.3, "decay": 1.0},
    {"steps": 6, "step": 0.4, "decay": 0.6},
    {"steps": 12, "step": 0.05, "decay": 1.0},
]


def start_of(given: Tensor, seed: int) -> Tensor:
    """What is added to images before the first step: what a network without a gradient leaves."""
    found = adversarial(random_start=True, steps=3)(given, beside(unmoved()), generator(seed)).images
    return found - given


@each("objective", OBJECTIVES)
@each("random_start", [False, True])
@each("attack", ATTACKS)
def test_several_steps_match_the_loop_of_each_image(attack: dict[str, Any], random_start: bool, objective: str) -> None:
    net = curved()
    perturbation = adversarial(objective=objective, random_start=random_start, **attack)
    found = perturbation(OUTLIERS, beside(network_of(net)), generator(3)).images
    starts = start_of(OUTLIERS, 3) if random_start else [None] * len(OUTLIERS)
    gradient = slope_in(net, objective)
    expected = [stepped(x, gradient, start=start, **attack) for x, start in zip(OUTLIERS, starts, strict=True)]
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-9, rtol=0)
    assert (found - OUTLIERS).abs().max() <= EPSILON + 1e-12


def test_the_kinds_of_attack_differ() -> None:
    """So that the loops above tell them apart."""
    place = beside(network_of(curved()))
    attacks = [ATTACKS[2], ATTACKS[4], {**ATTACKS[2], "decay": 0.3}, {**ATTACKS[2], "random_start": True}, {"steps": 1}]
    made = [adversarial(**attack)(OUTLIERS, place, generator()).images for attack in attacks]
    for i, one in enumerate(made):
        for other in made[:i]:
            assert (one - other).abs().max() > 0.1 * EPSILON


@each("dtype", [torch.float32, torch.float64])
def test_a_random_start_is_uniform_within_epsilon_and_another_for_every_value(dtype: torch.dtype) -> None:
    given = images(rows=100, dtype=dtype)
    start = start_of(given, 0).double()
    assert start.abs().max() <= EPSILON + 1e-6
    assert kstest((start / EPSILON).flatten().numpy(), "uniform", (-1, 2)).pvalue > 1e-3
    assert len(start.unique()) > 0.95 * start.numel()
    assert (start_of(given, 1).double() - start).abs().max() > EPSILON


def test_a_step_from_a_random_start_stays_within_epsilon() -> None:
    found = adversarial(random_start=True)(OUTLIERS, beside(network_of(linear())), generator()).images
    assert EPSILON / 2 < (found - OUTLIERS).abs().max() <= EPSILON + 1e-12


@each("attack", [{}, *ATTACKS])
def test_without_a_gradient_images_stay(attack: dict[str, Any]) -> None:
    found = adversarial(**attack)(OUTLIERS, beside(unmoved()), generator()).images
    torch.testing.assert_close(found, OUTLIERS, atol=1e-15, rtol=0)


def test_an_image_without_a_gradient_on_its_way_goes_on_along_the_accumulated_one() -> None:
    slopes = iter([images(seed=2), torch.zeros_like(OUTLIERS), torch.zeros_like(OUTLIERS)])
    found = sign_steps(OUTLIERS, lambda _: next(slopes), epsilon=1.0, steps=3, step=0.25, decay=0.5)
    torch.testing.assert_close(found, OUTLIERS - 0.75 * images(seed=2).sign(), atol=1e-12, rtol=0)


# Which images.


@each("objective", OBJECTIVES)
@each("of", ["outliers", "id", "both"])
@each("attack", [{}, ATTACKS[1], ATTACKS[2], ATTACKS[4]])
def test_id_images_move_the_other_way(attack: dict[str, Any], of: str, objective: str) -> None:
    net = curved()
    found = adversarial(of=of, objective=objective, **attack)(OUTLIERS, beside(network_of(net)), generator())
    gradient, steps = slope_in(net, objective), {"steps": 1, "step": 1.0, **attack}
    assert found.targets is None
    if of == "id":
        assert torch.equal(found.images, OUTLIERS)
    else:
        lowered = [stepped(x, gradient, **steps) for x in OUTLIERS]
        torch.testing.assert_close(found.images, torch.stack(lowered), atol=1e-9, rtol=0)
    if of == "outliers":
        assert found.id_images is None
        return
    assert found.id_images is not None
    raised = [stepped(x, gradient, **{**steps, "step": -steps["step"]}) for x in ID]
    torch.testing.assert_close(found.id_images, torch.stack(raised), atol=1e-9, rtol=0)


def test_id_images_have_another_random_start_than_outliers() -> None:
    place = beside(unmoved(), own=OUTLIERS)
    found = adversarial(of="both", random_start=True)(OUTLIERS, place, generator())
    assert found.id_images is not None
    assert (found.id_images - OUTLIERS).abs().max() > EPSILON / 2
    assert (found.id_images - found.images).abs().max() > EPSILON / 2


@each("of", ["outliers", "id", "both"])
@each("random_start", [False, True])
def test_without_epsilon_images_come_back_as_they_were_without_a_pass(random_start: bool, of: str) -> None:
    def unused(*_: Any) -> Any:
        raise AssertionError("nothing is to be changed")

    perturbation = adversarial(epsilon=0.0, of=of, random_start=random_start, steps=3)
    found = perturbation(OUTLIERS, beside(Network(nn.Identity(), unused)), generator())
    assert torch.equal(found.images, OUTLIERS)
    assert found.id_images is None


def scores(net: nn.Module, given: Tensor, objective: str) -> Tensor:
    with torch.no_grad():
        return torch.tensor([naive_score(row, objective) for row in net(given).tolist()], dtype=torch.float64)


@each("objective", OBJECTIVES)
@each("attack", [{}, {"steps": 5, "step": 0.4}, {"steps": 5, "step": 0.4, "decay": 1.0}])
def test_outliers_get_a_lower_score_and_id_images_a_higher_one(attack: dict[str, Any], objective: str) -> None:
    net, others, own = convolutional().eval(), images(rows=60), images(rows=50, seed=1)
    perturbation = adversarial(objective=objective, epsilon=0.01, of="both", **attack)
    found = perturbation(others, beside(network_of(net), own), generator())
    assert found.id_images is not None
    lowered = scores(net, found.images, objective) < scores(net, others, objective) - 1e-6
    raised = scores(net, found.id_images, objective) > scores(net, own, objective) + 1e-6
    assert lowered.double().mean() > 0.97
    assert raised.double().mean() > 0.97


# What is left alone, and whose statistics count.


@contextmanager
def no_trace(net: nn.Module) -> Iterator[None]:
    """What is in the block leaves the network and the global generator as they were."""

    def seen() -> list[Any]:
        return [
            [module.training for module in net.modules()],
            [id(buffer) for buffer in net.buffers()],
            [(parameter.requires_grad, parameter.grad) for parameter in net.parameters()],
            torch.is_grad_enabled(),
        ]

    before, state, stream = seen(), copy.deepcopy(net.state_dict()), torch.get_rng_state()
    yield
    assert seen() == before
    assert torch.equal(torch.get_rng_state(), stream)
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[name]), name


def some_in_training(net: nn.Module) -> None:
    net.train()
    net[1].eval()  # type: ignore[index]


STARTS = {"training": nn.Module.train, "evaluation": nn.Module.eval, "mixed": some_in_training}


@each("mode", STARTS)
@each("statistics", STATISTICS)
@each("attack", [{}, {"steps": 3, "step": 0.5, "decay": 1.0, "random_start": True}])
def test_the_network_the_global_stream_and_the_given_images_are_left_alone(
    attack: dict[str, Any], statistics: str, mode: str
) -> None:
    net, others, own = convolutional(dropout=0.5), OUTLIERS.clone(), ID.clone()
    STARTS[mode](net)
    with no_trace(net):
        found = adversarial(statistics=statistics, of="both", **attack)(
            others, beside(network_of(net), own), generator()
        )
    assert found.id_images is not None
    for made, given, kept in ((found.images, others, OUTLIERS), (found.id_images, own, ID)):
        assert not made.requires_grad
        assert not given.requires_grad
        assert given.grad is None
        assert torch.equal(given, kept)
        assert (made.shape, made.dtype) == (given.shape, given.dtype)
        made.zero_()
        assert torch.equal(given, kept)


@each("training", [True, False])
@each("statistics", STATISTICS)
@each("steps", [1, 3])
def test_the_gradient_is_that_of_a_copy_in_training_or_evaluation_mode(
    steps: int, statistics: str, training: bool
) -> None:
    """With dropout as the global stream would have it next, alike in every step."""
    net = convolutional(dropout=0.5).train(training)
    torch.manual_seed(11)
    perturbation = adversarial(statistics=statistics, steps=steps, step=1 / steps)
    found = perturbation(OUTLIERS, beside(network_of(net)), generator()).images
    expected = OUTLIERS
    for _ in range(steps):
        torch.manual_seed(11)
        x = expected.clone().requires_grad_()
        copied = copy.deepcopy(net).train(statistics == "batch")
        (-copied(x).exp().sum(1).log()).sum().backward()
        assert x.grad is not None
        expected = (expected - EPSILON / steps * x.grad.sign()).clamp(OUTLIERS - EPSILON, OUTLIERS + EPSILON)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_batch_statistics_dropout_and_running_statistics_make_different_images() -> None:
    """So that the copies above tell them apart."""
    made = []
    for statistics, dropout, seed in (("batch", 0.0, 0), ("batch", 0.5, 0), ("batch", 0.5, 1), ("running", 0.5, 0)):
        net = convolutional(dropout)
        torch.manual_seed(seed)
        made.append(adversarial(statistics=statistics)(OUTLIERS, beside(network_of(net)), generator()).images)
    for i, one in enumerate(made):
        for other in made[:i]:
            assert (one != other).double().mean() > 0.02


# Random streams and devices.


def both(found: OutlierImages) -> tuple[Tensor, Tensor]:
    assert found.id_images is not None
    return found.images, found.id_images


@each("attack", [{}, {"random_start": True}, {"steps": 4, "step": 0.4, "random_start": True, "decay": 1.0}])
@each("world", [2, 4])
def test_devices_that_hold_every_so_many_images_make_together_what_one_makes(
    world: int, attack: dict[str, Any]
) -> None:
    perturbation, network = adversarial(of="both", **attack), network_of(convolutional())
    others, own = images(rows=8), images(rows=12, seed=1)
    whole = both(perturbation(others, beside(network, own), generator(5)))
    for rank in range(world):
        place = beside(network, own[rank::world], rank, world)
        found = both(perturbation(others[rank::world], place, generator(5)))
        for part, all_of_them in zip(found, whole, strict=True):
            torch.testing.assert_close(part, all_of_them[rank::world], atol=1e-12, rtol=0)


def test_it_is_a_function_of_the_generator() -> None:
    place = beside(network_of(curved()))
    perturbation = adversarial(random_start=True, steps=2, step=0.5)
    torch.manual_seed(3)
    first = perturbation(OUTLIERS, place, generator(0)).images
    torch.manual_seed(4)
    again, other = (perturbation(OUTLIERS, place, generator(seed)).images for seed in (0, 1))
    assert torch.equal(again, first)
    assert (other - first).abs().max() > 0.1 * EPSILON


def test_terms_may_read_no_soft_labels() -> None:
    assert Adversarial.gives == ()

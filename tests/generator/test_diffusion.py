"""The diffusion model: what a step of its training does, against float64; its average, file, guidance and resume."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from ood_lab.diffusion.network import load_denoiser
from ood_lab.diffusion.sampling import sample, starting_noise
from ood_lab.errors import RunError
from ood_lab.generator.diffusion import Diffusion
from ood_lab.random import generator
from ood_lab.types import Batch
from tests.cases import each
from tests.decoder.test_tiny import stored

NAMES, WIDTH, SIDE = ("cat", "dog", "bird"), 12, 8
OPTIONS: dict[str, Any] = {
    "epochs": 1, "images_per_step": 6, "side": SIDE, "widths": [8, 16], "blocks": 1, "attention": [], "groups": 4,
    "unconditional": 0.4, "lr": 1e-3, "warmup": 3, "weight_decay": 0.01, "decay": 0.35, "seed": 0,
}  # fmt: skip


class Killed(BaseException):
    """What ends a process at once."""


class Loader:
    """A few batches, always the same; a checkpoint knows how many were taken, as with the program's own loader."""

    def __init__(self, batches: int = 1, rows: int = 6, side: int = SIDE) -> None:
        draw = torch.Generator().manual_seed(0)
        self.batches = [
            Batch(torch.rand(rows, 3, side, side, generator=draw) * 2 - 1, torch.randint(3, (rows,), generator=draw))
            for _ in range(batches)
        ]
        self.place = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Any:
        start, self.place = self.place, 0
        for number in range(start, len(self.batches)):
            self.place = (number + 1) % len(self.batches)
            yield self.batches[number]

    def state_dict(self) -> dict[str, int]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.place = state["place"]


class Record(L.Callback):
    """What the network is given, and its weights after each step."""

    def __init__(self, module: Diffusion) -> None:
        self.inputs: list[list[Tensor]] = []
        self.weights: list[dict[str, Tensor]] = []
        module.network.register_forward_pre_hook(lambda _, given: self.inputs.append([x.clone() for x in given]))

    def on_train_batch_end(self, trainer: Any, module: Any, *rest: Any) -> None:
        self.weights.append(copy.deepcopy(module.network.state_dict()))


def anchors() -> np.ndarray:
    return 0.03 * np.random.default_rng(0).normal(size=(3, WIDTH)).astype(np.float32) + np.float32(0.01)


def model(folder: Path, **changes: Any) -> Diffusion:
    if not (folder / "a").exists():
        stored(folder / "a", {"words": list(NAMES)}, anchors=anchors())
    return Diffusion(NAMES, **{**OPTIONS, "needs": {"anchors": folder / "a"}, **changes})


def trained(module: Diffusion, loader: Loader) -> Record:
    record = Record(module)
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, deterministic=True, callbacks=[record],
    )  # fmt: skip
    trainer.fit(module, loader)
    assert trainer.global_step == len(loader)
    return record


def schedule() -> Tensor:
    """The share of the image's variance at each of 1000 steps, in float64."""
    share = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(1001)]
    found = [1.0]
    for t in range(1000):
        found.append(found[-1] * (1 - min(1 - share[t + 1] / share[t], 0.999)))
    return torch.tensor(found[1:], dtype=torch.float64)


def expected_inputs(module: Diffusion, batch: Batch, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noisy images, steps, conditions and noise of a step of the first epoch, one image at a time in float64."""
    draw = generator(module.seed, "noise", 0, number)
    eps = torch.randn(batch.images.shape, generator=draw).double()
    steps = torch.randint(1000, (len(eps),), generator=draw)
    dropped = torch.rand(len(eps), 1, generator=draw)[:, 0] < module.unconditional
    a, gamma = schedule(), torch.from_numpy(anchors()).double()
    noisy, conditions = [], []
    for b, t in enumerate(steps.tolist()):
        noisy.append(a[t].sqrt() * batch.images[b].double() + (1 - a[t]).sqrt() * eps[b])
        conditions.append(torch.zeros(WIDTH).double() if dropped[b] else gamma[batch.labels[b]])
    return torch.stack(noisy), steps, torch.stack(conditions), eps


def test_the_loss_of_a_step_is_that_of_a_loop_in_float64(tmp_path: Path) -> None:
    module, loader = model(tmp_path), Loader()
    network = copy.deepcopy(module.network).double()
    noisy, steps, conditions, eps = expected_inputs(module, loader.batches[0], 0)
    losses = [
        (network(noisy[b : b + 1], steps[b : b + 1], conditions[b : b + 1])[0] - eps[b]).square().mean().item()
        for b in range(len(eps))
    ]
    record = trained(module, loader)
    given = record.inputs[0]
    torch.testing.assert_close(given[0].double(), noisy, atol=1e-5, rtol=0)
    assert torch.equal(given[1], steps)
    torch.testing.assert_close(given[2].double(), conditions, atol=1e-8, rtol=0)
    assert 0 < (conditions == 0).all(dim=1).sum() < len(eps), "some conditions are dropped, some are not"
    assert module.epoch_summary()["noise_mean"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_weights_move_by_adamw_with_warm_up_on_clipped_gradients(tmp_path: Path) -> None:
    module, loader = model(tmp_path), Loader(5)
    network = copy.deepcopy(module.network)
    parameters = list(network.parameters())
    optimizer = torch.optim.AdamW(parameters, 1.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    record = trained(module, loader)
    for n, batch in enumerate(loader.batches):
        noisy, steps, conditions, eps = expected_inputs(module, batch, n)
        optimizer.zero_grad()
        (network(noisy.float(), steps, conditions.float()) - eps.float()).square().mean().backward()
        norm = sum(p.grad.square().sum() for p in parameters if p.grad is not None) ** 0.5
        for p in parameters:
            if p.grad is not None:
                p.grad *= min(1.0, 1 / float(norm))
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 / 3, 2 / 3, 1, 1, 1)[n]
        optimizer.step()
        for mine, theirs in zip(parameters, module.network.parameters(), strict=True):
            assert mine.shape == theirs.shape
        moved = torch.cat([value.flatten() for _, value in network.named_parameters()])
        got = torch.cat([record.weights[n][name].flatten() for name, _ in network.named_parameters()])
        # A gradient near zero may point the other way in other arithmetic, so single weights may differ by a step.
        assert (moved - got).abs().mean() < 2e-6 * (n + 1)
        assert (moved - got).abs().median() < 1e-6 * (n + 1)


@each("decay", [0.35, 0.2, 0.99])
def test_the_average_is_one_kept_by_hand(decay: float, tmp_path: Path) -> None:
    module = model(tmp_path, decay=decay)
    average = {name: value.double().clone() for name, value in module.network.state_dict().items()}
    record = trained(module, Loader(7))
    for n, weights in enumerate(record.weights, start=1):
        d = min(decay, (1 + n) / (10 + n))
        average = {name: d * old + (1 - d) * weights[name].double() for name, old in average.items()}
    found = module.averaged.state_dict()
    assert set(found) == set(average)
    for name, value in average.items():
        torch.testing.assert_close(found[name].double(), value, atol=2e-6, rtol=0, msg=name)
    assert not torch.equal(found["condition.weight"], module.network.condition.weight)


def test_conditions_have_unit_variance(tmp_path: Path) -> None:
    module = model(tmp_path)
    values = (anchors().astype(float) * float(module.network.scale)).flatten()
    assert (values**2).mean() == pytest.approx(1, rel=1e-5)
    assert torch.equal(module.averaged.scale, module.network.scale)


@each(("rate", "low", "high"), [(0.0, 0, 0), (1.0, 600, 600), (0.1, 30, 95), (0.5, 240, 360)])
def test_conditions_are_dropped_at_a_rate(rate: float, low: int, high: int, tmp_path: Path) -> None:
    record = trained(model(tmp_path, unconditional=rate), Loader(rows=600))
    dropped = int((record.inputs[0][2] == 0).all(dim=1).sum())
    assert low <= dropped <= high


@each("side", [16, 12, 4])
def test_images_of_another_side_are_resized_with_antialiasing(side: int, tmp_path: Path) -> None:
    """Against a triangle as wide as a new pixel, or as an old one where images grow, by rows and then by columns."""
    wide = max(1.0, side / SIDE)
    weights = torch.zeros(SIDE, side, dtype=torch.float64)
    for i in range(SIDE):
        for j in range(side):
            weights[i, j] = max(0.0, 1 - abs((j + 0.5) - (i + 0.5) * side / SIDE) / wide)
        weights[i] /= weights[i].sum()
    module, loader = model(tmp_path), Loader(side=side)
    batch = loader.batches[0]
    resized = weights @ batch.images.double() @ weights.T
    noisy, _, _, _ = expected_inputs(module, Batch(resized, batch.labels), 0)
    torch.testing.assert_close(trained(module, loader).inputs[0][0].double(), noisy, atol=1e-5, rtol=0)


def test_what_is_stored_is_read_bit_for_bit(tmp_path: Path) -> None:
    module = model(tmp_path)
    trained(module, Loader(2))
    file = tmp_path / "g.safetensors"
    file.write_bytes(save(dict(module.averaged.state_dict()), {"classes": json.dumps(NAMES), **module.about}))
    network, about = load_denoiser(file)
    assert json.loads(about["classes"]) == list(NAMES)
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert torch.equal(network.scale, module.network.scale)
    given = torch.randn(2, 3, SIDE, SIDE), torch.tensor([3, 900]), torch.from_numpy(anchors()[:2])
    assert torch.equal(network(*given), module.averaged(*given))


@each("names", [("cat", "dog"), ("cat", "dog", "bird", "emu")])
def test_anchors_of_other_classes_are_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    model(tmp_path)
    with pytest.raises(RunError, match=f"holds 3 anchors; expected one for each of {len(names)} classes"):
        Diffusion(names, **OPTIONS, needs={"anchors": tmp_path / "a"})


def test_the_global_generator_is_left_alone_and_the_seed_decides(tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first, again = model(tmp_path), model(tmp_path)
    assert torch.equal(torch.rand(2), expected)
    weights = [m.network.condition.weight for m in (first, again, model(tmp_path, seed=1))]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


class Stub(nn.Module):
    """A function of all that a network is given, which keeps what that was."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []

    @staticmethod
    def noise(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return 0.4 * x.sin() + t.view(-1, 1, 1, 1) / 4000 + 0.2 * condition[:, :3, None, None]

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        self.calls.append((x, t, condition))
        return self.noise(x, t, condition)


@each("guidance", [0.0, 1.0, 2.0, 7.5])
def test_guidance_moves_from_no_condition_towards_it(guidance: float) -> None:
    b, stub, a = 2, Stub(), schedule()
    condition, x = torch.randn(b, WIDTH, generator=generator(1)), starting_noise(0, 0, b, (3, SIDE, SIDE)).double()
    found = sample(stub, condition, x.float(), steps=4, guidance=guidance)  # type: ignore[arg-type]
    assert len(stub.calls) == 4
    for t, (given, moments, conditions) in zip((999, 749, 499, 249), stub.calls, strict=True):
        assert (moments == t).all()
        if guidance == 1:
            assert torch.equal(conditions, condition)
        else:
            assert torch.equal(conditions, torch.cat([torch.zeros(b, WIDTH), condition]))
        for part in given.split(b):
            torch.testing.assert_close(part.double(), x, atol=2e-3, rtol=1e-3)
        moment = torch.full((b,), t)
        none, full = stub.noise(x, moment, torch.zeros(b, WIDTH)), stub.noise(x, moment, condition.double())
        e = none + guidance * (full - none)
        x0 = ((x - (1 - a[t]).sqrt() * e) / a[t].sqrt()).clamp(-1, 1)
        before = a[t - 250] if t >= 250 else torch.ones((), dtype=torch.float64)
        x = before.sqrt() * x0 + (1 - before).sqrt() * e
    expected = ((x.clamp(-1, 1) + 1) * 127.5).round()
    assert found.dtype == torch.uint8
    assert (found.double() - expected).abs().max() <= 1
    assert len(found.unique()) > 10


def test_noise_of_an_image_is_that_of_its_number() -> None:
    whole = starting_noise(4, 0, 6, (3, 2, 2))
    assert torch.equal(torch.cat([starting_noise(4, 0, 2, (3, 2, 2)), starting_noise(4, 2, 6, (3, 2, 2))]), whole)
    assert len(whole.flatten(1).unique(dim=0)) == 6
    assert not torch.equal(starting_noise(5, 0, 6, (3, 2, 2)), whole)


class Dies(L.Callback):
    """Ends the training after so many steps; a checkpoint was written some steps before."""

    def __init__(self, file: Path, kept: int, last: int) -> None:
        self.file, self.kept, self.last = file, kept, last

    def on_train_batch_start(self, trainer: L.Trainer, *rest: Any) -> None:
        if trainer.global_step == self.last:
            raise Killed

    def on_train_batch_end(self, trainer: L.Trainer, *rest: Any) -> None:
        if trainer.global_step == self.kept:
            trainer.save_checkpoint(self.file)


def test_killed_within_an_epoch_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    def fit(module: Diffusion, *callbacks: L.Callback, resumed: Path | None = None) -> L.Trainer:
        trainer = L.Trainer(
            max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, deterministic=True, callbacks=list(callbacks),
        )  # fmt: skip
        trainer.fit(module, Loader(5), ckpt_path=resumed)
        return trainer

    undisturbed, killed, again = model(tmp_path), model(tmp_path), model(tmp_path, seed=0)
    before, after, file = Record(undisturbed), Record(again), tmp_path / "step7.ckpt"
    fit(undisturbed, before)
    with pytest.raises(Killed):
        fit(killed, Dies(file, 7, 9))
    trainer = fit(again, after, resumed=file)
    assert trainer.global_step == 10
    assert [len(before.weights), len(after.weights)] == [10, 3], "it goes on within the epoch"
    for mine, theirs in zip(after.inputs, before.inputs[7:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert not torch.equal(killed.averaged.condition.weight, again.averaged.condition.weight)
    for name, value in undisturbed.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert again.epoch_summary() == undisturbed.epoch_summary()

"""BigGAN: what a step of its training does, exact resume, and the chain generator, images, classifier."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import lightning as L
import pytest
import torch

import ood_lab
from ood_lab.config import RequestError, prepare
from ood_lab.config.quoting import as_typed
from ood_lab.generator.base import move_average
from ood_lab.generator.biggan import BigGAN
from ood_lab.random import generator
from ood_lab.reader.shards import load_manifest
from ood_lab.types import Batch
from tests.cases import each

OPTIONS = {
    "epochs": 2, "images_per_step": 8, "width": 8, "noise": 4, "discriminator_steps": 2, "lr": 1e-3,
    "betas": [0.0, 0.999], "decay": 0.9, "decay_from": 1, "seed": 0,
}  # fmt: skip
SMALL = ["generator.epochs=2", "generator.width=4", "generator.images_per_step=64", "trainer.threads=1"]
TRAINING = ["task=train_generator", "generator=biggan_small", *SMALL, "trainer.checkpoint_minutes=0.0001"]
GENERATOR = f"[task=train_generator,generator=biggan_small,{','.join(SMALL)}]"
SET = "producer.count=96,producer.batch=32,producer.shard_items=32"
IMAGES = f"[task=synthesize,producer=biggan,{SET},producer.needs.generator={GENERATOR}]"
CHAIN = [
    "method=oe", "init=random", "backbone.width=4", "auxiliary=biggan", f"auxiliary.needs.images={IMAGES}",
    "trainer.max_epochs=1", "trainer.threads=1", "scorer=[msp]", "figure=[]", "protocol.far=[gaussian_noise]",
    "protocol.near=[]",
]  # fmt: skip


class Once:
    """A loader of one batch."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Batch]:
        draw = torch.Generator().manual_seed(0)
        yield Batch(torch.rand(8, 3, 32, 32, generator=draw) * 2 - 1, torch.arange(8) % 3)


def trained(module: BigGAN, epochs: int = 1) -> BigGAN:
    trainer = L.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, deterministic=True,
    )  # fmt: skip
    trainer.fit(module, Once())
    assert trainer.global_step == epochs, "steps of the discriminator are no steps of the run"
    return module


def test_a_step_is_two_of_the_discriminator_and_one_of_the_generator_by_hand() -> None:
    """Against plain loops with optimizers of our own, on the same noise."""
    module = BigGAN("abc", **OPTIONS)
    ours, theirs = copy.deepcopy(module.generator), copy.deepcopy(module.discriminator)
    first = torch.optim.Adam(ours.parameters(), 1e-3, (0.0, 0.999), eps=1e-8)
    second = torch.optim.Adam(theirs.parameters(), 1e-3, (0.0, 0.999), eps=1e-8)
    batch = next(iter(Once()))
    draw = generator(0, "noise", 0, 0)

    def made() -> tuple[torch.Tensor, torch.Tensor]:
        noise = torch.randn(4, 4, generator=draw)
        asked = torch.randint(3, (4,), generator=draw)
        return ours(noise, asked), asked

    for part in (slice(0, 4), slice(4, 8)):
        fake, asked = made()
        scores = theirs(torch.cat([batch.images[part], fake.detach()]), torch.cat([batch.labels[part], asked]))
        loss = sum(max(0.0, 1 - s) for s in scores[:4]) / 4 + sum(max(0.0, 1 + s) for s in scores[4:]) / 4
        second.zero_grad()
        loss.backward()
        second.step()
    fake, asked = made()
    first.zero_grad()
    (-theirs(fake, asked).mean()).backward()
    first.step()
    trained(module)
    for got, expected in ((module.generator, ours), (module.discriminator, theirs)):
        for name, value in expected.state_dict().items():
            torch.testing.assert_close(got.state_dict()[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_the_average_is_a_copy_first_and_moves_then() -> None:
    module = trained(BigGAN("abc", **{**OPTIONS, "decay_from": 1}))
    for name, value in module.generator.state_dict().items():
        assert torch.equal(module.average.state_dict()[name], value), name
    before = copy.deepcopy(module.average.state_dict())
    move_average(module.average, module.generator, 0.9)
    draw = {name: value + 1 for name, value in module.generator.state_dict().items()}
    module.generator.load_state_dict(draw)
    move_average(module.average, module.generator, 0.9)
    for name, value in module.average.state_dict().items():
        moved = before[name] + 0.1 if value.dtype.is_floating_point else before[name] + 1
        torch.testing.assert_close(value, moved, msg=name)


def test_the_global_generator_is_left_alone_and_the_seed_decides() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first, again = BigGAN("abc", **OPTIONS), BigGAN("abc", **OPTIONS)
    assert torch.equal(torch.rand(2), expected)
    other = BigGAN("abc", **{**OPTIONS, "seed": 1})
    weights = [m.generator.linear.weight for m in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_killed_it_ends_with_the_same_network_whose_images_train_a_classifier(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    command = [sys.executable, "-m", "ood_lab", *TRAINING, f"paths.output={killed}"]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    while not list(killed.glob("*/checkpoints/step*")):
        assert process.poll() is None, "the training ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for output in (killed, undisturbed):
        ood_lab.run([*TRAINING, f"paths.output={output}"])
    first, second = (next(iter(o.glob("*/checkpoints/final.safetensors"))) for o in (killed, undisturbed))
    assert first.read_bytes() == second.read_bytes()
    first, second = (next(iter(o.glob("*/curves.jsonl"))).read_text() for o in (killed, undisturbed))
    assert first == second
    assert "epoch/generator" in first
    results = ood_lab.run([*CHAIN, f"paths.output={killed}"])
    shown = capfd.readouterr().out
    assert shown.count("making it first") == 1, "the generator is found"
    assert "images of biggan" in shown
    assert {row["auxiliary"] for row in results.rows} == {"biggan"}
    (images,) = killed.glob("biggan-digits-s0-*/shards")
    assert load_manifest(images).classes == tuple("0123456789")


@each(
    ("overrides", "said"),
    [
        (["task=train_generator"], "task=train_generator: name the generator, generator=NAME. Choose from: biggan"),
        (
            ["generator=biggan"],
            "generator=biggan: nothing that this command does depends on it; add task=train_generator",
        ),
        (["task=train_generator", "generator=biggan", "seed=1"], "a seed of their own, generator.seed=1"),
        (["task=train_generator", "generator=biggan", "method=ce"], "method: generator=biggan does not depend on it"),
        (["task=train_generator", "generator=biggan", "trainer.devices=2"], "a generator is trained on one device"),
        (["task=train_generator", "generator=biggan", "generator.width=0"], "generator.width=0"),
        (["task=synthesize", "producer=biggan", "producer.weights=/nowhere.pth"], "/nowhere.pth: no such file"),
        (
            ["task=synthesize", "producer=biggan", "producer.needs.generator=[task=synthesize,producer=fractals]"],
            "makes no generator; name one with task=train_generator",
        ),
    ],
)
def test_wrong_requests_are_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(RequestError) as refused:
        prepare([as_typed(text) for text in overrides])
    assert said in str(refused.value)

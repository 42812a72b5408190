"""A source of images that learns beside the classifier, within a method: steps, checkpoints, exact resume, runs."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import ood_lab
from ood_lab.config import prepare
from ood_lab.method.base import Method
from ood_lab.network import Network
from ood_lab.optimizer import SGD
from ood_lab.runs.claim import claim
from ood_lab.runs.run_folder import RunFolder
from ood_lab.synthesizer.gan import GAN
from ood_lab.task.build import build_method
from ood_lab.task.train import _train
from ood_lab.training.checkpoint import newest
from ood_lab.training.normalise import Normalise
from ood_lab.types import Batch
from tests.cases import each
from tests.method.test_base import WAITS, NoWaiting
from tests.small import C, at, batch, method, terms
from tests.small_gan import BETAS, LR, MEAN, RUN, SIDE, STD, WIDTH, Z, copied, draws, equal, gan


def classifier(
    source: GAN | None = None, *, views: int = 1, milestones: Sequence[float] = (), **options: Any
) -> Method:
    """CE + 0.1 outlier exposure on the images of a source, which has begun."""
    module = method(
        terms(cider=views == 2, outlier_loss="outlier_exposure", weight=0.1), source or gan(uncertainty=0.7), **options
    )
    module.optimizer_settings = SGD(
        lr=0.1, momentum=0.9, weight_decay=0.1, warmup=0.0, schedule="milestones", milestones=list(milestones)
    )
    return placed(module)


def placed(module: Method, step: int = 0, epoch: int = 0) -> Method:
    at(module, step, epoch, normalise=Normalise(MEAN, STD))
    trainer: Any = module._trainer
    trainer.precision_plugin = SimpleNamespace(forward_context=nullcontext)
    return module


def source_of(module: Method) -> GAN:
    assert isinstance(module.image_source, GAN)
    return module.image_source


def one_step(module: Method, data: Batch, step: int = 0) -> dict[str, Tensor]:
    module.on_train_batch_start(data, step)
    found = module.training_step(data, step)
    found["loss"].backward()
    module.on_after_backward()
    return found


def test_a_run_begins_with_the_mean_and_deviation_of_its_images() -> None:
    module = classifier()
    module.on_train_start()
    source = source_of(module)
    assert source.mean.flatten().tolist() == pytest.approx(MEAN)
    assert source.std.flatten().tolist() == pytest.approx(STD)
    raw = torch.rand(2, 3, 4, 4, generator=draws())
    torch.testing.assert_close(source.normalised(raw), Normalise(MEAN, STD)(raw))


class Watched(GAN):
    """Keeps what it was asked with and what it gave."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.asked: list[dict[str, Any]] = []
        self.gave: list[Tensor] = []

    def learn(self, images_B: Tensor, network: Network, rate: float, draw: torch.Generator) -> Mapping[str, Tensor]:
        self.asked.append({"images": images_B.clone(), "rate": rate, "state": draw.get_state()})
        return super().learn(images_B, network, rate, draw)

    def make(self, count: int, shape: Sequence[int], draw: torch.Generator) -> Tensor:
        self.gave.append(super().make(count, shape, draw))
        return self.gave[-1].clone()


def watched(**options: Any) -> Watched:
    torch.manual_seed(1)
    return Watched(noise=Z, width=WIDTH, side=SIDE, lr=LR, betas=BETAS, **options)


@each("views", [1, 2])
def test_the_classifier_trains_on_as_many_images_of_the_moved_generator(views: int) -> None:
    source, data = watched(), batch()
    module = classifier(source, views=views)
    source.begin(torch.tensor(MEAN), torch.tensor(STD))
    before = [copied(part) for part in (source.generator, source.discriminator)]
    count = len(data.labels) // views
    found = one_step(module, data)
    assert torch.equal(source.asked[0]["images"], data.images[:count]), "of two views the first"
    (made,) = source.gave
    assert len(made) == count
    draw = draws()
    draw.set_state(source.asked[0]["state"])
    torch.randn(count, Z, generator=draw)  # of the step of G and D
    assert torch.equal(GAN.make(source, count, (8, 8), draw), made), "from noise of their own"
    assert not any(map(equal, before, (source.generator.state_dict(), source.discriminator.state_dict())))
    again = classifier(watched(), views=views).train()
    logits = again(torch.cat([data.images, made])).logits.tolist()
    rows = [math.log(sum(math.exp(x) for x in row)) for row in logits]
    n = len(data.labels)
    ce = sum(rows[i] - logits[i][int(data.labels[i])] for i in range(n)) / n
    exposure = sum(rows[n + i] - sum(logits[n + i]) / C for i in range(count)) / count
    assert float(found["ce"]) == pytest.approx(ce, abs=1e-5)
    assert float(found["outlier_exposure"]) == pytest.approx(exposure, abs=1e-5)
    if views == 1:
        assert float(found["total"].detach()) == pytest.approx(ce + 0.1 * exposure, abs=1e-5)
    assert set(module.info) == {"discriminator", "generator", "uncertainty"}


def test_the_rate_is_that_of_the_classifiers_schedule() -> None:
    source = watched()
    module = classifier(source, milestones=[2, 0.55])
    settings = module.optimizer_settings.configure(module.parameter_groups(), 10, 10)
    optimizer, schedule = settings["optimizer"], settings["lr_scheduler"]["scheduler"]
    for step in range(60):
        if step in (0, 19, 20, 54, 55):
            placed(module, step % 10, step // 10)
            one_step(module, batch(), step % 10)
            peak = optimizer.param_groups[0]["lr"] / module.optimizer_settings.lr
            assert source.asked[-1]["rate"] == pytest.approx(peak)
            assert [o.param_groups[0]["lr"] for o in source.optimizers.values()] == pytest.approx([LR * peak] * 2)
        optimizer.step()
        schedule.step()
    assert [asked["rate"] for asked in source.asked] == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.01])


def test_draws_are_a_function_of_seed_epoch_and_step() -> None:
    states = []
    for step, epoch in ((0, 0), (1, 0), (0, 1), (0, 0)):
        source = watched()
        one_step(placed(classifier(source), step, epoch), batch(), step)
        states.append(source.asked[0]["state"])
    assert torch.equal(states[0], states[3])
    assert not any(torch.equal(*pair) for pair in ((states[0], states[1]), (states[0], states[2]), states[1:3]))


def test_the_classifiers_step_moves_neither_network() -> None:
    module = classifier()
    source, data = source_of(module), batch()
    assert not any(parameter.requires_grad for parameter in source.parameters()), "as devices are told before a run"
    groups = module.parameter_groups()
    listed = [parameter for group in groups for parameter in group.parameters]
    theirs = {id(parameter) for parameter in source.parameters()}
    assert len(listed) == len({id(parameter) for parameter in listed})
    assert {id(parameter) for parameter in listed} == {id(parameter) for parameter in module.parameters()} - theirs
    optimizer = module.optimizer_settings.configure(groups, 10, 10)["optimizer"]
    for step in range(2):
        one_step(module, data, step)
        before, network = copied(source), copied(module.backbone)
        assert all(parameter.grad is None for parameter in source.parameters())
        assert not any(parameter.requires_grad for parameter in source.parameters())
        optimizer.step()
        optimizer.zero_grad()
        assert equal(source.state_dict(), before)
        assert not equal(module.backbone.state_dict(), network)


def test_the_gradient_of_the_classifier_is_that_of_the_same_images_from_elsewhere() -> None:
    """Nothing of the GAN's own steps is left in it, and no batch statistics."""
    source, data = watched(), batch()
    module = classifier(source)
    one_step(module, data)
    plain = placed(method(terms(cider=False, outlier_loss="outlier_exposure", weight=0.1)))
    one_step(plain, data._replace(auxiliary=source.gave[0]))
    for (name, value), other in zip(module.backbone.named_parameters(), plain.backbone.parameters(), strict=True):
        assert value.grad is not None
        assert torch.equal(value.grad, other.grad), name
    assert equal(module.backbone.state_dict(), plain.backbone.state_dict())


def test_while_no_term_reads_outliers_nothing_learns() -> None:
    made = terms(cider=False, outlier_loss="outlier_exposure")
    made[-1].start = 5
    source = watched()
    module = placed(method(made, source))
    one_step(module, batch())
    assert (source.asked, source.gave, module.info) == ([], [], {})
    one_step(placed(module, 0, 5), batch())
    assert len(source.asked) == len(source.gave) == 1


def test_there_are_no_points_of_a_feature_space() -> None:
    assert classifier().outliers() is None


class NoWaitingButCounters(NoWaiting):
    """Adam counts its steps in tensors that stay on the host on every device; to read these waits for nothing."""

    def __init__(self, source: GAN) -> None:
        super().__init__()
        self.optimizers, self.read = source.optimizers.values(), 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ == "_local_scalar_dense":
            states = [state for optimizer in self.optimizers for state in optimizer.state.values()]
            if any(args[0] is state["step"] for state in states):
                self.read += 1
                return func(*args, **(kwargs or {}))
        return super().__torch_dispatch__(func, types, args, kwargs)


@each("side", [8, 16])
def test_nothing_in_a_step_waits_for_the_device(side: int) -> None:
    assert "_local_scalar_dense" in WAITS
    module = classifier(gan(side=side))
    data = batch()
    data = data._replace(counts=data.labels.bincount(minlength=C).numpy())
    with NoWaitingButCounters(source_of(module)) as watch:
        for step in range(3):
            one_step(module, data, step)
    weights = len(list(source_of(module).parameters()))
    assert watch.read == 3 * weights, "one counter of each weight in each step"
    assert int(module.outlier_steps) == 3


# Checkpoints.


def saved(module: Method) -> dict[str, Any]:
    """What is read of the bytes of a checkpoint."""
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    buffer.seek(0)
    read: dict[str, Any] = torch.load(buffer, weights_only=True)
    return read


def test_a_checkpoint_holds_both_networks_and_what_moves_them() -> None:
    first, second, fresh = classifier(), classifier(), classifier()
    first.on_train_start()
    for step in range(2):
        one_step(first, batch(seed=step), step)
    checkpoint = saved(first)
    resume(second, checkpoint)
    resume(fresh, {name: value for name, value in checkpoint.items() if name != "image_source"})
    for module in (first, second, fresh):
        one_step(module, batch(seed=2), 2)
    assert equal(source_of(first).state_dict(), source_of(second).state_dict())
    assert all(adam_equal(source_of(first), source_of(second)))
    assert not equal(source_of(first).state_dict(), source_of(fresh).state_dict()), "the state of Adam counts"


def resume(module: Method, checkpoint: dict[str, Any], device: str = "cpu") -> None:
    """As the trainer does it: a checkpoint is read before the module is moved to the device."""
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint["state_dict"])
    if device != "cpu":
        try:
            torch.__future__.set_swap_module_params_on_conversion(True)  # a weight stays itself, as on the way to a GPU
            module.to(device)
        finally:
            torch.__future__.set_swap_module_params_on_conversion(False)
    module.on_fit_start()
    module.on_train_start()


def adam_equal(one: GAN, other: GAN) -> Iterator[bool]:
    """Whether each number that Adam keeps is the same, of both networks."""
    assert set(one.optimizers) == set(other.optimizers)
    for name, optimizer in one.optimizers.items():
        ours, theirs = (found.state_dict() for found in (optimizer, other.optimizers[name]))
        assert ours["param_groups"] == theirs["param_groups"]
        assert ours["state"].keys() == theirs["state"].keys() == set(range(len(list(optimizer.state))))
        for number, state in ours["state"].items():
            assert state.keys() == {"step", "exp_avg", "exp_avg_sq"}
            yield equal(state, theirs["state"][number])


def test_what_moves_them_follows_a_resumed_run_to_its_device() -> None:
    first, second = classifier(), classifier()
    one_step(first, batch())
    resume(second, saved(first), "meta")
    for optimizer in source_of(second).optimizers.values():
        assert optimizer.state
        for weight, state in optimizer.state.items():
            assert weight.device == state["exp_avg"].device == state["exp_avg_sq"].device == torch.device("meta")
            assert state["step"].device == torch.device("cpu"), "which stays on the host"


# Runs.


def fitted(folder: Path) -> tuple[Method, list[dict[str, Any]]]:
    """Train to the end, or go on; the method and its curves."""
    experiment = claim(prepare([*RUN, "trainer.checkpoint_minutes=1e-9", f"paths.output={folder}"]))
    trained = build_method(experiment)
    _train(experiment, trained, [])
    return trained, [json.loads(line) for line in RunFolder(experiment.run_dir).curves.read_text().splitlines()]


class StoppedError(Exception):
    """The run is stopped here."""


def test_a_run_stopped_within_an_epoch_ends_in_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed, curves = fitted(tmp_path / "undisturbed")
    learn, seen = GAN.learn, []

    def stopping(self: GAN, *arguments: Any) -> Any:
        """After a step of G and D that no checkpoint has."""
        found = learn(self, *arguments)
        seen.append(found)
        if len(seen) == 5:
            raise StoppedError
        return found

    with monkeypatch.context() as patched:
        patched.setattr(GAN, "learn", stopping)
        with pytest.raises(StoppedError):
            fitted(tmp_path / "stopped")
    (checkpoints,) = (tmp_path / "stopped").glob("gan-*/checkpoints")
    found = newest(checkpoints)
    assert found is not None
    assert found.name.startswith("step000000004-"), "the first of the three steps of the second epoch"
    torch.manual_seed(12345)
    resumed, again = fitted(tmp_path / "stopped")
    assert equal(resumed.state_dict(), undisturbed.state_dict())
    assert all(adam_equal(source_of(resumed), source_of(undisturbed)))
    for optimizer in source_of(resumed).optimizers.values():
        assert {float(state["step"]) for state in optimizer.state.values()} == {6.0}
    assert again == curves
    rows = [row for row in curves if "info/generator" in row]
    assert len(rows) == 6
    assert all(math.isfinite(row[f"info/{name}"]) for row in rows for name in ("discriminator", "uncertainty"))
    assert {"image_source.generator.layers.0.weight", "image_source.mean"} <= set(undisturbed.state_dict())


def test_a_whole_run_is_scored_as_any_other(tmp_path: Path) -> None:
    more = ["scorer=[msp]", "figure=[]", "protocol.far=[gaussian_noise]", "protocol.near=[]"]
    results = ood_lab.run([*RUN, *more, "trainer.max_epochs=1", f"paths.output={tmp_path}"])
    (row, *_) = [row for row in results.rows if row["ood_set"] and row["scorer"]]
    assert (row["method"], row["scorer"], row["ood_set"]) == ("gan", "msp", "gaussian_noise")
    detector = ood_lab.load_detector(results.run_dir, "msp")
    assert detector.score([Image.new("RGB", (16, 16))]).isfinite().all()

"""Cross-entropy, and the stepping that every method shares."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from ood_lab.backbone.resnet import ResNet
from ood_lab.config import RunError
from ood_lab.method.ce import CE
from ood_lab.optimizer import SGD
from ood_lab.types import BackboneOutput, Batch


def ce() -> CE:
    torch.manual_seed(0)
    backbone = ResNet(3, block="basic", depths=[1, 1, 1, 1], width=8, stem="cifar", norm="batch")
    return CE(backbone, 3, 7, stage="pretrain", optimizer=SGD(lr=0.1, momentum=0.9, weight_decay=0.0, warmup=0.0))


def batch(rows: int = 6, seed: int = 0) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    return Batch(torch.randn(rows, 3, 8, 8, generator=draw), torch.randint(3, (rows,), generator=draw))


def trainer(epoch: int = 0, step: int = 0, **more: object) -> SimpleNamespace:
    return SimpleNamespace(current_epoch=epoch, global_step=step, world_size=1, **more)


def test_loss_is_the_mean_negative_log_softmax_of_the_true_class() -> None:
    logits, labels = torch.randn(5, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 2, 1, 1, 0])
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        total -= math.log(math.exp(row[label]) / sum(math.exp(x) for x in row))
    losses = ce().loss(Batch(torch.empty(0), labels), BackboneOutput(torch.empty(0), logits))
    assert float(losses["total"]) == pytest.approx(total / 5, abs=1e-6)


def test_ce_takes_one_view_and_makes_no_outliers() -> None:
    method = ce()
    assert method.views == 1
    assert method.outliers() is None


def test_step_returns_the_losses_it_names() -> None:
    method = ce()
    losses = method.training_step(batch(), 0)
    assert set(losses) == {"loss", "total"}
    assert losses["loss"].requires_grad
    assert not losses["total"].requires_grad
    assert float(losses["loss"]) == float(losses["total"])


class Own(CE):
    """A method whose loss has terms that nothing else declares."""

    terms: dict[str, float]

    def loss(self, batch: Batch, output: BackboneOutput) -> dict[str, torch.Tensor]:
        return {name: output.logits.mean() * 0 + value for name, value in self.terms.items()}


def own(**terms: float) -> Own:
    method = ce()
    method.__class__ = Own
    method.terms = terms
    return method


def test_a_term_needs_no_declaration() -> None:
    method = own(total=3.0, mine=1.0)
    method.training_step(batch(), 0)
    method.terms = {"total": 5.0, "mine": 2.0}
    method.training_step(batch(), 1)
    summary = method.epoch_summary()
    assert (summary["total_mean"], summary["mine_mean"]) == (4.0, 1.5)


def test_a_loss_without_a_total_is_named() -> None:
    with pytest.raises(RunError, match=r"Own\.loss returned mine, other, but not 'total', which is minimised; add it"):
        own(mine=1.0, other=2.0).training_step(batch(), 0)


def test_loss_trains_every_parameter() -> None:
    method = ce()
    method.training_step(batch(), 0)["loss"].backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_extract_gives_what_the_backbone_gives() -> None:
    method = ce().eval()
    images = batch().images
    out = method.extract(images)
    assert set(out) == {"features", "logits"}
    torch.testing.assert_close(out["logits"], method.backbone.fc(out["features"]))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_non_finite_loss_is_a_run_error_that_names_step_and_terms(bad: float) -> None:
    method = ce()
    method._trainer = trainer(epoch=3, step=17)
    with torch.no_grad():
        method.backbone.fc.bias[1] = bad
    with pytest.raises(RunError, match=r"step 17 \(epoch 3\).*total = nan"):
        method.training_step(batch(), 0)


def test_epoch_summary_is_the_mean_over_steps_and_starts_anew() -> None:
    method = ce()
    totals = [float(method.training_step(batch(seed=seed), 0)["total"]) for seed in range(3)]
    for seed in range(2):
        method.validation_step(batch(seed=seed), 0)
    summary = method.epoch_summary()
    assert set(summary) == {"total_mean", "train_accuracy", "val_accuracy"}
    assert summary["total_mean"] == pytest.approx(sum(totals) / 3)
    last = float(method.training_step(batch(seed=9), 0)["total"])
    assert method.epoch_summary()["total_mean"] == pytest.approx(last)


def test_accuracies_count_the_largest_logits() -> None:
    method, right, rows = ce(), 0, 0
    for seed in range(3):
        images, labels, _ = batch(seed=seed)
        right += int((method.backbone(images).logits.argmax(1) == labels).sum())  # batch statistics: same when repeated
        rows += len(labels)
        method.training_step(Batch(images, labels), 0)
    assert method.epoch_summary()["train_accuracy"] == pytest.approx(right / rows)


def test_the_global_generator_at_a_step_depends_on_seed_epoch_and_step_alone() -> None:
    method, seen = ce(), {}
    for seed, epoch, index in [(7, 0, 0), (7, 0, 1), (7, 1, 0), (8, 0, 0), (7, 0, 0)]:
        method.seed, method._trainer = seed, trainer(epoch)
        method.on_train_batch_start(batch(), index)
        drawn = torch.rand(4).tolist()
        assert seen.setdefault((seed, epoch, index), drawn) == drawn
        torch.rand(index + 3)
    assert len({tuple(x) for x in seen.values()}) == 4


def test_schedule_spans_all_steps_of_all_epochs() -> None:
    method = ce()
    method._trainer = trainer(max_epochs=4, datamodule=SimpleNamespace(steps_per_epoch=5))
    made = method.configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[10] == pytest.approx(0.05)
    assert min(rates) > 0
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)
    assert len(optimizer.param_groups[0]["params"]) == len(list(method.parameters()))

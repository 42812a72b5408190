"""The module that runs a method's parts: one forward pass a step, the view of it, the terms and their sum."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ood_lab.autograd.twice_differentiable import twice_differentiable
from ood_lab.errors import RunError
from ood_lab.image_source import ImageSource
from ood_lab.memory import Bank
from ood_lab.method.measured import Measured
from ood_lab.method.memories import memories_of
from ood_lab.method.passes import TrainingPasses
from ood_lab.moment import Progress
from ood_lab.network import Network
from ood_lab.optimizer import Optimizer, ParameterGroup
from ood_lab.parts import SHIFTS, Kept, Parts, Rows, Term, View, WholeBatch, turned
from ood_lab.perturbation.base import Beside, OutlierImages, Perturbation
from ood_lab.random import derive_seed, generator
from ood_lab.selector.base import EpochSelector, StepSelector
from ood_lab.types import BackboneOutput, Batch, Outliers, OutlierSpace


class Method(Measured):
    """L = sum of id_loss + outlier_loss + sum of regularizer, each term with its weight and schedule.

    A step: one forward pass of ID and outlier images, the view of it, the terms that take part, their weighted sum, the
    check for finite losses; then memories are written. What lives across steps is a buffer of fixed shape, so that a
    checkpoint holds it; random draws come from the global generator, seeded here at every step, or from generators
    named by what they are for. Nothing in a step waits for the device: what it depends on (schedules, whether a bank is
    full) is known on the host.

    A method with a training loop of its own is a subclass.

    Args:
        parts: the built parts.
        stage: "pretrain" or "finetune"; recorded with the results, and picks the data set's number of epochs.
        trainable: the "whole" network; "layer4_mlp": a ResNet's last stage and the heads, as HamOS's text has it on
            ImageNet-1K (section D.2; its release freezes nothing), where batch statistics below follow the batches all
            the same, as in OpenOOD's trainers; or "heads" alone, on a backbone in evaluation mode (CSI's second stage).
        outlier_statistics: whether batch normalisation takes ID and outlier images together ("joint": one forward pass)
            or each by themselves ("own": two, as MixOE's code).
        outlier_space: auxiliary images as they are trained on: augmented and normalised as the ID images
            ("normalised"), or neither, with values in [0, 1] ("raw01", AOE's code); the data module does it.
        mean_over: what the terms on auxiliary images and the ID terms are means over: each over its own images
            ("sides"), or both over all images of the step ("all_rows", AOE's code: with as many of each, half of both).
        optimizer: its settings.

    Raises:
        RequestError: two parts want memories of one name with different options.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        stage: Literal["pretrain", "finetune"],
        trainable: Literal["whole", "layer4_mlp", "heads"] = "whole",
        outlier_statistics: Literal["joint", "own"] = "joint",
        outlier_space: OutlierSpace = "normalised",
        mean_over: Literal["sides", "all_rows"] = "sides",
        optimizer: Optimizer,
    ) -> None:
        super().__init__(parts.classes)
        self.parts, self.stage, self.optimizer_settings = parts, stage, optimizer
        self.backbone, self.head = parts.backbone, parts.head
        self.frozen, self.apart = trainable == "heads", outlier_statistics == "own"
        self.outlier_space, self.over_all_rows = outlier_space, mean_over == "all_rows"
        if trainable == "layer4_mlp":
            self.backbone.freeze_below_last_stage()
        elif self.frozen:
            self.backbone.requires_grad_(False)
            self.backbone.fc.requires_grad_(True)
        self._terms = dict(parts.terms)
        self._memories = memories_of(parts)
        self.terms, self.memories = nn.ModuleDict(self._terms), nn.ModuleDict(self._memories)
        self.network = Network(nn.ModuleList([self.backbone, self.head]), self._output, self._outputs)
        self.image_source = parts.synthesizer if isinstance(parts.synthesizer, ImageSource) else None
        if self.image_source is not None:
            self.image_source.requires_grad_(False)  # outside its own steps, so that devices don't wait for it
        self.selector = parts.selector if isinstance(parts.selector, EpochSelector) else None  # part of a checkpoint
        self._of_optimizers: dict[str, Any] = {}  # of the image source, from a checkpoint
        self._idle: list[nn.Parameter] = []  # parameters that the last step did not use

    @property
    def views(self) -> int:
        """Augmented copies of each ID image in a batch."""
        return max(term.views for term in self._terms.values())

    def train(self, mode: bool = True) -> Method:
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    # The network.

    def forward(self, images: Tensor) -> BackboneOutput:
        """Penultimate features, and the outputs of the head."""
        features, outputs = self.backbone(images)
        return BackboneOutput(features, self.head.outputs(features, outputs))

    def _outputs(self, features: Tensor) -> Tensor:
        """The outputs of the head for penultimate features."""
        return self.head.outputs(features, self.backbone.fc(features))

    def _output(self, images: Tensor) -> BackboneOutput:
        """A further pass in the precision of training; features and outputs of the last layer in float32."""
        attached = self._trainer is not None
        with self.trainer.precision_plugin.forward_context() if attached else nullcontext():
            return _in_float32(self(images))

    def extract(self, images: Tensor) -> dict[str, Tensor]:
        """What detectors may see of a batch: features, logits, what the head gives, a projection if there is one."""
        features, outputs = self(images)
        seen = {"features": features, **self.head.tested(features, outputs)}
        if self.head.TURNS > 1:
            turns = [self.backbone(turned(images, shift)).features for shift in range(1, self.head.TURNS)]
            seen |= self.head.tested_turned(torch.stack([features, *turns]))
        return seen if self.head.projector is None else {**seen, "projection": self.head.project(features)}

    # A step.

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        torch.manual_seed(derive_seed(self.parts.seed, "step", self.current_epoch, batch_idx))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        progress = self._progress(batch_idx)
        running = self.running(progress)
        self.info = {}
        auxiliary = self._outlier_images(batch, batch_idx) if _reads_outliers(running) else None
        if auxiliary is not None and auxiliary.id_images is not None:
            batch = batch._replace(images=torch.cat([auxiliary.id_images, batch.images[len(auxiliary.id_images) :]]))
        output = self._forward_pass(batch.images, None if auxiliary is None else auxiliary.images, running)
        with torch.autocast(self.device.type, enabled=False):
            losses, store = self.losses(batch, output, progress, auxiliary)
            self._finite.check(losses, self.global_step, self.current_epoch)
            store()
        outputs = self.head.class_logits(output.logits[: len(batch.labels)].detach().float())
        self._accuracy("train").update(outputs, batch.labels)
        self.means.add({name: value.detach() for name, value in losses.items()}, self.device)
        return {**{name: value.detach() for name, value in losses.items()}, "loss": losses["total"]}

    def running(self, progress: Progress) -> dict[str, Term]:
        """The terms that take part in a step: within their schedule, and with outliers where they wait for some."""
        drawn = self._can_draw()
        return {
            name: term
            for name, term in self._terms.items()
            if term.runs(progress) and (drawn or not (term.reads_outliers or term.waits_for_outliers))
        }

    def _forward_pass(self, images: Tensor, auxiliary: Tensor | None, running: Mapping[str, Term]) -> BackboneOutput:
        """ID images, behind them turned ones where a term reads these, and outlier images.

        With gradients on ID and outlier images where a term penalises or watches these.
        """
        inputs = [images] if auxiliary is None else [images, auxiliary]
        differentiated = [t for t in running.values() if "images" in (*t.reads, *t.reads_outliers)]
        if differentiated:
            for part in inputs:
                part.requires_grad_()
        inputs[1:1] = [turned(images, shift) for shift in range(1, _turns(running))]
        penalised = any(not term.watched for term in differentiated)
        with twice_differentiable(self.backbone) if penalised else nullcontext():
            if self.apart and auxiliary is not None:
                passes = (self.backbone(torch.cat(inputs[:-1])), self.backbone(auxiliary))
                features = torch.cat([found.features for found in passes])
                return BackboneOutput(features, self._outputs(features))
            output: BackboneOutput = self(torch.cat(inputs) if len(inputs) > 1 else images)
            return output

    def losses(
        self, batch: Batch, output: BackboneOutput, progress: Progress, auxiliary: OutlierImages | None = None
    ) -> tuple[dict[str, Tensor], Callable[[], None]]:
        """The scalars of all terms that take part, and "total", their weighted sum.

        Args:
            batch: the step's ID images and labels.
            output: of the network, in its precision, for the ID images, their turned copies if a term reads these, and
                the outlier images.
            progress: how far the run is.
            auxiliary: the outlier images.

        Returns:
            the scalars, and a function that writes the memories.
        """
        running = self.running(progress)
        view, store = self._view(batch, _in_float32(output), progress, auxiliary, running)
        losses: dict[str, Tensor] = {}
        weighted: list[Tensor] = []
        for term in running.values():
            found, weights = term.losses(view.of(term)), term.weights()
            losses |= found
            if term.watched:
                continue
            own = [weights[name] * self._share(term, view) * value for name, value in found.items()]
            if term.group == "outlier_loss":
                self._count_outlier_step(own, output.features)
            weighted += own
        if not weighted:
            raise RunError(f"no term takes part in step {progress.step}; let one start at 0 and go on to the end")
        used = self._used(running)
        self._idle = [parameter for owner, parameter in self._optional_parameters() if owner not in used]
        return {**losses, "total": self._with_idle(sum(weighted[1:], weighted[0]))}, store

    def _share(self, term: Term, view: View) -> float:
        """By what a term is multiplied besides its weight: its side's share of all rows, where means are over these."""
        if not self.over_all_rows or view.id_share is None or term.group == "regularizer":
            return 1.0
        return 1 - view.id_share if term.group == "outlier_loss" else view.id_share

    def _view(
        self,
        batch: Batch,
        output: BackboneOutput,
        progress: Progress,
        auxiliary: OutlierImages | None,
        running: Mapping[str, Term],
    ) -> tuple[View, Callable[[], None]]:
        """What the terms see, and a function that writes what they leave behind."""
        count = len(batch.labels)
        rows = self._rows(batch.images, BackboneOutput(output.features[:count], output.logits[:count]))
        counts_C = _counts(batch, self.parts.classes)
        compared = {name for term in running.values() for name in term.reads_whole}
        spaces = sorted(compared | {memory.space for memory in self._memories.values()})
        gathered = {space: self.gathered(getattr(rows, space)) for space in spaces}
        labels = self.gathered(batch.labels) if gathered or _turns(running) > 1 else batch.labels
        offered = Kept({n: m.offer(gathered[m.space], labels, counts_C) for n, m in self._memories.items()})

        def store() -> None:
            for name, memory in self._memories.items():
                memory.store(gathered[memory.space].detach(), labels, counts_C, offered[name].detach())

        whole = WholeBatch(Rows(**gathered), labels, self._own_places(count), self.views) if compared else None
        behind, shifted = count * _turns(running), None
        if behind > count:
            shifted = self._shifted(output.features[:behind], output.logits[:behind], labels, running)
        outliers, id_share = None, None
        if _reads_outliers(running):
            if auxiliary is not None:
                rest = BackboneOutput(output.features[behind:], output.logits[behind:])
                outliers = self._rows(auxiliary.images, rest, auxiliary.targets)
                id_share = count / (count + len(auxiliary.images))
            else:
                outliers, made = self._synthesized(offered, progress)
                id_share = count * self._world() / (count * self._world() + made)  # all devices have the same points
        view = View(rows, batch.labels, offered, outliers, whole, shifted, id_share, self.network, self._world())
        return view, store

    def _shifted(self, features: Tensor, logits: Tensor, labels: Tensor, running: Mapping[str, Term]) -> WholeBatch:
        """Rows of turned images of all devices, a block for each shift; their labels are y + C s."""
        found = {"features": features, **self.head.trained(features, logits), **self.head.added(features)}
        if self.head.projector is not None:
            found["z"] = self.head.project(features)
        read = sorted({name for term in running.values() for name in term.reads_shifted})
        blocks = {name: found[name].unflatten(0, (_turns(running), -1)) for name in read}
        gathered = {name: torch.cat([self.gathered(block) for block in parts]) for name, parts in blocks.items()}
        shifts = torch.arange(_turns(running), device=labels.device)[:, None]
        own = self._own_places(len(features) // len(shifts))
        everywhere = (labels + self.parts.classes * shifts).flatten()
        return WholeBatch(Rows(**gathered), everywhere, (own + len(labels) * shifts).flatten(), self.views)

    def _rows(self, images: Tensor, output: BackboneOutput, targets: Tensor | None = None) -> Rows:
        tensors = {"images": images, "features": output.features, **self.head.trained(*output)}
        if self.head.projector is not None:
            tensors["z"] = self.head.project(output.features)
        if targets is not None:
            tensors["targets"] = targets
        return Rows(**tensors).of_classes(self.parts.classes)

    # Outliers.

    def _can_draw(self) -> bool:
        """Whether outliers can be made: every memory that the synthesizer draws from is full."""
        synthesizer = self.parts.synthesizer
        return synthesizer is None or all(self._memories[name].ready for name in synthesizer.keeps())

    def _synthesized(self, kept: Mapping[str, Tensor], progress: Progress) -> tuple[Rows, int]:
        """Points of the synthesizer, which carry no gradient, what the head and the projector give, how many."""
        if self.parts.synthesizer is None:
            raise RunError("a term reads outliers, but there is neither a synthesizer nor an auxiliary set")
        outliers = self._sample(kept, "synthesis", self.current_epoch, progress.step % progress.per_epoch)
        self.info = outliers.info
        values = outliers.values.detach()
        return Rows(**self.of_points(values)).of_classes(self.parts.classes), len(values)

    def of_points(self, values: Tensor) -> dict[str, Tensor]:
        """What the head and the projector give for points of the synthesizer's space, and the points."""
        assert self.parts.synthesizer is not None
        if self.parts.synthesizer.space == "projection":
            return {"z": values}
        tensors = {"features": values, **self.head.trained(values, self._outputs(values))}
        return tensors if self.head.projector is None else {**tensors, "z": self.head.project(values)}

    def classes_without_rows(self) -> list[int]:
        """The classes of which no row ever reached a bank."""
        banks = [memory for memory in self._memories.values() if isinstance(memory, Bank)]
        return sorted({c for bank in banks for c, written in enumerate(bank.written.tolist()) if not written})

    def outliers(self) -> Outliers | None:
        """A batch of outliers of the finished network for scores and costs; None without a source of points."""
        if self.parts.synthesizer is None or self.image_source is not None or not self._can_draw():
            return None
        kept = {name: memory.values for name, memory in self._memories.items()}
        return self._sample(kept, "after training", 0, 0)

    def _sample(self, kept: Mapping[str, Tensor], purpose: str, epoch: int, step: int) -> Outliers:
        """All devices draw the same points."""
        assert self.parts.synthesizer is not None
        draw = generator(self.parts.seed, purpose, epoch, step, device=self.device)
        return self.parts.synthesizer.sample(kept, self.parts.dims, draw)

    def _outlier_images(self, batch: Batch, step: int) -> OutlierImages | None:
        """Of the auxiliary images those that the selector takes, changed; or made ones. All devices draw the same."""
        if self.image_source is not None:
            return self._made_images(batch, step, self.image_source)
        images, parts = batch.auxiliary, self.parts
        if images is None:
            return None
        if isinstance(parts.selector, StepSelector):
            draw = generator(parts.seed, "select", self.current_epoch, step, device=self.device)
            images = self._selected(images, parts.selector, draw)
        draw = generator(parts.seed, "perturb", self.current_epoch, step, device=self.device)
        count = len(batch.labels) // self.views
        return self.changed(images, batch.images[:count].detach(), batch.labels[:count], draw)

    def _made_images(self, batch: Batch, step: int, source: ImageSource) -> OutlierImages:
        """As many images of the source as there are ID images, after a step of its networks."""
        own = batch.images[: len(batch.labels) // self.views].detach()
        id_images, progress = self.gathered(own, views=1), self._progress(step)
        rate = self.optimizer_settings.factor(progress.step, progress.steps, progress.per_epoch)
        draw = generator(self.parts.seed, "image source", self.current_epoch, step, device=self.device)
        source.requires_grad_(True)
        self.info = dict(source.learn(id_images, self.network, rate, draw))
        source.requires_grad_(False)
        rank, world = self._place()
        return OutlierImages(source.make(len(id_images), id_images.shape[-2:], draw)[rank::world])

    def changed(
        self,
        images: Tensor,
        id_images: Tensor,
        labels: Tensor,
        draw: torch.Generator,
        perturbation: Perturbation | None = None,
    ) -> OutlierImages:
        """Outlier images as the method's perturbation, or another one, changes them.

        Args:
            id_images, labels: of the step.
        """
        perturbation = perturbation or self.parts.perturbation
        if perturbation is None:
            return OutlierImages(images)
        classes = self.parts.classes
        beside = Beside(id_images, labels, classes, classes + self.head.EXTRA, self.network, *self._place())
        return perturbation(images, beside, draw)

    def _selected(self, images: Tensor, selector: StepSelector, draw: torch.Generator) -> Tensor:
        """This device's share of the images that are taken from the candidates of all devices."""
        world, take = self._world(), self.trainer.datamodule.sizes.auxiliary  # type: ignore[attr-defined]
        rows = Rows()
        if selector.reads:
            output = self.network(images)
            found = {"features": output.features, **self.head.trained(*output)}
            gathered = {name: self.gathered(found[name], views=1) for name in selector.reads}
            rows = Rows(**gathered).of_classes(self.parts.classes)
        chosen = selector.choose(rows, len(images) * world, take, draw)
        if world == 1:
            return images[chosen]
        # Device r has candidates r, r + W, ...; each adds those that it has, and takes its share of all.
        here = (chosen % world == self.trainer.global_rank).view(-1, *[1] * (images.dim() - 1))
        everywhere = self._total(images[chosen // world].where(here, 0))
        return everywhere[self.trainer.global_rank :: world]

    # Parameters that a step may leave unused.

    def _optional_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters that a step may leave unused, each with its owner: what is read through it, or a term."""
        for parameter in self.backbone.fc.parameters():
            yield ("logits" if self.head.linear else "nothing"), parameter
        for name, parameter in self.head.named_parameters():
            yield self.head.owner(name), parameter
        for name, term in self._terms.items():
            for parameter in term.parameters():
                yield name, parameter

    def _used(self, running: Mapping[str, Term]) -> set[str]:
        """The owners of optional parameters that a step trains, as its terms declare."""
        running = {name: term for name, term in running.items() if not term.watched}
        read = {name for term in running.values() for name in (*term.reads, *term.reads_whole, *term.reads_shifted)}
        if self.parts.synthesizer is None or self.parts.synthesizer.space != "projection":
            read |= {name for term in running.values() for name in term.reads_outliers}
        read |= {memory.space for name, memory in self._memories.items() if name in read}
        return read | set(running)

    def _with_idle(self, total: Tensor) -> Tensor:
        """The sum with idle parameters in its graph, with factor 0: training on several devices waits for each."""
        if self._world() == 1 or not self._idle:
            return total
        return total + 0.0 * torch.stack([parameter.sum() for parameter in self._idle]).sum()

    def on_after_backward(self) -> None:
        for parameter in self._idle:  # with a gradient of zero, weight decay would move it
            parameter.grad = None

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        outputs = self.head.class_logits(self(batch.images).logits.float())
        self._accuracy("val").update(outputs, batch.labels)

    # Before the first step, and before an epoch.

    def _rows_of_epoch(self, epoch: int) -> Tensor:
        """The rows of the auxiliary set that the selector chooses for an epoch, or has chosen."""
        assert self.selector is not None
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        passes = TrainingPasses(self, data, self._place(), self._total)
        served = data.steps_per_epoch * data.sizes.auxiliary
        self.selector.begin(passes, epoch, data.auxiliary_images.count, served)
        return self.selector.current().cpu()

    def on_train_start(self) -> None:
        if self.selector is not None:
            # Asked when the first batch of an epoch is wanted; Lightning's hooks are not called in one that is resumed.
            self.trainer.datamodule.choose = self._rows_of_epoch  # type: ignore[attr-defined]
        if self.image_source is not None:
            normalise = self.trainer.datamodule.normalise  # type: ignore[attr-defined]
            self.image_source.begin(normalise.mean, normalise.std)
            self.image_source.restore(self._of_optimizers)  # now that the weights are on their device
            self._of_optimizers = {}
        for memory in self._memories.values():
            memory.begin(partial(self._class_sums, memory.space))  # which does nothing to one of a checkpoint

    @torch.no_grad()
    def _class_sums(self, space: str, per_class: int) -> Tensor:
        """The sum of the rows of each class [C, D] over training images without augmentation, in evaluation mode."""
        sums: Tensor | None = None
        self.eval()
        try:
            for batch in self.trainer.datamodule.train_sample(per_class):  # type: ignore[attr-defined]
                rows = getattr(self._rows(batch.images, self(batch.images)), space)
                sums = rows.new_zeros(self.parts.classes, rows.shape[1]) if sums is None else sums
                sums.index_add_(0, batch.labels, rows)
        finally:
            self.train()
        assert sums is not None
        return sums

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.image_source is not None:
            checkpoint["image_source"] = self.image_source.optimizer_states()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._of_optimizers = checkpoint.get("image_source", {})

    def _progress(self, step: int) -> Progress:
        per_epoch = self.trainer.datamodule.steps_per_epoch  # type: ignore[attr-defined]
        assert self.trainer.max_epochs is not None
        return Progress(self.current_epoch * per_epoch + step, per_epoch * self.trainer.max_epochs, per_epoch)

    def configure_optimizers(self) -> Any:
        per_epoch = self.trainer.datamodule.steps_per_epoch  # type: ignore[attr-defined]
        assert self.trainer.max_epochs is not None
        steps = -(-per_epoch // self.trainer.accumulate_grad_batches)
        return self.optimizer_settings.configure(self.parameter_groups(), steps, self.trainer.max_epochs)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Parameters with the factors of their learning rate and weight decay, the network's first."""
        factors = {p: t.lr_factor for t in self._terms.values() for p in t.parameters()}
        undecayed = {p for n, p in self.head.named_parameters() if n.startswith(self.head.undecayed)}
        settings = self.optimizer_settings
        depths = self.backbone.layer_depths() if settings.layer_decay != 1 else {}
        if not settings.decay_vectors:
            undecayed |= self.backbone.undecayed() | {p for p in self.parameters() if p.dim() <= 1}
        groups: dict[tuple[float, float], list[nn.Parameter]] = {(1.0, 1.0): []}
        theirs = set() if self.image_source is None else set(self.image_source.parameters())
        for parameter in (parameter for parameter in self.parameters() if parameter not in theirs):
            rate = factors.get(parameter, 1.0) * settings.layer_decay ** depths.get(parameter, 0)
            own = rate, 0.0 if parameter in undecayed else 1.0
            groups.setdefault(own, []).append(parameter)
        return [ParameterGroup(parameters, *own) for own, parameters in groups.items()]


def _in_float32(output: BackboneOutput) -> BackboneOutput:
    return BackboneOutput(output.features.float(), output.logits.float())


def _turns(running: Mapping[str, Term]) -> int:
    """How many copies of each ID image go through the network: one, or one for each shift."""
    return SHIFTS if any(term.reads_shifted for term in running.values()) else 1


def _reads_outliers(running: Mapping[str, Term]) -> bool:
    return any(term.reads_outliers for term in running.values())


def _counts(batch: Batch, classes: int) -> np.ndarray:
    """Rows of each class on all devices; of a batch made by hand those of its labels."""
    known = np.bincount(batch.labels.cpu().numpy()) if batch.counts is None else batch.counts
    return np.pad(known, (0, classes - len(known)))

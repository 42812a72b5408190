"""The lines under a table: which images its numbers are of, and how they were counted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ood_lab.config.experiment import Experiment
from ood_lab.config.schema import Protocol
from ood_lab.plural import counted
from ood_lab.results.store import Row

AT_CHANCE = 0.05  # of the way from guessing to no error
LOST = 0.01  # of the ID accuracy, below which fine-tuning is said to have lost none
HEADLINES = {"ood_pos": "OOD+", "id_pos": "ID+"}


def image_lines(
    protocol: Protocol,
    groups: Mapping[str, str],
    partial: Mapping[str, tuple[int, int]],
    own_validation: int | None = None,
    unit: str = "percent",
    overlapping: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """Which images a protocol scores and how they are prepared, a line each; the first names it and its sets.

    Args:
        protocol: the resolved one.
        groups: the OOD sets that were scored, near or far.
        partial: sets of which another number of images was scored than stated: (scored, stated).
        own_validation: images of a validation part that the ID set has of its own.
        unit: of the numbers; "" where it is said elsewhere.
        overlapping: sets that share images with the auxiliary set, and how many.
    """
    named = {g: ", ".join(n for n in getattr(protocol, g) if n in groups) or "none" for g in ("near", "far")}
    skipped = [name for name in (*protocol.near, *protocol.far) if name not in groups]
    out = [f"protocol {protocol.name}{', ' * bool(unit)}{unit}. near: {named['near']}; far: {named['far']}"]
    if skipped:
        out.append(f"not there, left out of every mean: {', '.join(skipped)}")
    if partial:
        counts = (f"{name} {scored:,} of {stated:,}" for name, (scored, stated) in partial.items())
        out.append(f"not the stated images: {', '.join(counts)}")
    if overlapping:
        told = ", ".join(f"{name} ({what})" for name, what in overlapping.items())
        out.append(f"shared with the auxiliary set, left out of every mean: {told}")
    held = f"{protocol.id_val:,} ID test images kept for validation" if protocol.id_val else "whole ID test set"
    held = held if own_validation is None else f"{own_validation:,} ID validation images"
    drawn = (
        f"means over {counted(protocol.draws, 'draw')} of {counted(protocol.subset, 'image')}"
        if protocol.subset
        else "whole"
    )
    out.append(f"{held}; OOD sets {drawn}; means over sets")
    constants = "the training images' own"
    if protocol.mean is not None and protocol.std is not None:
        constants = f"{_numbers(protocol.mean)}, {_numbers(protocol.std)}"
    return [*out, f"images: {_transforms(protocol)}; normalised by {constants}"]


def protocol_lines(
    protocol: Protocol,
    groups: Mapping[str, str],
    partial: Mapping[str, tuple[int, int]],
    own_validation: int | None = None,
    overlapping: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """The resolved protocol in words: `image_lines`, and what the two FPR95 are."""
    return [
        *image_lines(protocol, groups, partial, own_validation, overlapping=overlapping),
        *metric_lines(protocol),
    ]


def metric_lines(protocol: Protocol) -> list[str]:
    """What the two FPR95 are, where the threshold lies, and which of them the protocol's papers print."""
    what, where = fpr95_lines(protocol.fpr_rule)
    return [what, f"{where}; tables of protocol {protocol.name} report {HEADLINES[protocol.fpr95]}"]


def fpr95_lines(rule: str) -> list[str]:
    """What the two FPR95 are, and where the threshold lies."""
    where = {"first": "the first threshold that reaches 95 %", "nearest": "the threshold nearest to 95 %"}[rule]
    return [
        "FPR95 OOD+: ID images flagged when 95 % of OOD are; ID+: OOD images accepted when 95 % of ID are",
        f"FPR95: mean over all sets, at {where}",
    ]


def changed_line(changed: Mapping[str, tuple[int, int]], behind: Sequence[str] = ()) -> list[str]:
    """Which sets hold other images than when the run was scored first.

    Args:
        changed: (images then, images now) of those that were scored again.
        behind: those that were not.
    """
    counts = (f"{name} ({now:,} files, {then:,} at first)" for name, (then, now) in changed.items())
    lines = [f"images changed since, and scored again: {', '.join(counts)}"] if changed else []
    if behind:
        lines.append(f"NOT of today's images, which have changed: {', '.join(behind)}; task=evaluate scores them again")
    return lines


def tuning_lines(validation: Sequence[str], chosen: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What was searched, on which sets, and what was found.

    Args:
        validation: the OOD sets of the search.
        chosen: "detector" or "run, detector" to the values taken.
    """
    if not chosen:
        return []
    found = "; ".join(f"{name} {', '.join(f'{k}={v}' for k, v in values.items())}" for name, values in chosen.items())
    return [f"* tuned by AUROC of ID validation images against {', '.join(validation)}: {found}"]


def training_lines(experiment: Experiment, curves: Collection[str]) -> list[str]:
    """What was looked at between epochs, where that says something about the numbers.

    Args:
        curves: the keys that training has logged.
    """
    lines = []
    if any(key.startswith("test/") for key in curves):
        lines.append("OOD test sets were scored while training, too: choose nothing by these curves")
    if experiment.trainer.select != "last":
        lines.append("weights of the epoch with the best accuracy on ID validation images")
    return lines


def accuracy_lines(accuracy: float, classes: int | None, before: float | None = None) -> list[str]:
    """What an ID accuracy says about the run: at chance, or lower than that of the classifier that it began with.

    Args:
        accuracy: as a fraction; nan where it is not stored.
        before: of the classifier that was fine-tuned.
    """
    if classes is not None and classes > 1 and accuracy <= 1 / classes + AT_CHANCE * (1 - 1 / classes):
        return [
            f"ID accuracy {100 * accuracy:.1f} is at chance for {classes} classes: the network has learned nothing "
            "that detectors could use. Lower method.optimizer.lr, train longer, or look at the images (task=data)"
        ]
    if before is not None and accuracy < before - LOST:
        return [f"fine-tuning lost ID accuracy: {100 * before:.1f} before, {100 * accuracy:.1f} after"]
    return []


def outlier_lines(experiment: Experiment, rows: Sequence[Row]) -> list[str]:
    """That a term on outliers took part in no step, so that the run trained by its other terms alone."""
    steps = [row["value"] for row in rows if row["metric"] == "outlier_steps"]
    term = experiment.outlier_loss
    if term is None or term.get("weight", 1) == 0 or not steps or steps[-1] > 0:
        return []
    remedies = ["train longer"]
    if term.get("start", 0):
        remedies.append("lower outlier_loss.start")
    if experiment.synthesizer is not None and experiment.synthesizer.get("bank_size") is not None:
        remedies.append("lower synthesizer.bank_size, which every class has to fill")
    return [f"{term.choice} took part in no step: trained by the other terms alone; {', or '.join(remedies)}"]


def _transforms(protocol: Protocol) -> str:
    names = {**protocol.transforms}
    used = [f"{name} {chain}" for name, chain in names.items() if name in (*protocol.near, *protocol.far)]
    return ", ".join([protocol.transform, *used])


def _numbers(values: Sequence[float]) -> str:
    return "(" + " ".join(f"{value:.4g}" for value in values) + ")"

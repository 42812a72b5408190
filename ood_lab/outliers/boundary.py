"""BOOD's outliers: the embeddings nearest to a decision boundary, walked across it (Liao et al. 2025)."""

from __future__ import annotations

import sys
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.config.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, PositivePercent
from ood_lab.errors import RunError
from ood_lab.outliers.base import Found, Outliers, in_turn
from ood_lab.random import generator
from ood_lab.sampling.boundary import AnchorClassifier, Walk, walk

Displacement = Literal["adversarial", "gaussian_noise", "centroid", "none"]


class Boundary(Outliers):
    """Of each class the share of embeddings that cross a boundary in the fewest steps, displaced across it.

    Embeddings of one count are told apart by how far the last step went (`Walk.distances`), then by their place.
    Those that cross nothing in `max_steps` are never taken; those that the encoder misclassifies have count 0 and would
    all be taken first, which `drop_misclassified` prevents.

    Args:
        alpha: step size, by the sign of the gradient (Eqs. 3 to 5).
        max_steps: K.
        further_steps: c, behind the boundary; 0 for none.
        share: r, percent of the embeddings.
        scope: whether r counts for each class, or for all together. Each class can have images only by the first.
        identification: "boundary": the nearest; "random": any that cross (Table 3, second row).
        displacement: how those that were chosen become outliers: "adversarial" (Eqs. 4 and 5), "gaussian_noise" or away
            from the "centroid" of the class (Table 6), "none" (Table 3, first row).
        scale: length of the noise or of the push; its size is not stated. None: as far as the adversarial displacement
            of the same embedding.
        features: "raw", as the encoder gives them, or "unit": a step is 0.4 long then, and most cross in 3 to 5 steps.
        drop_misclassified: see above.

    Raises:
        RunError: no embedding can be taken.
    """

    def __init__(
        self,
        *args: Any,
        alpha: PositiveFloat,
        max_steps: PositiveInt,
        further_steps: NonNegativeInt,
        share: PositivePercent,
        scope: Literal["per_class", "global"],
        identification: Literal["boundary", "random"],
        displacement: Displacement,
        scale: NonNegativeFloat | None,
        features: Literal["raw", "unit"],
        drop_misclassified: bool,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.alpha, self.max_steps, self.further_steps = alpha, max_steps, further_steps
        self.share, self.scope, self.identification = share, scope, identification
        self.displacement, self.scale = displacement, scale
        self.drop_misclassified = drop_misclassified
        self.embeddings = self.space.embeddings if features == "raw" else F.normalize(self.space.embeddings, dim=1)

    def find(self) -> Found:
        labels = self.space.labels
        searched = walk(
            self.embeddings, labels, self.classifier, step=self.alpha, max_steps=self.max_steps, keep_points=False
        )
        rows = selected(
            searched, labels, len(self.space.classes), self.share, self.scope, self.drop_misclassified,
            generator(self.seed, "identification") if self.identification == "random" else None,
        )  # fmt: skip
        if not len(rows):
            raise RunError(self._none_found(searched))
        without = sorted(set(range(len(self.space.classes))) - set(labels[rows].tolist()))
        if without:
            names = ", ".join(self.space.classes[number] for number in without)
            print(f"note: no outliers of {names}: none of their embeddings was taken", file=sys.stderr, flush=True)
        rows = rows[in_turn(labels[rows])]
        points, labels = self._displaced(self.embeddings[rows], labels[rows]), labels[rows]
        about = {"steps": searched.counts[rows], "origin": rows}
        return Found(points, labels, about)

    @property
    def classifier(self) -> AnchorClassifier:
        """By which the encoder tells classes apart."""
        return AnchorClassifier(self.space.compared, self.space.temperature)

    def walked(
        self, h_ND: Tensor, labels_N: Tensor, further: int, *, alpha: float | None = None, max_steps: int | None = None
    ) -> Tensor:
        """Where embeddings rest: `further` steps behind the boundary; those that don't cross, after `max_steps`."""
        found = walk(
            h_ND, labels_N, self.classifier, further=further,
            step=self.alpha if alpha is None else alpha,
            max_steps=self.max_steps if max_steps is None else max_steps,
        ).points  # fmt: skip
        assert found is not None
        return found

    def _displaced(self, h_ND: Tensor, labels_N: Tensor) -> Tensor:
        """The chosen embeddings as outliers."""
        if self.displacement == "none":
            return h_ND
        points = self.walked(h_ND, labels_N, self.further_steps)
        if self.displacement == "adversarial":
            return points
        if self.displacement == "gaussian_noise":
            directions = torch.randn(h_ND.shape, generator=generator(self.seed, "noise"))
        else:
            sums = self.embeddings.new_zeros(len(self.space.classes), h_ND.shape[1])
            sums.index_add_(0, self.space.labels, self.embeddings)
            centroids = sums / self.space.labels.bincount(minlength=len(sums)).clamp_min(1)[:, None]
            directions = h_ND - centroids[labels_N]
        lengths = (points - h_ND).norm(dim=1) if self.scale is None else torch.full((len(h_ND),), self.scale)
        return h_ND + F.normalize(directions, dim=1) * lengths[:, None]

    def _none_found(self, searched: Walk) -> str:
        total, wrong = len(searched.counts), int((searched.counts == 0).sum())
        crossed = int(searched.crossed.sum()) - (wrong if self.drop_misclassified else 0)
        if wrong == total and self.drop_misclassified:
            return (
                f"the encoder misclassifies all {total:,} embeddings: there is no boundary to be near to. Train it "
                "longer (outliers.needs.encoder), or check its anchors"
            )
        if not crossed and self.drop_misclassified:
            return (
                f"of {total:,} embeddings none crosses a boundary in outliers.max_steps={self.max_steps} steps of "
                f"outliers.alpha={self.alpha} ({wrong:,} are misclassified); give more steps, or larger ones"
            )
        whole = "one" if self.scope == "global" else "one of a class"
        return (
            f"outliers.share={self.share}: of {total:,} embeddings, {crossed:,} of which cross a "
            f"boundary, this is less than {whole}; give a larger share"
        )


def selected(
    searched: Walk,
    labels_N: Tensor,
    classes: int,
    share: float,
    scope: Literal["per_class", "global"],
    drop_misclassified: bool,
    draw: torch.Generator | None = None,
) -> Tensor:
    """The rows nearest to a boundary, nearest first within what they are chosen from: `share` percent, rounded down.

    Args:
        draw: chooses among all rows that may be taken, whatever their distance.
    """
    allowed = searched.crossed & ((searched.counts > 0) if drop_misclassified else True)
    order = searched.distances.argsort(stable=True)
    order = order[searched.counts[order].argsort(stable=True)]
    if draw is not None:
        order = torch.randperm(len(labels_N), generator=draw)
    order = order[allowed[order]]
    if scope == "global":
        return order[: int(len(labels_N) * share / 100 + 1e-9)]
    taken = []
    for number in range(classes):
        own = order[labels_N[order] == number]
        taken.append(own[: int((labels_N == number).sum().item() * share / 100 + 1e-9)])
    return torch.cat(taken)

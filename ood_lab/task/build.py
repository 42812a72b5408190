"""From an experiment to objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ood_lab.config.experiment import Experiment, Part
from ood_lab.config.groups import LIST_GROUPS, TRAINED_ON
from ood_lab.config.identity import order_of, part_name, reads_projections
from ood_lab.config.image_set_use import ImageSetUse
from ood_lab.config.parts import TERM_GROUPS
from ood_lab.config.source import imported_class
from ood_lab.errors import RunError
from ood_lab.head.base import Head
from ood_lab.images.pixels import Reading
from ood_lab.method.base import Method
from ood_lab.parts import Dimensions, Parts, Term
from ood_lab.random import derive_seed
from ood_lab.runs.run_folder import RunFolder
from ood_lab.training.datamodule import DataModule, Sizes
from ood_lab.training.evaluation_set import EvaluationSet
from ood_lab.training.normalise import Normalise


def build(node: Mapping[str, Any] | Part, *args: Any, **injected: Any) -> Any:
    """The object that a part is, or that a node's `_target_` names; nodes below it are built first.

    Hydra's `instantiate` would resolve `${` in the names of files.
    """
    node = node.node if isinstance(node, Part) else node
    options = {key: _built(value) for key, value in node.items() if key != "_target_"}
    return imported_class(node["_target_"])(*args, **options, **injected)


def _built(value: Any) -> Any:
    if isinstance(value, dict):
        return build(value) if "_target_" in value else {key: _built(child) for key, child in value.items()}
    return [_built(child) for child in value] if isinstance(value, list) else value


def build_part(experiment: Experiment, part: Part | None, *args: Any, **injected: Any) -> Any:
    """The object that a part of an experiment is: its `needs` are the files that those runs made, by name.

    Of a run that trains it is the final weights, of one that makes a set the folder of its shards; None where the
    experiment is a stored one, whose weights hold what it took from them.
    """
    if part is None:
        return None
    if part.get("needs"):
        below = experiment.prerequisites
        made = {name: _made(below.get(f"{part.path}.{name}")) for name in part.options["needs"]}
        part = replace(part, options={**part.options, "needs": made})
    return build(part, *args, **injected)


def _made(experiment: Experiment | None) -> Path | None:
    if experiment is None:
        return None
    return experiment.product if experiment.produces else RunFolder(experiment.run_dir).weights


def class_names(experiment: Experiment) -> tuple[str, ...]:
    """The names of the ID classes; numbers where they have none."""
    found: tuple[str, ...] | None = build(experiment.dataset).listing("train").classes
    return found or tuple(map(str, range(classes_of(experiment))))


def build_method(experiment: Experiment) -> Method:
    """The network and its parts, initialised from the run's seed alone, always in the same order."""
    torch.manual_seed(derive_seed(experiment.seed, "weights"))
    classes = classes_of(experiment)
    backbone = build_part(experiment, experiment.backbone, classes + head_class(experiment).EXTRA)
    dims = Dimensions(classes, backbone.feature_dim, experiment.head.options["projection_dim"])
    synthesizer = build_part(experiment, experiment.synthesizer)
    parts = Parts(
        backbone=backbone,
        head=build_part(experiment, experiment.head, backbone.feature_dim, reads_projections(experiment), classes),
        terms=_terms(experiment, dims),
        classes=classes,
        seed=experiment.seed,
        dims=dims,
        synthesizer=synthesizer,
        selector=build_part(experiment, experiment.selector),
        perturbation=build_part(experiment, experiment.perturbation),
    )
    method: Method = build_part(experiment, experiment.method, parts)
    return method


def classes_of(experiment: Experiment) -> int:
    """How many ID classes there are."""
    classes = experiment.dataset.recipe.num_classes
    assert classes is not None  # stated, or counted from the training images
    return classes


def head_class(experiment: Experiment) -> type[Head]:
    """The class of the head."""
    found: type[Head] = imported_class(experiment.head.target)
    return found


def _terms(experiment: Experiment, dims: Dimensions) -> dict[str, Term]:
    """The terms by name, in the order in which they are summed."""
    terms: dict[str, Term] = {}
    for group in TERM_GROUPS:
        for part in sorted(experiment.of_group(group), key=lambda part: (order_of(group, part.node), part.choice)):
            own = part.choice if group in LIST_GROUPS else part_name(group, part.target).rpartition(".")[2].lower()
            term: Term = build_part(experiment, part, dims)
            term.group, term.name = group, own
            terms[own] = term
    return terms


def build_reading(experiment: Experiment) -> Reading:
    """How the run reads image sets."""
    recipe, trainer = experiment.dataset.recipe, experiment.trainer
    cache = Path(experiment.paths.cache).absolute()
    return Reading(recipe.resize, recipe.side, cache, trainer.cache_gb, trainer.workers)


def build_normalise(experiment: Experiment) -> Normalise:
    """By what the run's images are normalised."""
    if experiment.normalisation is None:
        raise RunError("mean and standard deviation of the training images are not measured yet; train the run first")
    return Normalise(list(experiment.normalisation.mean), list(experiment.normalisation.std))


def build_data(experiment: Experiment, views: int = 1) -> DataModule:
    """Every image set of an experiment, served in batches.

    Args:
        views: augmented copies of each training image in a batch.
    """
    trainer, protocol = experiment.trainer, experiment.protocol
    others = [use for use in experiment.image_sets if use.role not in ("id", *TRAINED_ON)]
    return DataModule(
        build(experiment.dataset),
        build(experiment.augmentation),
        build_reading(experiment),
        auxiliary=build_part(experiment, experiment.auxiliary),
        mixing=build_part(experiment, experiment.mixing),
        pictures=build_part(experiment, experiment.pictures),
        ood={use.name: _ood_set(use, experiment) for use in others},
        normalise=build_normalise(experiment),
        views=views,
        sizes=Sizes(
            trainer.batch_size,
            trainer.auxiliary_batch_size,
            trainer.eval_batch_size,
            _candidates(experiment),
            trainer.auxiliary_images,
        ),
        stream=experiment.dataset.recipe.serve == "streaming",
        id_val=protocol.id_val or 0,
        seed=experiment.seed,
        outlier_space=experiment.method.options["outlier_space"],
        device=device(experiment),
    )


def _ood_set(use: ImageSetUse, experiment: Experiment) -> EvaluationSet:
    chain = experiment.protocol.transforms.get(use.name, experiment.protocol.transform)
    return EvaluationSet(use.name, build(use.node), "ood", chain=chain)


def _candidates(experiment: Experiment) -> int | None:
    """Candidates that a step is served; None where all that it is served are taken."""
    selector = experiment.selector
    return selector.options["candidates"] or 0 if selector is not None and "candidates" in selector.options else None


def device(experiment: Experiment) -> torch.device:
    """Where the network and resident images live."""
    return torch.device("cuda" if experiment.trainer.accelerator == "gpu" else "cpu")

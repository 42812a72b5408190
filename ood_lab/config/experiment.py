"""An experiment: every value of a checked request, typed and frozen, and what follows from them. No torch, no disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

from ood_lab.config.detectors import detectors
from ood_lab.config.groups import LIST_GROUPS, MAKERS, PART_GROUPS, SET_MAKERS, TRAINED_ON
from ood_lab.config.image_set_use import ImageSetUse
from ood_lab.config.schema import Init, Logger, Paths, Protocol, Recipe, Task, Trainer, Tuning
from ood_lab.config.signature import signature
from ood_lab.config.source import code_digest

T = TypeVar("T")
Choices = Mapping[str, str | list[str] | None]


@dataclass(frozen=True)
class Part:
    """A chosen part: its class and the values of its options, whose types and ranges its constructor declares.

    Args:
        group: such as "outlier_loss".
        choice: the name of its file.
        target: import path of its class.
        options: by name.
    """

    group: str
    choice: str
    target: str
    options: Mapping[str, Any]

    @classmethod
    def of(cls, group: str, choice: str, node: Mapping[str, Any]) -> Self:
        """The part that a node of the configuration describes."""
        return cls(group, choice, str(node["_target_"]), {k: v for k, v in node.items() if k != "_target_"})

    @property
    def path(self) -> str:
        """What its options' names begin with on a command line."""
        return f"{self.group}.{self.choice}" if self.group in LIST_GROUPS else self.group

    @property
    def chosen_by(self) -> str:
        """How it was chosen, for messages."""
        return self.path if self.group in LIST_GROUPS else f"{self.group}={self.choice}"

    @property
    def node(self) -> dict[str, Any]:
        """The configuration that it is built from."""
        return {"_target_": self.target, **self.options}

    @property
    def declared(self) -> dict[str, Any]:
        """The plain values that its class declares."""
        return signature(self.target).constants

    def get(self, option: str, default: Any = None) -> Any:
        """The value of an option, where the part has it."""
        return self.options.get(option, default)


@dataclass(frozen=True)
class ImageSetPart(Part):
    """A chosen image set, as ID set or in another role of training."""

    @property
    def name(self) -> str:
        """What results call it."""
        return str(self.options["name"])

    @cached_property
    def recipe(self) -> Recipe:
        """What training on it takes; of a set without one, this raises."""
        return _section(Recipe, self.options["recipe"])


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each channel, on 0..1, by which images are normalised."""

    mean: Sequence[float]
    std: Sequence[float]


@dataclass(frozen=True)
class Experiment:
    """One run: the values of its sections and parts, and what was found out about them before it starts.

    Args:
        choices: the file chosen in each group, by group; lists where a group takes several.
        overrides: the command line that it was composed from.
        config_dir: of a user's own configuration files.
        run_id: see `ood_lab.config.identity`.
        image_sets: every image set that it reads; after `ood_lab.config.prepare.on_disk` those that are there.
        prerequisites: the experiments that it depends on, by name.
        measured: constants of its training images, where the protocol states none.
        seed_is_read: whether other values depend on the seed.
    """

    seed: int
    id_rate: float
    bootstrap: int
    local_radius: Sequence[str]
    index: str
    benchmark: str
    paths: Paths
    task: Task
    trainer: Trainer
    init: Init
    protocol: Protocol
    logger: Logger
    tuning: Tuning | None
    method: Part
    head: Part
    id_loss: Mapping[str, Part]
    synthesizer: Part | None
    selector: Part | None
    perturbation: Part | None
    outlier_loss: Part | None
    regularizer: Mapping[str, Part]
    mixing: Part | None
    backbone: Part
    dataset: ImageSetPart
    auxiliary: ImageSetPart | None
    pictures: ImageSetPart | None
    augmentation: Part
    scorer: Mapping[str, Part]
    figure: Mapping[str, Part]
    producer: Part | None = None
    generator: Part | None = None
    anchors: Part | None = None
    outliers: Part | None = None
    decoder: Part | None = None
    note: str | None = None
    choices: Choices = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    config_dir: Path | None = None
    run_id: str = ""
    image_sets: tuple[ImageSetUse, ...] = ()
    prerequisites: Mapping[str, Experiment] = field(default_factory=dict)
    measured: Normalisation | None = None
    seed_is_read: bool = False

    @classmethod
    def of(cls, values: Mapping[str, Any], choices: Choices | None = None, **about: Any) -> Experiment:
        """The experiment that a composed and checked configuration describes, as plain containers."""
        choices = choices or {}

        def part(group: str, kind: type[Part] = Part) -> Any:
            node = values.get(group)
            return None if node is None else kind.of(group, str(choices.get(group, "")), node)

        def parts(group: str) -> dict[str, Part]:
            return {str(name): Part.of(group, str(name), node) for name, node in (values.get(group) or {}).items()}

        found: dict[str, Any] = {name: values[name] for name in ROOT} | {"note": values.get("note")}
        found |= {name: _section(kind, values[name]) for name, kind in SECTIONS.items()}
        found["tuning"] = None if values.get("tuning") is None else _section(Tuning, values["tuning"])
        found |= {group: part(group, ImageSetPart) for group in ("dataset", *TRAINED_ON)}
        found |= {group: part(group) for group in SINGLE}
        found |= {group: parts(group) for group in LIST_GROUPS}
        return cls(**found, choices=choices, **about)

    def values(self) -> dict[str, Any]:
        """The configuration as plain containers, with the measured constants where the protocol states none."""
        protocol = asdict(self.protocol)
        if self.normalisation is not None:
            protocol |= {"mean": list(self.normalisation.mean), "std": list(self.normalisation.std)}
        groups = ("dataset", *TRAINED_ON, *SINGLE)
        single = {group: part.node if (part := getattr(self, group)) is not None else None for group in groups}
        several = {group: {name: part.node for name, part in getattr(self, group).items()} for group in LIST_GROUPS}
        return {
            **{name: getattr(self, name) for name in (*ROOT, "note")},
            **{name: asdict(getattr(self, name)) for name in SECTIONS},
            "protocol": protocol,
            "tuning": None if self.tuning is None else asdict(self.tuning),
            **single,
            **several,
        }

    def value(self, key: str) -> Any:
        """The value of a dotted key; None where there is none."""
        group, *names = key.split(".")
        found = _plain(getattr(self, group, None))
        for name in names:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found

    def of_group(self, group: str) -> list[Part]:
        """The parts that are chosen in a group, by name where there may be several."""
        found = getattr(self, group)
        if group in LIST_GROUPS:
            return [found[name] for name in sorted(found)]
        return [] if found is None else [found]

    @property
    def parts(self) -> list[Part]:
        """The parts of the method, in the order of `PART_GROUPS`."""
        return [part for group in PART_GROUPS for part in self.of_group(group)]

    @property
    def run_dir(self) -> Path:
        """The folder of the run."""
        return Path(self.paths.output).absolute() / self.run_id

    @property
    def produces(self) -> bool:
        """Whether it makes a set, as shards, instead of training a network."""
        return self.task.name in SET_MAKERS

    @property
    def makes_no_classifier(self) -> bool:
        """Whether it makes a set or trains a generator, and has no method, detectors or OOD sets."""
        return self.task.name in MAKERS

    @property
    def maker(self) -> Part | None:
        """The part that makes its outcome instead of a method, such as a producer or a generator."""
        found: Part | None = getattr(self, MAKERS[self.task.name]) if self.makes_no_classifier else None
        return found

    @property
    def read_groups(self) -> tuple[str, ...]:
        """Of an experiment without a classifier the groups that its outcome depends on."""
        return () if self.maker is None else (self.maker.group, *self.maker.declared.get("inherits", ()))

    @property
    def passed_groups(self) -> tuple[str, ...]:
        """Of an experiment without a classifier the groups that runs which it depends on depend on."""
        return () if self.maker is None else tuple(self.maker.declared.get("passes", ()))

    @property
    def product(self) -> Path:
        """The folder of the shards that it makes."""
        return self.run_dir / "shards"

    @property
    def prerequisite_ids(self) -> tuple[str, ...]:
        """The ids of the runs that it depends on, in the order of their names."""
        return tuple(other.run_id for _, other in sorted(self.prerequisites.items()))

    @property
    def normalisation(self) -> Normalisation | None:
        """By what images are normalised; None as long as nothing states or has measured it."""
        mean, std = self.protocol.mean, self.protocol.std
        if self.backbone.get("own_normalisation"):
            return self.measured
        if mean is not None and std is not None:
            return Normalisation(mean, std)
        return None if self.measured is None else Normalisation(mean or self.measured.mean, std or self.measured.std)

    @property
    def depending_parts(self) -> list[Part]:
        """The parts that depend on other runs, by their option `needs`; of other groups no part may."""
        groups: tuple[str, ...] = (*TRAINED_ON, "backbone", "method", *PART_GROUPS)
        if self.makes_no_classifier:
            groups = () if self.maker is None else (self.maker.group,)
        parts = [part for group in groups for part in self.of_group(group) if part.get("needs")]
        return [part for part in parts if part.get(part.declared.get("instead_of_needs", "")) is None]

    # Image sets.

    @property
    def other_training_sets(self) -> list[ImageSetPart]:
        """The sets that training reads besides the ID set."""
        return [part for part in (self.auxiliary, self.pictures) if part is not None]

    @property
    def makes_outlier_images(self) -> bool:
        """Whether the source of outliers makes images, and no points."""
        return self.synthesizer is not None and self.synthesizer.declared.get("space") == "images"

    @property
    def decodes_outliers(self) -> bool:
        """Whether its auxiliary images are decoded outliers of a latent space."""
        made = self.prerequisites.get("auxiliary.images")
        return made is not None and made.task.name == "decode"

    def use(self, role: str) -> ImageSetUse:
        """The set in the role "id", "auxiliary" or "pictures", or the OOD set of that name."""
        if role in ("id", *TRAINED_ON):
            return next(use for use in self.image_sets if use.role == role)
        return next(use for use in self.image_sets if use.role not in ("id", *TRAINED_ON) and use.name == role)

    @property
    def groups_of_sets(self) -> dict[str, str]:
        """The OOD sets that are scored, near ones first, each "near" or "far"."""
        return {use.name: use.role for use in self.image_sets if use.role in ("near", "far")}

    @property
    def ood_sets(self) -> tuple[str, ...]:
        """The names of the OOD sets that are scored, near ones first."""
        return tuple(self.groups_of_sets)

    # Detectors and metrics.

    @cached_property
    def detectors(self) -> dict[str, dict[str, Any]]:
        """The detectors asked for, see `ood_lab.config.detectors`."""
        nodes = {name: part.node for name, part in self.scorer.items()}
        return detectors(nodes, self.tuning.grids if self.tuning is not None else {}, self.protocol.validation)

    def convention(self, ood_set: str | None = None) -> str:
        """All that a measured number depends on besides the detector: which images, how prepared, how counted."""
        protocol = self.protocol
        parts = [f"id_val={protocol.id_val}"]
        if ood_set is not None:
            parts.append(f"transform={protocol.transforms.get(ood_set, protocol.transform)}")
            parts.append(f"subset={protocol.subset}x{protocol.draws}" if protocol.subset else "subset=none")
            parts.append(f"fpr_rule={protocol.fpr_rule} aupr_rule={protocol.aupr_rule}")
            parts.append(f"bootstrap={self.bootstrap}")
            targets = [str(use.node["_target_"]) for use in self.image_sets if use.name == ood_set]
            parts += [f"code={code}" for target in targets[-1:] if (code := code_digest(target)) is not None]
        parts.append(f"precision={self.trainer.eval_precision}")
        return " ".join(parts)

    def normalised(self, mean: Sequence[float], std: Sequence[float]) -> Experiment:
        """With measured constants of its training images."""
        return replace(self, measured=Normalisation(list(mean), list(std)))

    def with_threads(self, threads: int) -> Experiment:
        """With another number of threads."""
        return replace(self, trainer=replace(self.trainer, threads=threads))

    def with_prerequisites(self) -> Iterator[Experiment]:
        """Those that it depends on, each behind those that it depends on itself; then this one."""
        for below in self.prerequisites.values():
            yield from below.with_prerequisites()
        yield self


ROOT = ("seed", "id_rate", "bootstrap", "local_radius", "index", "benchmark")
SECTIONS: dict[str, type] = {
    "paths": Paths, "task": Task, "trainer": Trainer, "init": Init, "protocol": Protocol, "logger": Logger,
}  # fmt: skip
SINGLE = tuple(
    g for g in ("method", *PART_GROUPS, "backbone", "augmentation", *MAKERS.values()) if g not in LIST_GROUPS
)


def _plain(value: Any) -> Any:
    """A section, a part, or several parts as plain containers."""
    if isinstance(value, Part):
        return value.node
    if isinstance(value, dict):
        return {name: _plain(child) for name, child in value.items()}
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _section(kind: type[T], node: Mapping[str, Any]) -> T:
    """A section from its node; options that were added since it was stored have their defaults."""
    known = {option.name for option in fields(kind)}  # type: ignore[arg-type]
    return kind(**{key: value for key, value in node.items() if key in known})

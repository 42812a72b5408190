"""Checking a request: names first (with the nearest one), then types and ranges, then what must exist on disk."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ood_lab.config.annotation import accepts, describe
from ood_lab.config.compose import OPEN, Composed, compose
from ood_lab.config.experiment import Experiment
from ood_lab.config.groups import LIST_GROUPS, OPTIONAL, PART_GROUPS, ROLES, TRAINED_ON, groups, taken_names
from ood_lab.config.options import SECTIONS
from ood_lab.config.quoting import PATHS, check_utf8
from ood_lab.config.signature import Signature, signature
from ood_lab.config.suggest import nearest, options_like
from ood_lab.errors import RequestError
from ood_lab.plural import counted

# What stands for several files of a group (see `expand_all`).
EVERY = {"scorer": ["all"]}
# Groups of which a request may name none: a report needs no picture.
MAY_BE_EMPTY = ("figure", "regularizer")


def parse(overrides: Sequence[str]) -> list[Override]:
    """Hydra's override grammar; a line that is not `key=value` is named."""
    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        if "=" not in text and not text.startswith("~"):
            raise RequestError(f"{text!r} is not an override; expected key=value, for example method=hamos")
        try:
            parsed.append(parser.parse_override(text))
        except HydraException as error:
            raise RequestError(
                f"{text!r}: {' '.join(str(error).split())}. Quote what holds blanks, brackets or commas: key='a, b'"
            ) from None
    return parsed


def check_groups(overrides: Sequence[Override], folder: Path | None = None) -> None:
    """Every group choice must be a file; every other key's first part must be known."""
    known = groups(folder)
    for group, names in taken_names(folder).items():
        raise RequestError(
            f"{folder}/{group}/{names[0]}.yaml has the name of a built-in file, which is read instead; give it another"
        )
    for override in overrides:
        key = override.key_or_group
        if key.startswith("hydra"):
            continue
        if key not in known:
            first = key.split(".")[0]
            if first not in {*known, *SECTIONS, *signature("ood_lab.config.schema.Root").parameters}:
                raise RequestError(f"unknown option {key!r}.{_meant(key, first, known, folder)}")
            continue
        value = override.value()
        if override.is_delete() and key not in OPTIONAL:
            instead = f"write {key}=[]" if key in MAY_BE_EMPTY else f"a run needs a {key}"
            raise RequestError(f"~{key}: {instead}.{nearest(key, known[key])}")
        if isinstance(value, list) and key not in LIST_GROUPS:
            without = f"; to go without, {key}=null" if key in OPTIONAL else ""
            raise RequestError(f"{override.input_line}: {key} is one choice, without brackets{without}")
        if value == [] and key not in MAY_BE_EMPTY:
            raise RequestError(f"{key}=[]: name at least one.{nearest('', known[key])}")
        for choice in value if isinstance(value, list) else [value]:
            if choice is None and not override.is_delete() and key not in OPTIONAL:
                instead = f"write {key}=[]" if key in MAY_BE_EMPTY else f"a run needs a {key}"
                raise RequestError(f"{key}=null: {instead}.{nearest('', known[key])}")
            if choice is not None and str(choice) not in known[key]:
                meant = nearest(str(choice), [*known[key], *EVERY.get(key, [])], ROLES.get(key, key))
                if folder is None and not meant.startswith(" Did"):
                    meant += f" One of your own ({key}) needs --config-dir=FOLDER."
                raise RequestError(f"{key}={choice}: no such {key}.{meant}")


def _meant(key: str, first: str, known: Mapping[str, Sequence[str]], folder: Path | None) -> str:
    """What an option may have meant whose first part is neither a group nor a section."""
    values = compose([], folder=folder).whole
    exact, near = options_like(key, values, close=False), nearest(first, [*known, "seed", "paths"])
    return exact or (near if near.startswith(" Did") else options_like(key, values) or near)


def check_keys(overrides: Sequence[Override], base: Composed, folder: Path | None = None) -> None:
    """Every dotted key must exist in the configuration that the group choices give."""
    known = groups(folder)
    for override in overrides:
        key = override.key_or_group
        if key.endswith("._target_") and key != "method.optimizer._target_":
            raise RequestError(
                f"{key}: a class is chosen by its file, {key.split('.')[0]}=NAME; write such a file for an own class"
            )
        if key in known or key.startswith(("hydra", *OPEN)) or override.is_delete():
            continue
        node: Any = base.cfg
        walked: list[str] = []
        for part in key.split("."):
            names = [str(k) for k in node] if OmegaConf.is_dict(node) else []
            if part not in names:
                if not walked and part in known:
                    raise RequestError(f"{key}: no {part} is chosen; add {part}=NAME.{nearest('', known[part])}")
                where = ".".join(walked) or "the configuration"
                chosen = base.choices.get(walked[0]) if walked else None
                at = f" ({walked[0]}={chosen})" if chosen else ""
                options = [name for name in names if name != "_target_"]
                meant = nearest(part, options)
                if not meant.startswith(" Did") and part == key.rpartition(".")[2]:
                    meant = options_like(key, base.whole, close=False) or meant
                raise RequestError(f"unknown option {key!r}: {where}{at} has no {part!r}.{meant}")
            walked.append(part)
            try:
                node = node[part]
            except OmegaConfBaseException:
                node = None


def check_values(composed: Composed) -> None:
    """Types and ranges of every value, from the constructor its node names or from `schema`."""
    try:
        plain = composed.whole
    except OmegaConfBaseException as error:
        raise RequestError(" ".join(str(error).split())) from None
    check_paths(composed)
    for group in (*PART_GROUPS, *LIST_GROUPS):
        node = plain.get(group) or {}
        parts = node if group in LIST_GROUPS and isinstance(node, dict) and "_target_" not in node else {group: node}
        for name, options in parts.items():
            if not isinstance(options, dict):
                raise RequestError(f"{group}.{name}={options!r}: expected options, as in {group}.{name}.key=value")
        if group in LIST_GROUPS and "_target_" in node:
            raise RequestError(
                f"{group}: the file of {plain[group]['_target_']} must begin with '# @package {group}.NAME' (its own "
                f"name), since a request names several of {group}"
            )
    for group in (*PART_GROUPS, *TRAINED_ON):
        node = plain.get(group) or {}
        nodes = list(node.values()) if group in LIST_GROUPS else [node] if node else []
        if any("_target_" not in (options or {}) for options in nodes):
            raise RequestError(
                f"{group}: options are given, but no {group} is chosen; add {group}=NAME, or remove them"
            )
    for section, cls in SECTIONS.items():
        node = composed.plain(section) if section else plain
        spec = signature(f"ood_lab.config.schema.{cls}")
        if section == "":
            node = {k: v for k, v in plain.items() if k in spec.parameters}
        if isinstance(node, dict):
            _check_node(section, {str(k): v for k, v in node.items()}, spec)
    for key, node in plain.items():
        if key not in SECTIONS:
            _walk(str(key), node)
    if composed.plain("init.weights") is not None:
        _check_node("init.weights", composed.plain("init.weights"), signature("ood_lab.config.schema.Weights"))
    chains = signature("ood_lab.config.schema.Protocol").parameters["transform"]
    for name, chain in (composed.plain("protocol.transforms") or {}).items():
        if not accepts(chains, chain):
            raise RequestError(f"protocol.transforms.{name}={chain!r}: expected {describe(chains)}")


def _walk(path: str, node: Any) -> None:
    if not isinstance(node, dict):
        return
    if "_target_" in node:
        _check_node(path, {k: v for k, v in node.items() if k != "_target_"}, signature(node["_target_"]))
    for key, child in node.items():
        _walk(f"{path}.{key}", child)


def _check_node(path: str, node: dict[str, Any], spec: Signature) -> None:
    for key, value in node.items():
        name = f"{path}.{key}" if path else key
        if key not in spec.parameters:
            raise RequestError(f"unknown option {name!r}.{nearest(key, spec.parameters)}")
        if not accepts(spec.parameters[key], value):
            raise RequestError(f"{name}={value!r}: expected {describe(spec.parameters[key])}")
    absent = set(spec.parameters) - set(node) - spec.optional
    if absent:
        raise RequestError(f"{path or 'the configuration'} lacks {', '.join(sorted(absent))}")


def check_figures(experiment: Experiment) -> None:
    """What figures show of other runs and other settings: asked for before hours of training, not after."""
    synthesizer, id_set = experiment.synthesizer, experiment.dataset.name
    options = {} if synthesizer is None else synthesizer.options
    source = "null" if synthesizer is None else synthesizer.choice
    for name, figure in experiment.figure.items():
        if figure.get("keys") == []:
            raise RequestError(f"figure.{name}.keys=[]: expected names of curves, such as loss/total")
        for folder in figure.get("beside", ()):
            if not any((Path(folder) / "features").glob("test-*.safetensors")) or not _config_of(folder).is_file():
                raise RequestError(
                    f"figure.{name}.beside={folder}: not the folder of a finished run; expected outputs/<run id>"
                )
            other = OmegaConf.select(OmegaConf.load(_config_of(folder)), "dataset.name")
            if other != id_set:
                raise RequestError(
                    f"figure.{name}.beside={folder}: a run on dataset {other}, this one is on {id_set}; give runs on "
                    "the same ID set"
                )
        if figure.target.endswith(".Rounds") and "rounds" not in options:
            raise RequestError(
                f"figure={name} draws the rounds of chains, and synthesizer={source} has none; use hmc, mala, mmala, "
                "rmhmc or random_walk"
            )
        if figure.target.endswith(".DecodedOutliers") and not _has_decoder(experiment):
            raise RequestError(
                f"figure={name} draws decoded outliers, and this run trains on none; use it with method=bood, "
                "method=dreamood or auxiliary=decoded"
            )
        for option in ("leapfrog_steps", "step_size"):
            if figure.get(option) and option not in options:
                raise RequestError(
                    f"figure.{name}.{option}={figure.get(option)}: synthesizer={source} has no {option}; leave it out"
                )


def _has_decoder(experiment: Experiment) -> bool:
    """Whether the auxiliary images are those of `task=decode`; asked before the runs that are needed are composed."""
    auxiliary = experiment.auxiliary
    images = None if auxiliary is None else (auxiliary.get("needs") or {}).get("images")
    return images is not None and bool({"task=decode", "task.name=decode"} & set(images))


def _config_of(folder: str) -> Path:
    return Path(folder) / "config.yaml"


def check_layers(experiment: Experiment) -> None:
    """A learning rate that falls from layer to layer needs a network whose layers are told apart."""
    decay = experiment.method.options["optimizer"].get("layer_decay", 1)
    if decay != 1 and not experiment.backbone.declared.get("layered"):
        raise RequestError(
            f"optimizer.layer_decay={decay}: the layers of backbone={experiment.backbone.choice} are not told apart; "
            "use optimizer.layer_decay=1, a ResNet, or backbone=timm"
        )


def check_machine(experiment: Experiment) -> None:
    """What the experiment asks of this machine: a GPU where `trainer=gpu`, batches that its devices can share."""
    trainer = experiment.trainer
    if trainer.accelerator == "cpu" and trainer.precision == "16-mixed":
        raise RequestError("trainer.precision=16-mixed: float16 needs a GPU; use bf16-mixed or 32-true on the CPU")
    maker = experiment.maker
    if maker is not None and maker.get("precision") == "float16" and trainer.accelerator == "cpu":
        raise RequestError(
            f"{maker.path}.precision=float16 needs a GPU: trainer=gpu, or {maker.path}.precision=float32, which is slow"
        )
    if experiment.logger.name == "tensorboard" and find_spec("tensorboard") is None:
        raise RequestError("logger=tensorboard needs TensorBoard: pip install 'ood-lab[tensorboard]'")
    if trainer.accelerator == "gpu" and cuda_devices() == 0:
        raise RequestError(
            "trainer=gpu: no CUDA device is visible on this machine. "
            "Use trainer=cpu, or check the driver and CUDA_VISIBLE_DEVICES."
        )
    shared = ("batch_size",) if experiment.auxiliary is None else ("batch_size", "auxiliary_batch_size")
    for name in () if experiment.makes_no_classifier else shared:
        if getattr(trainer, name) % trainer.devices:
            raise RequestError(
                f"trainer.{name}={getattr(trainer, name)} is shared by trainer.devices={trainer.devices}; choose a "
                "multiple"
            )
    if trainer.accelerator == "gpu" and cuda_devices() < trainer.devices:
        raise RequestError(f"trainer.devices={trainer.devices}: this machine shows {counted(cuda_devices(), 'GPU')}")


def check_weights(experiment: Experiment) -> None:
    """The weights that a run starts from are part of its identity: they must be there."""
    init = experiment.init
    published = init.published()
    if published is not None and init.checkpoint is not None:
        raise RequestError(
            f"init.checkpoint={init.checkpoint} and init.weights.file={published.file}: two files to start from; give "
            "one (init.weights=null, or another init=)"
        )
    if published is not None and not Path(published.file).is_file():
        public = " task=data action=download gets what is public." if published.url else ""
        raise RequestError(
            f"init={experiment.choices['init']}: {published.file} is not there. {published.how_to_get}{public}"
        )
    if init.key is not None and published is None and init.checkpoint is None:
        raise RequestError(f"init.key={init.key} names a network in a file; give init.checkpoint=FILE, too")
    if init.checkpoint is not None and not Path(init.checkpoint).is_file():
        raise RequestError(f"init.checkpoint={init.checkpoint}: no such file")


def check_paths(composed: Composed) -> None:
    """Paths must be text: what is no UTF-8 can be neither printed nor stored."""
    for key in PATHS:
        value = composed.plain(key)
        if isinstance(value, str):
            check_utf8(value, key)


def check_output(output: Path) -> None:
    """The last check, since it makes the folder: a place to write."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        writable = os.access(output, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise RequestError(f"paths.output={output}: not a folder one can write to; choose another")


def cuda_devices() -> int:
    """CUDA devices that this process may use, asked of the driver: importing torch for it takes seconds."""
    try:
        driver = ctypes.CDLL("libcuda.so.1" if os.name == "posix" else "nvcuda.dll")
    except OSError:
        return 0
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value

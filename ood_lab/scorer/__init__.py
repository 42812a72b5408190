"""Post-hoc detectors, one file each: fitted on training features, they score any features; higher = more OOD."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ood_lab.scorer.base import Scorer


def build_scorer(name: str, *, config_dir: Path | None = None, **options: Any) -> Scorer:
    """A detector by name ("pood.<name>" for pytorch-ood's), with its configured defaults changed by `options`.

    Args:
        config_dir: a folder of YAML files of your own, where the detector is described there.

    Raises:
        RequestError: unknown name or option, or a value out of range.
    """
    from ood_lab.config.annotation import accepts, describe
    from ood_lab.config.check import check_groups, parse
    from ood_lab.config.compose import compose
    from ood_lab.config.detectors import as_declared
    from ood_lab.config.signature import signature
    from ood_lab.config.source import imported_class
    from ood_lab.config.suggest import nearest
    from ood_lab.errors import RequestError

    name, _, peer = name.partition(".")
    if peer:
        options = {"detectors": [peer], **options}
    check_groups(parse([f"scorer={name}"]), config_dir)
    if config_dir is None:
        node = compose(config_name=f"scorer/{name}").plain(f"scorer.{name}")
    else:  # Hydra looks for a primary configuration in its own folder alone
        node = compose([f"scorer=[{name}]"], folder=config_dir).plain(f"scorer.{name}")
    spec = signature(node["_target_"]).parameters
    for key, value in options.items():
        if key not in spec:
            raise RequestError(f"scorer {name} has no option {key!r}.{nearest(key, spec)}")
        if not accepts(spec[key], value):
            raise RequestError(f"scorer {name}: {key}={value!r}: expected {describe(spec[key])}")
    declared = as_declared({**node, **options})
    scorer: Scorer = imported_class(declared.pop("_target_"))(**declared)
    return scorer

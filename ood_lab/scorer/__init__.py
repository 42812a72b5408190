"""Post-hoc detectors, one file each: fitted on training features, they score any features; higher = more OOD."""

from __future__ import annotations

from typing import Any

from ood_lab.scorer.base import Scorer


def build_scorer(name: str, **options: Any) -> Scorer:
    """A detector by name ("pood.<name>" for pytorch-ood's), with its configured defaults changed by `options`.

    Raises:
        RequestError: unknown name or option, or a value out of range.
    """
    from hydra.utils import instantiate

    from ood_lab.config.check import check_groups, nearest, parse
    from ood_lab.config.compose import compose
    from ood_lab.config.scorers import as_declared
    from ood_lab.config.signature import accepts, describe, signature
    from ood_lab.errors import RequestError

    name, _, peer = name.partition(".")
    if peer:
        options = {"detectors": [peer], **options}
    check_groups(parse([f"scorer={name}"]))
    node = compose(config_name=f"scorer/{name}").plain(f"scorer.{name}")
    spec = signature(node["_target_"]).parameters
    for key, value in options.items():
        if key not in spec:
            raise RequestError(f"scorer {name} has no option {key!r}.{nearest(key, spec)}")
        if not accepts(spec[key], value):
            raise RequestError(f"scorer {name}: {key}={value!r}: expected {describe(spec[key])}")
    scorer: Scorer = instantiate(as_declared({**node, **options}), _convert_="all")
    return scorer

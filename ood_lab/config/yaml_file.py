"""YAML files, each parsed once as long as it stays as it is: a plan of tables asks for the same ones many times."""

from __future__ import annotations

from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, ten times as fast, where PyYAML has it


def read_yaml(path: Path) -> Any:
    """What a file holds, to be written into by whoever asked.

    Raises:
        YAMLError: it is no YAML.
    """
    about = path.stat()
    return deepcopy(_parsed(path, about.st_mtime_ns, about.st_size))


@lru_cache(maxsize=2048)
def _parsed(path: Path, _time: int, _size: int) -> Any:
    return yaml.load(path.read_text(), LOADER)

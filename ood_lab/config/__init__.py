"""Composing a request, checking it before torch is imported, and naming the run it stands for."""

from ood_lab.config.compose import Composed, compose
from ood_lab.config.groups import config_dir
from ood_lab.config.request import Request, prepare
from ood_lab.errors import OodLabError, RequestError, RunError

__all__ = [
    "Composed",
    "OodLabError",
    "Request",
    "RequestError",
    "RunError",
    "compose",
    "config_dir",
    "prepare",
]

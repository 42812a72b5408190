"""ood_lab: experiments on out-of-distribution detection with outlier synthesis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ood_lab.errors import OodLabError as OodLabError
from ood_lab.errors import RequestError as RequestError
from ood_lab.errors import RunError as RunError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from ood_lab.results.store import Results
    from ood_lab.task.detector import Detector

__version__ = "0.1.0"


def run(overrides: Sequence[str] = (), *, config_dir: str | Path | None = None, multirun: bool = False) -> Results:
    """Run one request, many, or tables, from Python: what `python -m ood_lab <overrides>` does.

    `run(["table=hamos_t17", "scale=tiny"])` gives a `TableResults`: besides the rows of all runs it has `cells()`.

    Args:
        overrides: as on the command line.
        config_dir: a folder of YAML files of your own, as `--config-dir`.
        multirun: make every combination of the values that the overrides name, as `-m`. The results depend on those of
            each run (`needed`), and `frame()` has the rows of all.

    Raises:
        RequestError: the request is wrong; nothing was started.
        RunError: the run stopped; what it had reported done stays valid.
    """
    from ood_lab.command import carry_out
    from ood_lab.config.groups import config_folder

    return carry_out(overrides, config_folder(config_dir), multirun)


def evaluate(train: Any, test: Any, ood: Mapping[str, Any], **options: Any) -> Results:
    """Every detector and metric for features that any network has given; see `ood_lab.task.given_features.evaluate`."""
    from ood_lab.task import given_features

    return given_features.evaluate(train, test, ood, **options)


def load_results(run: str | Path) -> Results:
    """The stored results of a finished run, by its folder, within a second; see `ood_lab.runs.stored_run`."""
    from ood_lab.runs import stored_run

    return stored_run.load_results(run)


def load_detector(
    run: str | Path,
    scorer: str = "knn",
    id_rate: float | None = None,
    config_dir: str | Path | None = None,
    **options: Any,
) -> Detector:
    """A finished run as a detector for new images, with a threshold; see `ood_lab.task.detector.load_detector`."""
    from ood_lab.task import detector

    return detector.load_detector(run, scorer, id_rate, config_dir, **options)

"""Any Hydra launcher as an engine: Ray, Slurm, or whatever else is installed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pkgutil import resolve_name
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from hydra.utils import get_original_cwd
from omegaconf import DictConfig

from ood_lab.config import RequestError
from ood_lab.config.check import cuda_devices
from ood_lab.config.groups import config_dir
from ood_lab.config.quoting import quote
from ood_lab.sweep.ticket import Ticket, carry_out

# The package that brings a launcher, where it is not Hydra's own.
PACKAGES = {
    "ray": "ood-lab[ray]",
    "ray_aws": "ood-lab[ray]",
    "submitit_slurm": "ood-lab[slurm]",
    "submitit_local": "ood-lab[slurm]",
    "joblib": "hydra-joblib-launcher",
    "rq": "hydra-rq-launcher",
}
# Where a launcher waits for its jobs, one after the other: the first that died would end the wait for the others.
WAITS = {
    "ray": ("ray", "get"),
    "submitit_slurm": ("submitit:Job", "results"),
    "submitit_local": ("submitit:Job", "results"),
}
RANKS = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS")
LAST_WORDS_SECONDS = 30


def job(cfg: DictConfig) -> None:
    """What a launcher calls in a process of its own choosing."""
    os.chdir(get_original_cwd())  # the user's paths may be relative
    if os.environ.get("SUBMITIT_EXECUTOR") != "slurm":
        for name in RANKS:  # srun started a Ray node, say: its number is no rank of a run
            os.environ.pop(name, None)
    rank = int(os.environ.get("SLURM_PROCID", 0))
    errors = carry_out(cfg.ticket, rank)
    if errors and int(os.environ.get("SLURM_NTASKS", 1)) > 1:
        if rank > 0:
            time.sleep(LAST_WORDS_SECONDS)  # the first may have met the same and be about to write it down
        sys.exit(1)  # the others wait for this one; srun ends them now


class Launcher:
    """A Hydra launcher; what it gives back is not relied on: the tickets' outcomes are.

    Args:
        name: of the launcher, as in hydra/launcher=name.
        words: overrides of its options (hydra.launcher.x=y).
        output: folder for what the launcher writes.

    Raises:
        RequestError: the launcher is not installed, or refuses its options.
    """

    number = 1  # how many jobs a cluster takes at a time is not known; estimates are for one

    def __init__(self, name: str, words: Sequence[str], output: str) -> None:
        self.name = name
        known = _launchers()
        if name not in known:
            package = PACKAGES.get(name)
            how = f"pip install '{package}'" if package else f"choose from {', '.join(sorted(known))}"
            raise RequestError(f"hydra/launcher={name}: this launcher is not installed; {how}")
        self._words = [
            f"hydra/launcher={name}",
            *_defaults(name),
            *map(_forced, words),
            f"hydra.sweep.dir={quote(output)}",
        ]
        with self._composed() as (_, config):
            self.tasks: int = config.hydra.launcher.get("tasks_per_node", 1)

    def launch(self, tickets: Sequence[Ticket]) -> None:
        """Hand over all tickets and wait for them; what a launcher has to say about one that died is shown.

        Raises:
            RequestError: the launcher can't start anything here.
        """
        with self._composed() as (context, config), _patience(self.name) as said:
            launcher: Any = Plugins.instance().instantiate_launcher(
                hydra_context=context, task_function=job, config=config
            )
            jobs = [[f"ticket={quote(ticket.path)}"] for ticket in tickets]
            try:
                returned = launcher.launch(jobs, initial_job_idx=0)
                said += [_text(one._return_value) for one in returned if _failed(one)]
            except Exception as error:  # of any kind: it may be about one job, which the outcomes show
                if self.name in WAITS:
                    raise RequestError(f"hydra/launcher={self.name}: {_text(error)}") from None
                said.append(_text(error))
        if any(ticket.errors is None for ticket in tickets):
            for text in dict.fromkeys(said):
                print(f"hydra/launcher={self.name}: {text}", file=sys.stderr)

    @contextmanager
    def _composed(self) -> Iterator[tuple[HydraContext, DictConfig]]:
        """The launcher's configuration, while Hydra is set up for it and not for whoever called."""
        state = GlobalHydra.instance()
        outer, state.hydra = state.hydra, None
        try:
            with initialize_config_dir(str(config_dir()), version_base="1.3"):
                loader = GlobalHydra.instance().config_loader()
                try:
                    config = loader.load_configuration("sweep", list(self._words), run_mode=RunMode.MULTIRUN)
                except HydraException as error:
                    raise RequestError(f"hydra/launcher={self.name}: {' '.join(str(error).split())}") from None
                yield HydraContext(config_loader=loader, callbacks=Callbacks(config)), config
        finally:
            state.hydra = outer


def _launchers() -> list[str]:
    Plugins.instance()  # the first call imports every installed launcher, which registers itself
    stored = ConfigStore.instance().repo.get("hydra", {}).get("launcher", {})
    return [name.removesuffix(".yaml") for name in stored]


def _defaults(name: str) -> list[str]:
    """Options that differ from the launcher's own; the user's come after them."""
    if name == "ray":
        return [
            # Ray waits for ever for a GPU that does not exist.
            f"+hydra.launcher.ray.remote.num_gpus={1 if cuda_devices() else 0}",
            "+hydra.launcher.ray.remote.max_retries=0",  # the sweep repeats what died
            "+hydra.launcher.ray.init.log_to_driver=false",
            # The launcher's own number would keep it from joining a Ray that runs already.
            "+hydra.launcher.ray.init.object_store_memory=null",
        ]
    if name == "submitit_slurm":
        return ["+hydra.launcher.srun_args=['--kill-on-bad-exit=1']"]
    return []


def _forced(word: str) -> str:
    """Ray's options are not in its launcher's configuration: nobody should have to know which need a plus."""
    return f"++{word.lstrip('+')}" if word.lstrip("+").startswith("hydra.launcher.ray.") else word


@contextmanager
def _patience(name: str) -> Iterator[list[str]]:
    """Have a launcher wait for the other jobs when one died; gives what was said of those."""
    said: list[str] = []
    if name not in WAITS:
        yield said
        return
    place, method = WAITS[name]
    owner = resolve_name(place)
    wait = getattr(owner, method)

    def patient(*args: Any, **kwargs: Any) -> Any:
        try:
            return wait(*args, **kwargs)
        except Exception as error:  # of any kind; it is shown
            said.append(_text(error))
            return [None]

    setattr(owner, method, patient)
    try:
        yield said
    finally:
        setattr(owner, method, wait)


def _failed(returned: Any) -> bool:
    return isinstance(returned, JobReturn) and returned.status is JobStatus.FAILED


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"

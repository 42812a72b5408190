"""Engines by the names of Hydra's launchers: Ray and submitit (Slurm) directly, any other launcher through Hydra."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
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
from omegaconf import DictConfig, OmegaConf

from ood_lab.config.check import cuda_devices
from ood_lab.config.groups import config_dir
from ood_lab.config.quoting import quote
from ood_lab.errors import RequestError
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
# Options of submitit that every cluster knows; the others are named with the cluster before them.
SHARED_OPTIONS = (
    "nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node", "mem_gb", "timeout_min", "name", "stderr_to_stdout",
)  # fmt: skip
RANKS = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS")
ERRORS_WRITTEN_SECONDS = 30


def job(path: str, folder: str) -> None:
    """What an engine calls in a process of its own choosing.

    Args:
        path: of the ticket.
        folder: where the sweep was started: the user's paths may be relative.
    """
    os.chdir(folder)
    if os.environ.get("SUBMITIT_EXECUTOR") != "slurm":
        for name in RANKS:  # srun started a Ray node, say: its number is no rank of a run
            os.environ.pop(name, None)
    rank = int(os.environ.get("SLURM_PROCID", 0))
    errors = carry_out(path, rank)
    if errors and int(os.environ.get("SLURM_NTASKS", 1)) > 1:
        if rank > 0:
            time.sleep(ERRORS_WRITTEN_SECONDS)  # the first may have met the same and be about to write it down
        sys.exit(1)  # the others wait for this one; srun ends them now


def _hydra_job(cfg: DictConfig) -> None:
    job(cfg.ticket, get_original_cwd())


class Launcher:
    """An engine that a Hydra launcher names; what it gives back is not relied on: the tickets' outcomes are.

    Args:
        name: of the launcher, as in hydra/launcher=name.
        overrides: of its options (hydra.launcher.x=y).
        output: folder for what the launcher writes.

    Raises:
        RequestError: the launcher is not installed, or refuses its options.
    """

    number = 1  # how many jobs a cluster takes at a time is not known; estimates are for one

    def __init__(self, name: str, overrides: Sequence[str], output: str) -> None:
        self.name = name
        known = _launchers()
        if name not in known:
            package = PACKAGES.get(name)
            how = f"pip install '{package}'" if package else f"choose from {', '.join(sorted(known))}"
            raise RequestError(f"hydra/launcher={name}: this launcher is not installed; {how}")
        self._overrides = [
            f"hydra/launcher={name}",
            *_defaults(name),
            *map(_forced, overrides),
            f"hydra.sweep.dir={quote(output)}",
        ]
        with self._composed() as (_, config):
            self.tasks: int = config.hydra.launcher.get("tasks_per_node", 1)

    def launch(self, tickets: Sequence[Ticket]) -> None:
        """Hand over all tickets and wait for them; what is known of one that died is shown.

        Raises:
            RequestError: the engine can't start anything here.
        """
        with self._composed() as (context, config):
            options = config.hydra.launcher
            try:
                if self.name == "ray":
                    told = _on_ray(tickets, _plain(options.ray.init), _plain(options.ray.remote))
                elif self.name in ("submitit_slurm", "submitit_local"):
                    told = _on_submitit(tickets, self.name.removeprefix("submitit_"), _plain(options))
                else:
                    told = _on_hydra(tickets, context, config)
            except Exception as error:  # whatever its library raises where nothing could be started
                raise RequestError(f"hydra/launcher={self.name}: {_text(error)}") from None
        if any(ticket.errors is None for ticket in tickets):
            for text in dict.fromkeys(told):
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
                    config = loader.load_configuration("sweep", list(self._overrides), run_mode=RunMode.MULTIRUN)
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
        ]
    if name == "submitit_slurm":
        return ["+hydra.launcher.srun_args=['--kill-on-bad-exit=1']"]
    return []


def _forced(override: str) -> str:
    """Ray's options are not in its launcher's configuration: nobody should have to know which need a plus."""
    return f"++{override.lstrip('+')}" if override.lstrip("+").startswith("hydra.launcher.ray.") else override


def _on_ray(tickets: Sequence[Ticket], init: dict[str, Any], remote: dict[str, Any]) -> list[str]:
    """Carry out tickets as Ray tasks; gives what is known of those that died."""
    import ray

    if not ray.is_initialized():
        ray.init(**init)
    call = (ray.remote(**remote) if remote else ray.remote)(job)
    return _waited([partial(ray.get, call.remote(ticket.path, str(Path.cwd()))) for ticket in tickets])


def _on_submitit(tickets: Sequence[Ticket], cluster: str, options: dict[str, Any]) -> list[str]:
    """Carry out tickets as jobs of submitit; gives what is known of those that died."""
    import submitit

    options.pop("_target_", None)
    timeouts = {f"{cluster}_{k}": options.pop(k) for k in ("max_num_timeout",) if k in options}
    executor = submitit.AutoExecutor(cluster=cluster, folder=options.pop("submitit_folder"), **timeouts)
    own = [name for name in options if name not in SHARED_OPTIONS]
    executor.update_parameters(**{f"{cluster}_{k}" if k in own else k: v for k, v in options.items()})
    jobs = executor.map_array(job, [ticket.path for ticket in tickets], [str(Path.cwd())] * len(tickets))
    return _waited([one.results for one in jobs])


def _on_hydra(tickets: Sequence[Ticket], context: HydraContext, config: DictConfig) -> list[str]:
    """Carry out tickets through a launcher; gives what it says of those that failed."""
    launcher: Any = Plugins.instance().instantiate_launcher(
        hydra_context=context, task_function=_hydra_job, config=config
    )
    jobs = [[f"ticket={quote(ticket.path)}"] for ticket in tickets]
    try:
        return [_text(one._return_value) for one in launcher.launch(jobs, initial_job_idx=0) if _failed(one)]
    except Exception as error:  # of any kind: it may be about one job, which the outcomes show
        return [_text(error)]


def _waited(waits: Sequence[Callable[[], Any]]) -> list[str]:
    """Wait for every job, also behind one that died; gives what was raised."""
    told = []
    for wait in waits:
        try:
            wait()
        except Exception as error:  # of any kind; it is shown
            told.append(_text(error))
    return told


def _plain(options: DictConfig) -> dict[str, Any]:
    found = OmegaConf.to_container(options, resolve=True)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def _failed(returned: Any) -> bool:
    return isinstance(returned, JobReturn) and returned.status is JobStatus.FAILED


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"

"""Runs made by Ray, submitit and a real Slurm of one node are those made by this machine's workers, bit for bit."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ood_lab.config import RequestError
from ood_lab.results.store import KEY, Row, read_rows
from ood_lab.runs.run_folder import RunFolder
from ood_lab.sweep import launcher as launchers
from ood_lab.sweep.launcher import Launcher
from ood_lab.sweep.ticket import LOG
from tests.sweep import small_table

pytestmark = pytest.mark.engines

SMALL = (
    "method=ce",
    "backbone.width=4",
    "trainer.max_epochs=1",
    "trainer.threads=1",
    "dataset.recipe.bank_size=20",
    "dataset.recipe.neighbor=5",
    "figure=[roc]",
    "scorer=[msp,knn]",
)
RAY = ("hydra/launcher=ray", "hydra.launcher.ray.init.address=local", "hydra.launcher.ray.init.num_cpus=2")
TOGETHER = ("trainer.devices=2", "hydra/launcher=submitit_slurm", "hydra.launcher.tasks_per_node=2")
DAEMONS = ("munged", "slurmctld", "slurmd")
CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP
"""
# submitit asks the accounting how its jobs are, and this Slurm has none: what the queue remembers, as sacct says it.
SACCT = """\
#!/bin/sh
echo 'JobID|State|NodeList'
squeue --noheader --states=all --format='%i|%T|%N'
"""
LARGEST_SOCKET_PATH = 107


def started(output: Path, *overrides: str) -> subprocess.Popen[str]:
    """A sweep that has begun."""
    command = [sys.executable, "-m", "ood_lab", "-m", *SMALL, f"paths.output='{output}'", *overrides]
    env = {k: v for k, v in os.environ.items() if not k.startswith("OOD_LAB")} | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(sweep: subprocess.Popen[str]) -> str:
    """What a sweep that must succeed printed."""
    out, errors = sweep.communicate(timeout=240)
    assert sweep.returncode == 0, (out + errors)[-5000:]
    return out


def rows(output: Path) -> dict[tuple[object, ...], Row]:
    """All that the runs measured, by what was measured, without when and on what."""
    found = [row for run in sorted(output.glob("ce-*")) for row in read_rows(run)]
    return {tuple(row[k] for k in KEY): {k: row[k] for k in ("value", "n_id", "n_ood", "features")} for row in found}


def begun(output: Path) -> list[int]:
    """How often each run was begun, by seed."""
    return [(run / LOG).read_text().count("python -m ood_lab") for run in sorted(output.glob("ce-*"))]


def kill_first(output: Path, sweep: subprocess.Popen[str]) -> None:
    """Kill the process that makes the run of seed 0, as the system does when memory runs out."""
    while sweep.poll() is None:
        for holder in output.glob("ce-*-s0-*/.holder"):
            if text := holder.read_text():
                os.kill(int(text), signal.SIGKILL)
                return
        time.sleep(0.01)
    pytest.fail(f"the sweep ended before its job began: {sweep.communicate()}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[object, ...], Row]:
    """The rows of seeds 0 to 2, made by this machine's workers."""
    output = tmp_path_factory.mktemp("workers")
    ended(started(output, "seed=0,1,2", "workers=2"))
    found = rows(output)
    assert len({key[0] for key in found}) == 3
    return found


@pytest.fixture(scope="module")
def slurm() -> Iterator[None]:
    """A Slurm of this one node, as the environment of everything that is started."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    missing = [name for name in (*DAEMONS, "sbatch", "srun") if shutil.which(name, path=path) is None]
    if missing:
        pytest.fail(f"{', '.join(missing)} not found; Debian's packages are munge slurmctld slurmd slurm-client")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    assert len(str(folder / "munge.socket")) <= LARGEST_SOCKET_PATH
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    (folder / "bin" / "sacct").write_text(SACCT)
    (folder / "bin" / "sacct").chmod(0o755)
    conf = folder / "slurm.conf"
    conf.write_text(
        CONF.format(
            host=socket.gethostname().partition(".")[0],
            folder=folder,
            user=getpass.getuser(),
            cpus=os.cpu_count(),
            controller=free_port(),
            daemon=free_port(),
        )
    )
    before = dict(os.environ)
    os.environ["PATH"] = f"{folder / 'bin'}{os.pathsep}{path}"
    os.environ["SLURM_CONF"] = str(conf)
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    munged = ["munged", "--foreground", *(f"--{option}={folder}/munge.{end}" for option, end in files.items())]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for command in (munged, ["slurmctld", "-D", "-c"], ["slurmd", "-D", "-c"]):
            with (folder / f"{command[0]}.out").open("wb") as out:
                processes.append(subprocess.Popen(command, stdout=out, stderr=out))
            time.sleep(0.5)
        limit = time.monotonic() + 30
        while b"idle" not in subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, check=False).stdout:
            if time.monotonic() > limit or any(process.poll() is not None for process in processes):
                said = [file.read_text()[-800:] for file in sorted(folder.glob("*.out"))]
                pytest.fail("Slurm does not start: " + "\n".join(said))
            time.sleep(0.2)
        yield
        subprocess.run(["scancel", "--user", getpass.getuser()], check=False)
    finally:
        for process in reversed(processes):
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("engine", [RAY, ("hydra/launcher=submitit_local",)], ids=["ray", "submitit_local"])
def test_a_local_engine_makes_the_same_runs_and_again_only_what_died(
    engine: tuple[str, ...], expected: dict[tuple[object, ...], Row], tmp_path: Path
) -> None:
    output = tmp_path / "a folder, with (overrides)"
    sweep = started(output, "seed=0,1,2", *engine)
    kill_first(output, sweep)
    printed = ended(sweep)
    assert rows(output) == expected
    assert begun(output) == [2, 1, 1]
    assert "report:" not in printed, "what a job prints belongs into its log"


SHARED = (
    "method=oe", "init=random", "backbone.width=4", "trainer.max_epochs=1", "trainer.threads=1", "scorer=[msp]",
    "figure=[]", "auxiliary=synthesized",
    "auxiliary.needs.images=[task=synthesize,producer=fractals,producer.count=100,producer.shard_items=50]",
)  # fmt: skip


@pytest.mark.parametrize("engine", [RAY, ("hydra/launcher=submitit_local",)], ids=["ray", "submitit"])
def test_runs_that_share_a_prerequisite_make_it_once(engine: tuple[str, ...], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ood_lab", "-m", *SHARED, "seed=0,1", f"paths.output={tmp_path}", *engine]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (log,) = tmp_path.glob(f"fractals-*/{LOG}")
    assert log.read_text().count("python -m ood_lab") == 1
    assert len(list(tmp_path.glob("oe-*/DONE"))) == 2


@pytest.mark.usefixtures("slurm")
def test_slurm_makes_the_same_runs_and_again_only_what_died(
    expected: dict[tuple[object, ...], Row], tmp_path: Path
) -> None:
    sweep = started(tmp_path, "seed=0,1,2", "hydra/launcher=submitit_slurm")
    kill_first(tmp_path, sweep)
    ended(sweep)
    assert rows(tmp_path) == expected
    assert begun(tmp_path) == [2, 1, 1]
    assert list(tmp_path.glob(".sweep/.submitit/*/*_log.out"))


@pytest.mark.usefixtures("slurm")
def test_srun_starts_two_processes_that_train_one_run(expected: dict[tuple[object, ...], Row], tmp_path: Path) -> None:
    printed = ended(started(tmp_path, "seed=0", *TOGETHER))
    (run,) = tmp_path.glob("ce-*")
    assert (RunFolder(run).weights).is_file()
    assert (run / "DONE").is_file()
    assert "on 2 devices" in (run / LOG).read_text()
    assert "ID accuracy" in (run / LOG).read_text()
    assert "ID accuracy" not in (run / f"{LOG}.rank1").read_text()
    assert "knn" in printed
    of_one_device = {key: row for key, row in expected.items() if key[0] == run.name}
    assert rows(tmp_path).keys() == of_one_device.keys()
    assert rows(tmp_path) != of_one_device, "batch norm sees half a batch on each"

    # Trained but not scored: the second process must not wait for a training that will not be.
    (run / "DONE").unlink()
    (run / "results.jsonl").unlink()
    ended(started(tmp_path, "seed=0", *TOGETHER))
    assert rows(tmp_path).keys() == of_one_device.keys()


@pytest.mark.usefixtures("slurm")
def test_what_stops_a_run_of_two_processes_is_told(tmp_path: Path) -> None:
    sweep = started(tmp_path, "seed=0", "method.optimizer.lr=1e30", *TOGETHER)
    _, errors = sweep.communicate(timeout=240)
    assert sweep.returncode == 1
    assert "its process died" not in errors
    assert "1 of 1 runs failed" in errors


@pytest.mark.parametrize(
    "overrides",
    [("trainer.devices=2", "hydra/launcher=submitit_slurm"), ("hydra/launcher=submitit_slurm", TOGETHER[-1])],
    ids=["too few", "too many"],
)
def test_as_many_processes_as_devices_or_nothing_starts(overrides: tuple[str, ...], tmp_path: Path) -> None:
    sweep = started(tmp_path, "seed=0,1", *overrides)
    _, errors = sweep.communicate(timeout=60)
    assert sweep.returncode == 2
    assert "tasks_per_node" in errors
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("devices", "gpus"), [(0, 0), (4, 1)])
def test_a_ray_job_takes_a_gpu_where_there_are_any_unless_told(
    devices: int, gpus: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(launchers, "cuda_devices", lambda: devices)
    told = "hydra.launcher.ray.remote.num_gpus=0.5"
    for overrides, number in (([], gpus), ([told], 0.5), ([f"+{told}"], 0.5)):
        with Launcher("ray", overrides, str(tmp_path))._composed() as (_, config):
            assert config.hydra.launcher.ray.remote.num_gpus == number


def test_a_launcher_refuses_a_wrong_option_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="nonsense"):
        Launcher("submitit_slurm", ["hydra.launcher.nonsense=1"], str(tmp_path))


def test_a_launcher_that_is_not_installed_names_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(launchers, "_launchers", lambda: ["basic"])
    with pytest.raises(RequestError, match=r"pip install 'ood-lab\[ray\]'"):
        Launcher("ray", [], str(tmp_path))


@pytest.fixture(scope="module")
def table_of_workers(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The table of three methods, made by this machine's workers."""
    return made_table(tmp_path_factory.mktemp("table"), "workers=2")


def made_table(folder: Path, *overrides: str) -> str:
    """Make the table and give it as CSV."""
    assert small_table.start(folder, folder / "out", *overrides).wait() == 0
    return small_table.table_of(folder / "out")


@pytest.mark.parametrize("overrides", [RAY, ("hydra/launcher=basic",)], ids=["ray", "basic"])
def test_a_table_is_the_same_on_every_engine(overrides: tuple[str, ...], table_of_workers: str, tmp_path: Path) -> None:
    assert made_table(tmp_path, *overrides) == table_of_workers


@pytest.mark.usefixtures("slurm")
def test_a_table_is_the_same_on_slurm(table_of_workers: str, tmp_path: Path) -> None:
    assert made_table(tmp_path, "hydra/launcher=submitit_slurm") == table_of_workers

"""What a command line of many runs asks: tables or a grid, on which engine; planned, made, and shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ood_lab.config.check import cuda_devices
from ood_lab.config.experiment import Experiment
from ood_lab.config.suggest import nearest
from ood_lab.errors import RequestError
from ood_lab.files.storage import write_atomically
from ood_lab.plural import counted
from ood_lab.progress import stdout
from ood_lab.results.store import Results, read_rows
from ood_lab.sweep.estimate import estimate
from ood_lab.sweep.sweep import Engine, sweep
from ood_lab.sweep.workers import Workers
from ood_lab.tables.adapt import adapt, load_scale
from ood_lab.tables.cells import Filled, fill
from ood_lab.tables.curves import draw
from ood_lab.tables.layout import short
from ood_lab.tables.plan import Plan, plan
from ood_lab.tables.render import CSV_COLUMNS, terminal, tidy, written
from ood_lab.tables.spec import Table, load_table, table_names

if TYPE_CHECKING:
    import pandas as pd

ABOUT_MANY = ("table", "scale", "dry_run", "workers")


@dataclass(frozen=True)
class Command:
    """The overrides of a command line that are about many runs, and the rest, which are about each of them.

    Args:
        tables: names, empty for a grid (-m).
        workers: processes on this machine; None for one, or one a GPU.
        launcher: a Hydra launcher; None for this machine's workers.
        launcher_options: its options.
        overrides: overrides of each run.
    """

    tables: tuple[str, ...] = ()
    scale: str = "full"
    dry_run: bool = False
    workers: int | None = None
    launcher: str | None = None
    launcher_options: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()

    @property
    def here(self) -> bool:
        """Whether the runs are made on this machine; another launcher's machines may have what this one lacks."""
        return self.launcher in (None, "basic", "submitit_local")


@dataclass(repr=False)
class TableResults(Results):
    """What a command about tables gives back: it depends on all of their runs."""

    tables: list[Filled] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"TableResults({self.run_id!r}, {counted(len(self.needed), 'run')}; cells() has the numbers)"

    def cells(self) -> pd.DataFrame:
        """One line a cell: ours, the paper's, the difference."""
        import pandas as pd

        return pd.DataFrame([line for one in self.tables for line in tidy(one)], columns=list(CSV_COLUMNS))


def read_command(overrides: Sequence[str], multirun: bool = False) -> Command:
    """Sort the overrides of a command, with -m or without.

    Raises:
        RequestError: a value that an override does not take, or overrides that do not go together.
    """
    found: dict[str, Any] = {}
    of_runs, launcher_options = [], []
    for text in overrides:
        key, _, value = text.partition("=")
        if key == "table":
            found["tables"] = tuple(dict.fromkeys(name for name in value.strip("[]").split(",") if name))
            if not found["tables"]:
                raise RequestError(f"{text}: name at least one table.{nearest('', table_names())}")
        elif key == "dry_run":
            if value not in ("true", "false"):
                raise RequestError(f"{text}: expected true or false")
            found[key] = value == "true"
        elif key == "workers":
            if not value.isdigit() or int(value) == 0:
                raise RequestError(f"{text}: expected a number of processes, for example workers=2")
            found[key] = int(value)
        elif key == "scale":
            found[key] = value
        elif key == "hydra/launcher":
            found["launcher"] = value
        elif key.lstrip("+~").startswith("hydra.launcher."):
            launcher_options.append(text)
        else:
            of_runs.append(text)
    if found.get("launcher") and "workers" in found:
        raise RequestError("workers= is about this machine's own processes; a launcher has options of its own")
    if launcher_options and "launcher" not in found:
        raise RequestError(f"{launcher_options[0]} is an option of a launcher; name it with hydra/launcher=")
    if multirun and "tables" in found:
        raise RequestError("-m and table= are two kinds of sweep; a table has its own rows and seeds")
    if "scale" in found and "tables" not in found:
        raise RequestError(f"scale={found['scale']} is about tables; add table=name, or name a smaller dataset=digits")
    if set(found) - {"tables", "dry_run"} and not multirun and "tables" not in found:
        override = next(key for key in found if key != "dry_run").replace("launcher", "hydra/launcher")
        raise RequestError(f"{override}= is about many runs; add -m and several values, or table=name")
    return Command(**found, launcher_options=tuple(launcher_options), overrides=tuple(of_runs))


def engine_for(command: Command, experiments: Sequence[Experiment], output: Path) -> Engine:
    """Where the runs are made.

    Raises:
        RequestError: the launcher is not installed, or a run wants several devices where they can't be had.
    """
    for experiment in experiments:
        devices = experiment.trainer.devices
        if devices > 1 and command.launcher != "submitit_slurm":
            raise RequestError(
                f"trainer.devices={devices} in a sweep: the processes that train together would each start the whole "
                "sweep again. Run such requests one by one, or with hydra/launcher=submitit_slurm and "
                f"hydra.launcher.tasks_per_node={devices}, where srun starts them."
            )
    if command.launcher is not None:
        from ood_lab.sweep.launcher import Launcher

        launcher = Launcher(command.launcher, command.launcher_options, str(output / ".sweep"))
        for experiment in experiments:
            devices = experiment.trainer.devices
            if devices != launcher.tasks:
                raise RequestError(
                    f"trainer.devices={devices} needs hydra.launcher.tasks_per_node={devices}, not {launcher.tasks}: "
                    "the launcher starts one process for each device"
                )
        return launcher
    gpus = cuda_devices() if any(r.trainer.accelerator == "gpu" for r in experiments) else 0
    return Workers(command.workers or max(1, gpus), gpus)


def run_tables(command: Command, folder: Path | None = None) -> TableResults:
    """Make what is missing of the tables and show them, ours beside the paper's; files go to outputs/tables.

    Raises:
        RequestError: an unknown table; nothing of the tables can be run here.
        RunError: some runs failed; the rest is made and shown.
    """
    scale = load_scale(command.scale, folder)
    overrides = command.overrides
    if "logger=wandb" in overrides and not any(text.startswith("logger.group=") for text in overrides):
        overrides = (*overrides, f"logger.group={'+'.join(command.tables)}")
    tables = [adapt(load_table(name, folder), scale, overrides, folder) for name in command.tables]
    settings = [table for table in tables if table.kind == "config"]  # these are composed, not run
    measured = [table for table in tables if table not in settings]
    planned, composed = plan(measured, folder, machine=command.here), plan(settings, folder, look=False)
    output = next((r.run_dir.parent for r in (*planned.runs, *composed.runs)), Path())
    engine = engine_for(command, planned.runs, output)
    if measured:
        _show_plan(measured, planned, engine.number)
    results = TableResults(",".join(command.tables), output / "tables", [])
    if not planned.runs and not composed.runs:
        raise RequestError(
            f"no row can be run here. {next(iter((planned.unavailable | composed.unavailable).values()))}"
        )
    if command.dry_run:
        return results
    failures = sweep(planned.runs, engine, output)
    results.tables = [fill(table, composed if table in settings else planned) for table in tables]
    for one in results.tables:
        stdout.print()
        stdout.print(terminal(one, stdout.width), highlight=False)
    for name, text in written(results.tables).items():
        write_atomically(results.run_dir / name, text.encode())
    drawn = _draw(results)
    pictures = f"; as lines: {', '.join(drawn)}" if drawn else ""
    stdout.print(f"\nas Markdown, LaTeX and CSV: {results.run_dir}{pictures}", highlight=False, markup=False)
    failures.complain()
    runs = {r.run_id: r.run_dir for r in planned.runs}
    results.needed = [Results(run_id, run_dir, read_rows(run_dir)) for run_id, run_dir in runs.items()]
    return results


def _draw(results: TableResults) -> list[str]:
    """Write tables of one setting as lines, too; gives the names of the pictures."""
    names = []
    for one in results.tables:
        figure = draw(one)
        if figure is None:
            continue
        from ood_lab.figure.base import files_of  # matplotlib, which only pictures need

        for end, content in files_of(figure).items():
            write_atomically(results.run_dir / f"{one.table.stem}.lines.{end}", content)
        names.append(f"{one.table.stem}.lines.png")
    return names


def _show_plan(tables: Sequence[Table], planned: Plan, workers: int) -> None:
    reasons = {(place.table, place.row): short(reason) for place, reason in planned.unavailable.items()}
    unavailable = Counter(reasons.values())
    names = ", ".join(table.id for table in tables)
    counts = f"{counted(len(planned.run_ids), 'run')}, {len(planned.done)} done. {estimate(planned.runs, workers)}"
    stdout.print(
        f"{names}: {counts if planned.runs else 'none of its runs can be made here'}", highlight=False, markup=False
    )
    for reason, count in unavailable.most_common():
        stdout.print(f"  not available, {count} row{'s' if count > 1 else ''}: {reason}", highlight=False, markup=False)

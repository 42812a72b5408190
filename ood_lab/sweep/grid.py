"""`-m`: every combination of values, on any engine, and one summary grouped by what varied."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from statistics import fmean, pstdev

from rich import box
from rich.table import Table
from rich.text import Text

from ood_lab.config.experiment import Experiment
from ood_lab.config.groups import TRAINED_ON
from ood_lab.config.prepare import expand_sweep, on_disk, prepare
from ood_lab.errors import RequestError
from ood_lab.plural import counted
from ood_lab.progress import stdout
from ood_lab.results.caption import image_lines, metric_lines, outlier_lines
from ood_lab.results.search import validation_auroc
from ood_lab.results.store import Results, read_rows, remember_asked
from ood_lab.results.table import Line, Selection, lines
from ood_lab.sweep.command import Command, engine_for
from ood_lab.sweep.estimate import estimate, state
from ood_lab.sweep.plot import draw_sweep
from ood_lab.sweep.sweep import sweep
from ood_lab.tables.spec import key_of

COLUMNS = {
    ("near", "auroc"): "AUROC ↑\nnear",
    ("far", "auroc"): "\nfar",
    ("all", "fpr95_ood_pos"): "FPR95 ↓\nOOD+",
    ("all", "fpr95_id_pos"): "\nID+",
}


@dataclass(frozen=True)
class Setting:
    """Runs that differ in their seeds only.

    Args:
        experiment: one of them.
        varied: what did, as written.
        of_scorer: their lines by detector.
        validated: by detector the AUROC on validation data, where there is one.
        remarks: what must be said of their training.
    """

    experiment: Experiment
    varied: Mapping[str, str]
    of_scorer: dict[str, list[Line]]
    validated: dict[str, list[float]]
    remarks: dict[str, None] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What varied, as one text; nothing where only the seed did."""
        return ", ".join(f"{name}={value}" for name, value in self.varied.items())


def run_grid(command: Command, folder: Path | None = None) -> list[Results]:
    """Make every combination and show the summary.

    Raises:
        RequestError: a combination that can't be run; nothing was started.
        RunError: some runs failed; the rest is made and shown.
    """
    singles = list(expand_sweep(command.overrides, folder))
    experiments = [on_disk(prepare(single, folder, look=False), command.here) for single in singles]
    _check_apart(experiments)
    output = experiments[0].run_dir.parent
    engine = engine_for(command, experiments, output)
    stdout.print(f"{counted(len(experiments), 'run')}. {estimate(experiments, engine.number)}", highlight=False)
    if command.dry_run:
        for experiment in {experiment.run_id: experiment for experiment in experiments}.values():
            stdout.print(f"  {experiment.run_id} ({state(experiment)})", highlight=False, markup=False)
        return []
    failures = sweep(experiments, engine, output)
    for experiment in experiments if experiments[0].task.name in ("train", "evaluate") else ():
        if experiment.run_dir.is_dir():
            remember_asked(experiment.run_dir, Selection.of(experiment).options)
    if experiments[0].task.name in ("train", "evaluate", "report"):
        found = settings(singles, experiments)
        stdout.print()
        stdout.print(summary(found), highlight=False)
        picture = draw_sweep(found, output / "sweeps")
        if picture is not None:
            stdout.print(f"as a picture, and as PDF and CSV beside it: {picture}", highlight=False, markup=False)
    failures.complain()
    return [Results(r.run_id, r.run_dir, read_rows(r.run_dir), selection=Selection.of(r)) for r in experiments]


def _check_apart(experiments: Sequence[Experiment]) -> None:
    """Refuse two experiments that would store their numbers in one place.

    Raises:
        RequestError: one run is asked for twice with other images under one name.
    """
    places: dict[tuple[str, str], tuple[str, str]] = {}
    for experiment in experiments:
        for use in experiment.image_sets:
            role = use.role if use.role in ("id", *TRAINED_ON) else use.name
            where = (str(use.node["root"]), repr(use.node["layouts"]))
            if places.setdefault((experiment.run_id, role), where) != where:
                raise RequestError(
                    f"two combinations are the same run ({experiment.run_id}) with other images of {use.name}: only "
                    "the last one's numbers would stay. Give the images names of their own (in a protocol 'name:path', "
                    "else dataset.name=), or make the combinations one after the other"
                )


def settings(singles: Sequence[Sequence[str]], experiments: Sequence[Experiment]) -> list[Setting]:
    """The runs by what varied besides the seed, in the order of the command line."""
    keys = [key_of(override) for override in singles[0]]
    varied = [i for i, key in enumerate(keys) if key != "seed" and len({single[i] for single in singles}) > 1]
    found: dict[tuple[str, ...], Setting] = {}
    for single, experiment in zip(singles, experiments, strict=True):
        values = tuple(single[i].partition("=")[2] for i in varied)
        names = dict(zip((keys[i] for i in varied), values, strict=True))
        setting = found.setdefault(values, Setting(experiment, names, defaultdict(list), defaultdict(list)))
        results = Results(experiment.run_id, experiment.run_dir, read_rows(experiment.run_dir))
        setting.remarks.update(dict.fromkeys(outlier_lines(experiment, results.rows)))
        for line in lines(results, Selection.of(experiment)):
            setting.of_scorer[line.scorer].append(line)
            validated = validation_auroc(experiment.run_dir, line.scorer, experiment.detectors[line.scorer])
            if validated is not None:
                setting.validated[line.scorer].append(validated)
    return list(found.values())


def chosen(settings: Sequence[Setting]) -> dict[str, Setting]:
    """For each detector the setting with the largest mean AUROC on validation data, the first of equals."""
    best: dict[str, Setting] = {}
    for setting in settings:
        for scorer, values in setting.validated.items():
            if scorer not in best or fmean(values) > fmean(best[scorer].validated[scorer]):
                best[scorer] = setting
    return best


def summary(settings: Sequence[Setting]) -> Table:
    """Settings and detectors down: ID accuracy, AUROC near and far, both FPR95; mean and spread of seeds.

    With `tuning=` a column has the AUROC on validation data, and a mark the setting that it chooses.
    """
    best = chosen(settings)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("\ndetector", overflow="fold")  # the only one that gives way on a narrow terminal
    for head in [*(["AUROC ↑\nval"] if best else []), "\nID acc ↑", *COLUMNS.values()]:
        table.add_column(head, no_wrap=True, justify="right")
    for setting in settings:
        if setting.varied:
            table.add_row(Text(setting.label, style="bold"))
        for scorer, found in setting.of_scorer.items():
            cells = [setting.validated[scorer]] if best else []
            cells.append([line.accuracy for line in found])
            cells += [[line.means[key] for line in found] for key in COLUMNS]
            mark = " ◂" if best.get(scorer) is setting else ""
            table.add_row(f"  {scorer}{mark}", *map(_spread, cells))
        if not setting.of_scorer:
            table.add_row("  no results")
    table.caption = Text("\n".join(_caption(settings, bool(best))), style="table.caption")
    table.caption_justify = "left"
    return table


def _caption(settings: Sequence[Setting], choosing: bool) -> list[str]:
    """Which images and seeds the numbers are of, what must be said of the runs, and by what a setting is chosen."""
    counts = sorted({len(found) for setting in settings for found in setting.of_scorer.values()})
    protocols = [(s.experiment.protocol, s.experiment.groups_of_sets) for s in settings]
    below = list(dict.fromkeys(image_lines(protocol, groups, {})[0] for protocol, groups in protocols))
    below += dict.fromkeys(line for protocol, _ in protocols for line in metric_lines(protocol))
    most = counted(max(counts, default=0), "seed")
    seeds = f"{counts[0]} to {most}" if len(counts) > 1 else most
    below.append(f"mean ± population std of {seeds}, on test images: choose no setting by these numbers")
    labels: dict[str, list[str]] = {}
    for setting in settings:
        for remark in setting.remarks:
            labels.setdefault(remark, []).append(setting.label)
    below += [": ".join(filter(None, ("; ".join(names), remark))) for remark, names in labels.items()]
    if choosing:
        sets = ", ".join(dict.fromkeys(name for protocol, _ in protocols for name in protocol.validation))
        below.append(f"◂ chosen on validation data alone: AUROC of ID validation images against {sets}")
    else:
        below.append("tuning=validation adds numbers to choose by: AUROC on the protocol's validation sets")
    return below


def _spread(values: Sequence[float]) -> str:
    if not values or any(map(isnan, values)):
        return "-"
    mean = f"{100 * fmean(values):.1f}"
    return mean if len(values) == 1 else f"{mean}±{100 * pstdev(values):.1f}"

"""The table on the terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ood_lab.results.table import STAGES, Line, percent

KEYS = {
    ("near", "auroc"): "AUROC\nnear",
    ("far", "auroc"): "AUROC\nfar",
    ("all", "fpr95_ood_pos"): "FPR95\nOOD+",
    ("all", "fpr95_id_pos"): "FPR95\nID+",
}


def terminal_table(lines: Sequence[Line], caption: Sequence[str]) -> Table:
    """Detectors down, runs side by side: AUROC near and far, FPR95 in both conventions, in percent; two runs take 80
    columns.

    A detector whose options were searched has a star; the caption says on what.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.caption, table.caption_justify = Text("\n".join(caption), style="table.caption"), "left"
    table.add_column("\n\n\ndetector", no_wrap=True)
    runs = [list(part) for _, part in groupby(lines, key=lambda line: line.run_id)]
    for part in runs:
        label = f"{part[0].method}\n{STAGES[part[0].stage]}"
        for number, heading in enumerate(KEYS.values()):
            above = "\n" if number else label
            table.add_column(f"{above}\n{heading}", justify="right", no_wrap=True)
    for scorer in dict.fromkeys(line.scorer for line in lines):
        cells = []
        for part in runs:
            line = next((item for item in part if item.scorer == scorer), None)
            cells += [percent(line.means[key]) if line else "" for key in KEYS]
        tuned = any(line.tuned for line in lines if line.scorer == scorer)
        table.add_row(f"{scorer} *" if tuned else scorer, *cells)
    accuracy = [cell for part in runs for cell in (percent(part[0].accuracy), "", "", "")]
    table.add_row("ID accuracy", *accuracy)
    return table


def as_text(lines: Sequence[Line], caption: Sequence[str]) -> str:
    """The table as text."""
    console = Console(width=200, file=io.StringIO(), soft_wrap=True)
    console.print(terminal_table(lines, caption))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().rstrip()

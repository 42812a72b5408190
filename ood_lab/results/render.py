"""The table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich import box
from rich.table import Table
from rich.text import Text

from ood_lab.results.table import STAGES, Line, percent

KEYS = (("near", "auroc"), ("far", "auroc"), ("all", "fpr95_ood_pos"), ("all", "fpr95_id_pos"))


def terminal_table(lines: Sequence[Line], caption: Sequence[str]) -> Table:
    """Detectors down, runs side by side: AUROC near and far, FPR95 in both conventions, in percent; 80 columns.

    A detector whose options were searched has a star; the caption says on what.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.caption, table.caption_justify = Text("\n".join(caption), style="table.caption"), "left"
    table.add_column("\n\ndetector", no_wrap=True)
    runs = [list(part) for _, part in groupby(lines, key=lambda line: line.run_id)]
    for part in runs:
        first = part[0]
        table.add_column(f"{first.method}\n{STAGES[first.stage]}\nAUROC near", justify="right", no_wrap=True)
        table.add_column("\n\nfar", justify="right", no_wrap=True)
        table.add_column("\nFPR95\nOOD+", justify="right", no_wrap=True)
        table.add_column("\n\nID+ ", justify="right", no_wrap=True)
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

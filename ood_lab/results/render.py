"""The table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.table import Table

from ood_lab.results.table import Line

STAGES = {"pretrain": "pretrained", "finetune": "fine-tuned"}


def terminal_table(lines: Sequence[Line], caption: str) -> Table:
    """Detectors down, runs side by side: AUROC near and far, and FPR95 in both conventions, in percent."""
    table = Table(caption=caption, title_justify="left", caption_justify="left")
    table.add_column("detector")
    runs = [(run_id, list(part)) for run_id, part in groupby(lines, key=lambda line: line.run_id)]
    for _, part in runs:
        first = part[0]
        head = f"{first.method} ({STAGES[first.stage]}, ID acc {100 * first.accuracy:.1f})"
        table.add_column(f"{head}\nAUROC near", justify="right")
        table.add_column("\nfar", justify="right")
        table.add_column("FPR95\nOOD+", justify="right")
        table.add_column("\nID+", justify="right")
    for scorer in dict.fromkeys(line.scorer for line in lines):
        cells = []
        for _, part in runs:
            line = next((item for item in part if item.scorer == scorer), None)
            keys = (("near", "auroc"), ("far", "auroc"), ("all", "fpr95_ood_pos"), ("all", "fpr95_id_pos"))
            cells += [f"{100 * line.means[key]:.1f}" if line else "" for key in keys]
        table.add_row(scorer, *cells)
    return table

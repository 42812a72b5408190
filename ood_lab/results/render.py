"""The table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from rich import box
from rich.table import Table

from ood_lab.results.page import STAGES, percent
from ood_lab.results.table import Line

KEYS = (("near", "auroc"), ("far", "auroc"), ("all", "fpr95_ood_pos"), ("all", "fpr95_id_pos"))


def terminal_table(lines: Sequence[Line], protocol: Mapping[str, Any], groups: Mapping[str, str]) -> Table:
    """Detectors down, runs side by side: AUROC near and far, FPR95 in both conventions, in percent; 80 columns."""
    near = [name for name in protocol["near"] if name in groups]
    far = [name for name in protocol["far"] if name in groups]
    skipped = [name for name in (*protocol["near"], *protocol["far"]) if name not in groups]
    headline = {"ood_pos": "OOD+", "id_pos": "ID+"}[protocol["fpr95"]]
    caption = (
        f"protocol {protocol['name']}, percent. near: {', '.join(near) or 'none'}; far: {', '.join(far) or 'none'}\n"
        + (f"not there, left out of every mean: {', '.join(skipped)}\n" if skipped else "")
        + f"FPR95 over all sets ({protocol['fpr_rule']} threshold; headline {headline}).\n"
        "OOD+: ID flagged at 95 % of OOD caught; ID+: OOD passed at 95 % of ID"
    )
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, caption=caption, caption_justify="left", padding=(0, 1, 0, 0))
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
        table.add_row(scorer, *cells)
    accuracy = [cell for part in runs for cell in (percent(part[0].accuracy), "", "", "")]
    table.add_row("ID accuracy", *accuracy)
    return table

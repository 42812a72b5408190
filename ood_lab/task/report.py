"""The table and the report of what is stored; nothing is computed."""

from __future__ import annotations

from ood_lab.config import Request
from ood_lab.progress import stdout
from ood_lab.results.render import terminal_table
from ood_lab.results.store import Results, read_rows
from ood_lab.results.table import lines


def run(request: Request) -> Results:
    """Print the table and write report.html again."""
    stands_on = [run(need) for need in request.needs]
    results = Results(request.run_id, request.run_dir, read_rows(request.run_dir), stands_on)
    write(request, results)
    show(request, results)
    return results


def write(request: Request, results: Results) -> None:
    pass


def show(request: Request, results: Results) -> None:
    """The last thing a command prints."""
    scorers = list(request.composed.plain("scorer"))
    caption = f"{request.cfg.protocol.name}: {', '.join(request.ood_sets)}"
    stdout.print(terminal_table(lines(results, scorers, request.ood_sets), caption))

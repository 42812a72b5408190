"""The table of what is stored, as a command ends with it; without torch and without pictures."""

from __future__ import annotations

from ood_lab.config import Request
from ood_lab.config.objective import caveats
from ood_lab.progress import stdout
from ood_lab.results.caption import changed_line, protocol_lines, tuning_lines
from ood_lab.results.render import terminal_table
from ood_lab.results.store import Results, read_rows, read_thresholds
from ood_lab.results.table import Selection, lines
from ood_lab.run_dir import is_trained, normalised, outstanding, verify
from ood_lab.run_images import RunImages


def finished(request: Request) -> Results | None:
    """Show a run of which nothing is outstanding, nor of those it depends on; None where something is.

    Raises:
        RequestError: see `verify`.
    """
    if not _is_finished(request):
        return None
    request = normalised(request) or request
    results = stored(request)
    show(request, results)
    return results


def _is_finished(request: Request) -> bool:
    if not is_trained(request):
        return False
    verify(request)
    return not outstanding(request) and all(_is_finished(need) for need in request.needs)


def stored(request: Request) -> Results:
    """What a run and those it depends on have in store."""
    return Results(request.run_id, request.run_dir, read_rows(request.run_dir), [stored(n) for n in request.needs])


def show(request: Request, results: Results) -> None:
    """The last thing a command prints."""
    page = request.run_dir / "report.html"
    if page.is_file():
        stdout.print(f"report: {page}\n", highlight=False, markup=False)
    stdout.print(terminal_table(lines(results, Selection.of(request)), caption(request, results)))


def caption(request: Request, results: Results) -> list[str]:
    """The resolved protocol, and which of its sets are not as stated."""
    partial = Selection.of(request).partial(results.rows)
    protocol = request.composed.plain("protocol")
    limits = [row for row in read_thresholds(request.run_dir) if row["convention"] == request.convention()]
    held = limits[-1]["n_id"] if limits and limits[-1]["held"] == "val" else None
    if held is not None:
        protocol["id_val"] = held  # as many as there were: each class gives the same number
    own = held if protocol["id_val"] and "val" in request.use("id").splits else None
    tuned = [line for line in lines(results, Selection.of(request)) if line.tuned]
    chosen = {f"{line.scorer} ({line.method})": line.tuned or {} for line in tuned}
    return [
        *protocol_lines(protocol, request.groups, partial, own, Selection.of(request).overlapping(results.all_rows())),
        *changed_line(*_changed(request, results)),
        *tuning_lines(protocol["validation"], chosen),
        *caveats(request.composed),
    ]


def _changed(request: Request, results: Results) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """The sets that were scored again on other images, with their numbers then and now; and those that were not yet."""
    images = RunImages(request)
    keys = {name: key for name, key in Selection.of(request).feature_keys(results.rows).items() if key}
    limits = [row for row in read_thresholds(request.run_dir) if row["convention"] == request.convention()]
    if limits and limits[-1]["held"] == "val" and images.source("val") == "val":
        keys["val"] = limits[-1]["features"]
    found = {name: images.record.changed(images.source(name), key) for name, key in keys.items()}
    behind = [
        n for n, k in keys.items() if images.record.knows(images.source(n)) and not images.are_of(images.source(n), k)
    ]
    return {name: counts for name, counts in found.items() if counts is not None}, behind

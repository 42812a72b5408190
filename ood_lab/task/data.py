"""The image sets and weights that a request reads: what is there, what is missing, and how to get it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from ood_lab.config.experiment import Experiment
from ood_lab.config.image_set_use import ImageSetUse
from ood_lab.config.image_sets import check_id_set
from ood_lab.config.own_folder import is_own
from ood_lab.errors import OodLabError, RunError
from ood_lab.files.archive import extract
from ood_lab.files.disk import disk_errors
from ood_lab.files.download import Checksum, fetch, file_digest
from ood_lab.files.lock import held
from ood_lab.progress import stdout, track
from ood_lab.reader.layout import layouts_of, read_layout
from ood_lab.results.store import Results

PRESENT = "present"


@dataclass(frozen=True)
class State:
    """The state of one set (or file of weights).

    Args:
        state: "present", "missing", "wrong count", "wrong checksum" or "unreadable".
        count: images found, of images stated, as text.
        where: where it was found, or is looked for.
        remedy: what to do, or what is not read; "" where nothing is to be done.
    """

    name: str
    role: str
    state: str
    count: str
    where: str
    licence: str
    remedy: str


def run(experiment: Experiment) -> Results:
    """List, verify or download what the request reads.

    Raises:
        RunError: after "verify" or "download", something is not as it should be; the table says what.
    """
    action = experiment.task.action
    if action == "download":
        for use in experiment.image_sets:
            if use.layout is None:
                download(use.node.get("downloads", []), Path(use.node["root"]))
        _download_weights(experiment)
    id_val = experiment.protocol.id_val or 0
    states = [state(use, action == "verify", id_val) for use in experiment.image_sets]
    states += _weights_state(experiment)
    show(states, str(experiment.paths.data))
    wrong = [s.name for s in states if s.state != PRESENT]
    if wrong and action != "list":
        raise RunError(f"{len(wrong)} of {len(states)} not as they should be: {', '.join(wrong)}")
    return Results("", Path(experiment.paths.output), [])


def state(use: ImageSetUse, thorough: bool, id_val: int = 0) -> State:
    """The state of a set.

    Args:
        thorough: check every checksum and decode every image, too.
        id_val: images that an ID set must be able to spare for validation.
    """

    def told(name: str, count: str, where: str, remedy: str) -> State:
        return State(use.name, use.role, name, count, where, use.node["licence"], remedy)

    layout = use.layout
    if layout is None:
        return told("missing", _of(None, use.expected), use.node["root"], use.missing())
    if layout == "embedded":
        return told(PRESENT, _of(use.found(), use.expected), "embedded or generated", "")
    sources = layouts_of(use.node)[layout].values()
    spoken = (_own_place(use.node, source) if is_own(use.node) else _place(source) for source in sources)
    places = ", ".join(dict.fromkeys(spoken))
    where = f"{places} ({layout})"
    notes = ""
    try:
        notes = ". ".join(use.notes())
        if use.role == "id":
            check_id_set(use.node, layout, id_val)
        found = use.found()
        if thorough:
            altered = wrong_checksum(use.node)
            if altered:
                return told("wrong checksum", _of(found, use.expected), where, altered)
            decoded = decode_all(use, layout)
            found = decoded if found is None else found
    except OodLabError as error:
        return told("unreadable", "", where, ". ".join(filter(None, (str(error), notes))))
    if use.expected is not None and found is not None and found != use.expected:
        remedy = f"{use.name}: {found:,} images ({layout} layout) where {use.expected:,} are stated"
        remedy += f" (protocol.check=loose accepts it, marked). {use.node['how_to_get']}"
        return told("wrong count", _of(found, use.expected), where, remedy)
    return told(PRESENT, _of(found, use.expected), where, notes)


def wrong_checksum(node: dict[str, Any]) -> str | None:
    """What is wrong with the first file whose checksum isn't the stated one; None if all are right."""
    for name, text in node["checksums"].items():
        path, stated = Path(node["root"]) / name, Checksum.parse(text)
        if path.is_file() and (found := file_digest(path, stated.algorithm)) != stated.digest:
            return f"{path}: {stated.algorithm} {found} where {stated.digest} belongs. Delete it and get it again."
    return None


def decode_all(use: ImageSetUse, layout: str) -> int:
    """Decode every image that the use reads; how many there are.

    Raises:
        RunError: the first that can't be decoded is named.
    """
    splits = [s for s in ("train", "val", "test") if s in layouts_of(use.node)[layout]]
    total = 0
    for split in splits if use.role == "id" else [use.split]:
        listing = read_layout(use.node, layout, split)
        for index in track(range(len(listing)), f"verify {use.name}"):
            listing.image(index)
        total += len(listing)
    return total


def download(files: list[dict[str, Any]], root: Path) -> None:
    """Get public files, each checked and, if it is an archive, unpacked; what is there already is not got again."""
    for file in files:
        target = root / file["file"]
        if file["expect"] is not None and (root / file["expect"]).exists():
            continue
        checksum = Checksum.parse(file["checksum"]) if file["checksum"] else None
        print(f"{file['url']} -> {target}", flush=True)
        if file["unpack"] is None:
            fetch(file["url"], target, checksum)
            continue
        # Of two processes the second waits until the first has unpacked, and has nothing to do then.
        with disk_errors(target), held(target.with_name(f".{target.name}.unpack.lock"), str(target)):
            if file["expect"] is None or not (root / file["expect"]).exists():
                fetch(file["url"], target, checksum)
                extract(target, root / file["unpack"], expected=file["expect"])
                target.unlink()


def _download_weights(experiment: Experiment) -> None:
    weights = experiment.init.published()
    if weights is not None and weights.url is not None and not Path(weights.file).is_file():
        print(f"{weights.url} -> {weights.file}", flush=True)
        checksum = Checksum("sha256", weights.sha256) if weights.sha256 is not None else None
        fetch(weights.url, Path(weights.file), checksum)


def _weights_state(experiment: Experiment) -> Iterator[State]:
    weights = experiment.init.published()
    if weights is not None:
        there = Path(weights.file).is_file()
        name = str(experiment.choices["init"])
        remedy = "" if there else f"{name}: missing {weights.file}. {weights.how_to_get}"
        yield State(name, "weights", PRESENT if there else "missing", "", weights.file, weights.licence, remedy)


def show(states: list[State], data: str) -> None:
    """The table, and below it what to do about each set that isn't as it should be."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for name in ("set", "role", "state", "images", "where", "licence"):
        table.add_column(name, overflow="fold", justify="right" if name == "images" else "left")
    for s in states:
        style = {"present": "green", "missing": "yellow"}.get(s.state, "red")
        told = (s.name, s.role, s.count, s.where.replace(data, "."), s.licence)
        name, role, count, where, licence = map(escape, told)
        table.add_row(name, role, f"[{style}]{s.state}[/]", count, where, licence)
    stdout.print(table)
    todo = [s.remedy for s in states if s.remedy]
    if todo:
        stdout.print(f"\npaths.data={data}", highlight=False, markup=False)
        for remedy in todo:
            stdout.print(f"- {remedy.replace(f'{data}/', '')}", highlight=False, markup=False)


def _of(found: int | None, expected: int | None) -> str:
    there = "" if found is None else f"{found:,}"
    return there if expected is None or found == expected else f"{there or '-'} of {expected:,}"


def _own_place(node: dict[str, Any], source: dict[str, Any]) -> str:
    """The path of a folder of one's own, from the current folder where it lies below that."""
    path, here = Path(node["root"]).absolute() / str(next(iter(source.values()))), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _place(source: dict[str, Any]) -> str:
    kind, value = next(iter(source.items()))
    if kind in ("batches", "idx"):
        first = value[0] if kind == "batches" else value[0][0]
        return f"{Path(first).parent}/"
    return str(value)

"""A filled table for the terminal, as Markdown, LaTeX (booktabs) and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import groupby
from textwrap import fill

from rich import box
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from ood_lab.tables.cells import Filled
from ood_lab.tables.layout import Block, Texts, blocks, caption, short
from ood_lab.tables.spec import row_labels

TEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "±": r"$\pm$", "↓": r"$\downarrow$",
       "↑": r"$\uparrow$", "λ": r"$\lambda$", "κ": r"$\kappa$", "δ": r"$\delta$", "ϵ": r"$\epsilon$",
       "{": r"\{", "}": r"\}", "^": r"\^{}", "~": r"\~{}", "✓": r"\checkmark{}",
       "△": r"$\triangle$"}  # fmt: skip
LABEL_WIDTH = 26  # letters of a row's label on a terminal; longer ones are folded
LATEX_WIDTH = 110  # letters of a line, in a small font on a page's width
CSV_COLUMNS = (
    "table", "row", "dataset", "backbone", "metric", "over", "part", "ours", "ours_std", "seeds", "seeds_wanted",
    "setting", "paper", "paper_std", "difference", "exceeds", "run_ids", "not_available",
)  # fmt: skip


def terminal(filled: Filled, width: int) -> Group:
    """One table for each ID set and network, cut into parts of so many columns as are readable."""
    parts: list[RichTable | Text] = []
    for block in blocks(filled):
        label = max(map(len, (*block.labels, block.swept)))
        for part in _fitting(block, width - min(label, LABEL_WIDTH) - 2):
            parts += [_rich(part), Text()]
    below = Text("\n".join(fill(line, width, subsequent_indent="  ") for line in caption(filled)))
    return Group(*parts, below)


def _fitting(block: Block, width: int) -> Iterator[Block]:
    """Parts of a block that are not wider than `width`; the columns of a metric stay together where they can."""
    widths = [_width(block, i) for i in range(len(block.headings))]
    first, at = 0, 0
    for _, group in groupby(block.headings, key=lambda heading: heading[0]):
        last = at + len(list(group))
        if first < at and sum(widths[first:last]) > width:
            yield block.part(first, at)
            first = at
        while sum(widths[first:last]) > width and last - first > 1:
            cut = next(i for i in range(first + 1, last) if sum(widths[first : i + 1]) > width)
            yield block.part(first, cut)
            first = cut
        at = last
    yield block.part(first, len(block.headings))


def _width(block: Block, i: int) -> int:
    """Letters that a column takes, with the paper's figure and the difference where there are any."""
    texts = [row[i] for row in block.cells]
    needed = max(*map(len, block.headings[i]), *(len(text.ours) for text in texts)) + 2
    if block.beside[i]:
        needed += max(5, *(len(text.paper) for text in texts)) + max(4, *(len(t.difference) for t in texts)) + 4
    return needed


def _rich(block: Block) -> RichTable:
    table = RichTable(title=block.title, box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.title_justify = "left"
    table.add_column(f"\n{block.swept}" if block.swept else "", overflow="fold", max_width=LABEL_WIDTH)
    for heading, beside in zip(block.headings, block.beside, strict=True):
        table.add_column("\n".join(heading if heading[1] else ("", heading[0])), justify="right", no_wrap=True)
        if beside:
            table.add_column("\npaper", justify="right", no_wrap=True, style="dim")
            table.add_column("\ndiff", justify="right", no_wrap=True)
    for label, row in zip(block.labels, block.cells, strict=True):
        cells: list[str | Text] = [label]
        for text, beside in zip(row, block.beside, strict=True):
            cells.append(Text(text.ours or "-", style="bold" if text.best else ""))
            cells += [text.paper, text.difference] if beside else []
        table.add_row(*cells)
    return table


def markdown(filled: Filled) -> str:
    """The table as Markdown, the best of ours in bold."""
    lines = [f"# {filled.table.source}", ""]
    for block in blocks(filled):
        names = [" ".join(heading).strip() for heading in block.headings]
        heads = [
            head
            for name, beside in zip(names, block.beside, strict=True)
            for head in ((name, "paper", "diff") if beside else (name,))
        ]
        lines += [f"**{block.title}**", "", f"| {block.swept} | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
        for label, row in zip(block.labels, block.cells, strict=True):
            cells = [cell for text, b in zip(row, block.beside, strict=True) for cell in _in_markdown(text, b)]
            lines.append(f"| {label.replace('|', chr(92) + '|')} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join([*lines, *(f"{line}  " for line in caption(filled)), ""])


def _in_markdown(text: Texts, beside: bool) -> list[str]:
    ours = f"**{text.ours}**" if text.best else text.ours or "-"
    return [ours, text.paper, text.difference.replace("*", r"\*")] if beside else [ours]


def latex(filled: Filled) -> str:
    """The table for a paper, to be used with the package booktabs."""
    lines = [r"% \usepackage{booktabs,amssymb}", r"\begin{table}", r"\centering"]
    for block in (part for whole in blocks(filled) for part in _fitting(whole, LATEX_WIDTH)):
        widths = [3 if beside else 1 for beside in block.beside]
        lines.append(rf"\begin{{tabular}}{{l{'r' * sum(widths)}}}")
        lines += [r"\toprule", *_heads_in_latex(block, widths), r"\midrule"]
        for label, row in zip(block.labels, block.cells, strict=True):
            cells = [cell for text, b in zip(row, block.beside, strict=True) for cell in _in_latex(text, b)]
            lines.append(rf"{_tex(label)} & {' & '.join(cells)} \\")
        lines += [r"\bottomrule", r"\end{tabular}", ""]
    sentences = " ".join(f"{line.rstrip('.')}." for line in caption(filled))
    lines.append(rf"\caption{{{_tex(sentences)}}}")
    return "\n".join([*lines, rf"\label{{tab:{filled.table.id}}}", r"\end{table}", ""])


def _heads_in_latex(block: Block, widths: Sequence[int]) -> Iterator[str]:
    """A line of metrics, each over all its columns, one of what they are over, and one of ours and the paper's."""
    metrics = [metric for metric, _ in block.headings]
    spans, rules, at = [], [], 2
    for metric, group in groupby(zip(metrics, widths, strict=True), key=lambda pair: pair[0]):
        width = sum(each for _, each in group)
        spans.append(_span(metric, width))
        rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
        at += width
    yield rf"{_tex(block.title)} & {' & '.join(spans)} \\"
    yield "".join(rules)
    if any(over for _, over in block.headings):
        overs = [_span(over, width) for (_, over), width in zip(block.headings, widths, strict=True)]
        yield rf"{_tex(block.swept)} & {' & '.join(overs)} \\"
    if 3 in widths:
        names = ["ours & paper & diff." if width == 3 else "ours" for width in widths]
        yield f" & {' & '.join(names)} " + r"\\"


def _span(text: str, width: int) -> str:
    return rf"\multicolumn{{{width}}}{{c}}{{{_tex(text)}}}"


def _in_latex(text: Texts, beside: bool) -> list[str]:
    ours = rf"\textbf{{{_tex(text.ours)}}}" if text.best else _tex(text.ours or "-")
    return [ours, _tex(text.paper), _tex(text.difference)] if beside else [ours]


def _tex(text: str) -> str:
    return "".join(TEX.get(letter, letter) for letter in text)


def as_csv(filled: Filled) -> str:
    """One line a cell."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(tidy(filled))
    return out.getvalue()


def tidy(filled: Filled) -> list[dict[str, object]]:
    """A dictionary with the keys `CSV_COLUMNS` for every cell."""
    out: list[dict[str, object]] = []
    for number, (label, cells) in enumerate(zip(row_labels(filled.table), filled.cells, strict=True)):
        for column, cell in zip(filled.columns, cells, strict=True):
            runs = filled.runs(number, column)
            found = (
                filled.table.id, label, column.dataset, column.backbone, column.metric, column.over, column.part,
                cell.mean, cell.std, len(cell.values), cell.wanted, cell.text, cell.paper, cell.paper_std,
                cell.difference, cell.exceeds, " ".join(run.run_id for run in runs),
                short(filled.unavailable[number]) if number in filled.unavailable and not runs else None,
            )  # fmt: skip
            out.append(dict(zip(CSV_COLUMNS, found, strict=True)))
    return out


FORMATS = {"md": markdown, "tex": latex, "csv": as_csv}


def written(filled: Sequence[Filled]) -> dict[str, str]:
    """Every table in every format, by file name."""
    return {f"{one.table.stem}.{end}": make(one) for one in filled for end, make in FORMATS.items()}

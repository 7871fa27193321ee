"""Comparisons as text for terminals, Markdown and LaTeX. What is in them is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from ..errors import escape
from ..query.comparing import Comparison
from ..query.differences import Difference, Differences
from ..query.tables import Table
from . import table

LONGEST_CHANGE = 60
"""Columns of a change that stands in one line; of longer ones the values stand below each other."""

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
    "±": r"$\pm$", "-": "{-}",
}  # fmt: skip

_NEGATIVE = re.compile(r"(?<![\w.])-(?=\d|inf)")

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|~#$])")
"""What means something in a cell of Markdown, of GitHub's and of notebooks with their formulas."""


def as_text(shown: Table, *, width: int | None = None) -> Iterator[str]:
    """Lines of aligned columns, below the table's title. What is wider than `width` is folded: the
    columns that find no room stand below the others, and no number is cut."""
    if shown.title:
        yield escape(shown.title)
    rows = [shown.head, *shown.rows]
    for place, numbers in enumerate(_folded(shown, width)):
        if place:
            yield ""
        columns = [*range(shown.texts), *numbers]
        yield from table.lines(
            [[row[column] for column in columns] for row in rows],
            right=range(shown.texts, len(columns)),
            width=width,
        )


def _folded(shown: Table, width: int | None) -> list[list[int]]:
    """The columns of numbers, in parts that fit beside those of texts."""
    rows = [shown.head, *shown.rows]
    numbers = list(range(shown.texts, len(shown.head)))
    if width is None:
        return [numbers]
    sizes = [max(table.width_of(escape(row[i])) for row in rows) for i in range(len(shown.head))]
    gap = len(table.GAP)
    before = sum(size + gap for size in sizes[: shown.texts])
    parts: list[list[int]] = [[]]
    taken = before
    for column in numbers:
        parts[-1].append(column)
        taken += sizes[column] + gap
        if taken - gap > width and len(parts[-1]) > 1:
            # Of two that belong together, both go on below
            count = 2 if column in shown.joined and len(parts[-1]) > 2 else 1
            parts.append([parts[-1].pop() for _ in range(count)][::-1])
            taken = before + sum(sizes[each] + gap for each in parts[-1])
    return parts


def as_markdown(shown: Table) -> Iterator[str]:
    """A table of Markdown, with its title above it."""

    def cell(text: str) -> str:
        return _MARKDOWN.sub(r"\\\1", escape(text))

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    if shown.title:
        yield f"**{cell(shown.title)}**"
        yield ""
    yield line([cell(each) for each in shown.head])
    yield line([":--" if i < shown.texts else "--:" for i in range(len(shown.head))])
    for row in shown.rows:
        yield line([cell(each) for each in row])


def markdown_notes(notes: Sequence[str]) -> Iterator[str]:
    """Notes below a table of Markdown."""
    for note in notes:
        # What notes name stands in backticks, and nothing in them has to be escaped
        yield f"- {_outside_of_code(escape(note))}"


def _outside_of_code(text: str) -> str:
    return "`".join(
        part if place % 2 else _MARKDOWN.sub(r"\\\1", part)
        for place, part in enumerate(text.split("`"))
    )


def as_latex(shown: Table) -> Iterator[str]:
    """A tabular that needs no package, with its title as a comment above it."""

    def cell(text: str) -> str:
        # A minus before a number is longer than a hyphen, which two of make a dash
        parts = _NEGATIVE.split(escape(text))
        return "$-$".join("".join(_LATEX.get(c, c) for c in part) for part in parts)

    def line(cells: Sequence[str]) -> str:
        return " & ".join(cell(each) for each in cells) + r" \\"

    if shown.title:
        yield f"% {escape(shown.title)}"
    alignment = "l" * shown.texts + "r" * (len(shown.head) - shown.texts)
    yield rf"\begin{{tabular}}{{{alignment}}}"
    yield r"\hline"
    yield line(shown.head)
    yield r"\hline"
    for row in shown.rows:
        yield line(row)
    yield r"\hline"
    yield r"\end{tabular}"


def latex_notes(notes: Sequence[str]) -> Iterator[str]:
    """Notes as comments of LaTeX."""
    return (f"% {escape(note)}" for note in notes)


def as_csv(compared: Comparison) -> Iterator[Sequence[str]]:
    """A head, and a row a metric and group: the group's values as they were written, numbers in
    full, empty where nothing is known."""
    entries = [entry for metric in compared.metrics for entry in compared.entries[metric]]
    head: list[str] = []
    for row, entry in zip(compared.rows, entries, strict=True):
        if not head:
            head = list(row)
            yield head
        numbers = list(row.values())[len(compared.names) :]
        yield [*entry.group.texts, *("" if each != each else str(each) for each in numbers)]


def differences_as_text(told: Differences, *, patch_lines: int | None = None) -> Iterator[str]:
    """What differs between two experiments, in lines for people: `-` is the first, `+` the second.

    Of a longer diff between the patches `patch_lines` are told.
    """
    yield f"- {told.first.identifier}"
    yield f"+ {told.second.identifier}"
    yield ""
    for part, found in groupby(told.found, key=lambda each: each.part):
        yield part
        changes = list(found)
        size = max(table.width_of(escape(each.name)) for each in changes)
        for each in changes:
            yield from _change(each, size)
    if told.patch:
        yield "changes that are in no commit"
        yield from (f"  {escape(line)}" for line in told.patch[:patch_lines])
        if patch_lines is not None and len(told.patch) > patch_lines:
            yield f"  and {len(told.patch) - patch_lines} more lines"
    if not told:
        yield "no difference"
    if told.alike:
        yield f"the same: {', '.join(told.alike)}"
    yield from (f"note: {escape(note)}" for note in told.notes)


def _change(change: Difference, size: int) -> Iterator[str]:
    """`  lr  0.1 -> 0.01`, or a line each where that is too long."""
    name = escape(change.name)
    blanks = " " * (size - table.width_of(name))
    first, second = ("(none)" if each is None else escape(each) for each in _values(change))
    if table.width_of(first) + table.width_of(second) <= LONGEST_CHANGE:
        yield f"  {name}{blanks}  {first} -> {second}" if size else f"  {first} -> {second}"
        return
    if name:
        yield f"  {name}"
    yield f"  - {first}"
    yield f"  + {second}"


def _values(change: Difference) -> tuple[str | None, str | None]:
    """The values, those of metrics in six digits if these tell them apart."""
    first, second = change.first, change.second
    if change.part == "metrics" and first and second:
        short = f"{float(first):.6g}", f"{float(second):.6g}"
        return short if short[0] != short[1] else (first, second)
    return first, second

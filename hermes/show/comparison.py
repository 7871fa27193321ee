"""Comparisons as text for terminals, Markdown and LaTeX. What is in them is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..errors import escape
from ..query.tables import Table
from . import table

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
    """Lines of aligned columns, below the table's title."""
    if shown.title:
        yield escape(shown.title)
    numbers = range(shown.texts, len(shown.head))
    yield from table.lines([shown.head, *shown.rows], right=numbers, width=width)


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

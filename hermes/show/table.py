"""Rows of cells as aligned lines that fit a terminal's width."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator, Sequence

from ..errors import escape

GAP = "  "
CUT = "…"
"""Ends a cell that was cut."""

NARROWEST = 6
"""Columns are not made narrower than this, before the line itself is cut."""


def lines(
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[int] = (),
    width: int | None = None,
    whole: Collection[str] = ("id", "identifier"),
) -> Iterator[str]:
    """A line a row; the columns in `right` are aligned to the right, as numbers are.

    Cells are escaped. With a width, the widest columns are cut until the lines fit, but not those
    whose heads are `whole`: half an identifier is of no use.
    """
    shown = [[escape(cell) for cell in row] for row in rows]
    if not shown:
        return
    sizes = [max(map(width_of, column)) for column in zip(*shown, strict=True)]
    if width is not None:
        sizes = _fitted(sizes, width, [head in whole for head in shown[0]])
    for row in shown:
        cells = [
            _padded(cell, size, to_the_right=place in right)
            for place, (cell, size) in enumerate(zip(row, sizes, strict=True))
        ]
        line = GAP.join(cells).rstrip()
        yield line if width is None else cut(line, width)


def width_of(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(map(_width, text))


def cut(text: str, width: int) -> str:
    """A text that takes at most `width` columns, which ends in `…` if it was cut."""
    if width_of(text) <= width:
        return text
    kept, room = [], width - 1
    for char in text:
        room -= _width(char)
        if room < 0:
            break
        kept.append(char)
    return "".join(kept) + CUT if width > 0 else ""


def _width(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _padded(cell: str, size: int, *, to_the_right: bool) -> str:
    cell = cut(cell, size)
    blanks = " " * (size - width_of(cell))
    return blanks + cell if to_the_right else cell + blanks


def _fitted(sizes: Sequence[int], width: int, is_whole: Sequence[bool]) -> list[int]:
    fitted = list(sizes)
    too_wide = sum(fitted) + len(GAP) * (len(fitted) - 1) - width
    places = [place for place, whole in enumerate(is_whole) if not whole]
    while too_wide > 0 and places:
        widest = max(places, key=fitted.__getitem__)
        if fitted[widest] <= NARROWEST:
            break
        fitted[widest] -= 1
        too_wide -= 1
    return fitted

"""Tables of texts, which a terminal, a page or a paper can show, and numbers in them.

Numbers have as many digits as their spread gives a meaning to.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import msgspec

from ..errors import escape

NOTHING = "-"
"""What stands where there is no value."""


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """`texts` of the first columns stand left, numbers of the others right. A column of `joined`
    stays beside the one before it where a table has to be folded."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int
    joined: frozenset[int] = frozenset()


def decimals(spread: float, size: float) -> int | None:
    """Digits after the point that show two digits of a spread; None where numbers are better
    written in four significant digits."""
    if not math.isfinite(spread) or spread <= 0 or not math.isfinite(size):
        return None
    digits = 1 - math.floor(math.log10(spread))
    if digits > 6 or max(abs(size), spread) >= 1e6:
        return None
    return max(0, digits)


def written(number: float, digits: int | None) -> str:
    """A number with so many digits after the point, or in four significant ones."""
    if math.isnan(number):
        return NOTHING
    if digits is None or (number and abs(number) >= 1e9):
        return f"{number:.4g}"
    # What rounds to zero has no sign
    return f"{round(number, digits) + 0.0:.{digits}f}"


def as_html(shown: Sequence[Table], notes: Sequence[str]) -> str:
    """Tables and notes as a part of a page."""

    def safe(text: str) -> str:
        return html.escape(escape(text))

    parts = []
    for table in shown:
        head = "".join(f"<th>{safe(text)}</th>" for text in table.head)
        rows = "".join(
            f"<tr>{''.join(f'<td>{safe(text)}</td>' for text in row)}</tr>" for row in table.rows
        )
        parts.append(
            f"<table><caption>{safe(table.title)}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        )
    if notes:
        items = "".join(f"<li>{safe(note)}</li>" for note in notes)
        parts.append(f"<ul>{items}</ul>")
    return "\n".join(parts)

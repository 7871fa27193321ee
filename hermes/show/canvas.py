"""Lines of dots in characters of braille, each with the colour of the curve that it belongs to."""

from __future__ import annotations

import math

COLOURS = (33, 208, 36, 169, 142, 99, 130, 244)
"""Of 256, which can be told apart on light and dark, and by people who see few colours."""

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bits of the dots in a character of braille, by row and column."""

BLANK = 0x2800


class Canvas:
    """Characters of 2 x 4 dots; each has the colour of the curve that was drawn last in it.

    `width` and `height` are in dots; a curve is known by its number. What is outside is left out.
    """

    def __init__(self, columns: int, rows: int) -> None:
        self.width, self.height = 2 * columns, 4 * rows
        self._dots = [[0] * columns for _ in range(rows)]
        self._owners: list[list[int | None]] = [[None] * columns for _ in range(rows)]
        self._letters: dict[tuple[int, int], str] = {}

    def dot(self, x: int, y: int, owner: int) -> None:
        if 0 <= x < self.width and 0 <= y < self.height:
            self._dots[y // 4][x // 2] |= DOTS[y % 4][x % 2]
            self._owners[y // 4][x // 2] = owner

    def letter(self, text: str, x: int, y: int, owner: int) -> None:
        """Writes a character over the dots."""
        if 0 <= x < self.width and 0 <= y < self.height:
            self._letters[y // 4, x // 2] = text
            self._owners[y // 4][x // 2] = owner

    def stroke(self, start: tuple[float, float], end: tuple[float, float], owner: int) -> None:
        """A straight line of dots without gaps."""
        (x, y), (to_x, to_y) = start, end
        count = max(1, math.ceil(max(abs(to_x - x), abs(to_y - y))))
        for number in range(count + 1):
            share = number / count
            self.dot(round(x + (to_x - x) * share), round(y + (to_y - y) * share), owner)

    def dotted(self, start: tuple[float, float], end: tuple[float, float], owner: int) -> None:
        """A straight line to the right, of every fourth dot."""
        for x in range(math.ceil(start[0]), math.floor(end[0]) + 1):
            if x % 4 == 0:
                share = (x - start[0]) / ((end[0] - start[0]) or 1)
                self.dot(x, round(start[1] + (end[1] - start[1]) * share), owner)

    def line(self, row: int, *, colour: bool) -> str:
        """A row of characters."""
        parts, last = [], None
        for column, (dots, owner) in enumerate(
            zip(self._dots[row], self._owners[row], strict=True)
        ):
            if colour and owner != last:
                parts.append("\033[0m" if owner is None else _code(owner))
                last = owner
            parts.append(self._letters.get((row, column)) or (chr(BLANK + dots) if dots else " "))
        text = "".join(parts)
        return text + "\033[0m" if last is not None else text


def painted(text: str, owner: int, *, colour: bool) -> str:
    """A text in the colour of a curve."""
    return f"{_code(owner)}{text}\033[0m" if colour else text


def _code(owner: int) -> str:
    return f"\033[38;5;{COLOURS[owner % len(COLOURS)]}m"

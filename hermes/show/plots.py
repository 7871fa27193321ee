"""Curves as text: in dots of braille, with axes and a legend. Works without colours."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from ..errors import escape
from ..query.averaging import Band, Picture
from .canvas import Canvas, painted
from .table import cut, width_of
from .ticks import compact, ticks

LETTERS = "abcdefgh"
"""Stand at the ends of the curves, so that they can be told apart without colours."""

MOST = len(LETTERS)

MOST_SHADED = 2
"""Intervals that are areas. More of them would hide the curves, and are bars."""

BARS = 24
"""Dots from one bar of a curve to its next."""

APART = 12
"""Dots between points at the same step."""

FEWEST_COLUMNS, FEWEST_ROWS = 20, 5
"""Of the area in which curves are drawn."""

Place = tuple[float, float]
"""Dots from the left and from the top."""


def as_text(
    picture: Picture, *, width: int = 80, height: int = 24, colour: bool = False
) -> Iterator[str]:
    """Lines of at most `width` columns: a title, the curves in about `height` lines, a legend.

    At most `MOST` bands of the picture are drawn. Around their means stand the intervals: sparse
    dots, or bars if there are several bands.
    """
    drawn = picture.first(MOST)
    bands = drawn.bands
    x = _Axis([step for band in bands for step in band.steps], is_log=drawn.log_x)
    y = _Axis(drawn.heights(), is_log=drawn.log_y)
    rows = max(FEWEST_ROWS, height - 4 - len(bands))
    ticks_y = ticks(y.low, y.high, most=max(2, rows // 3), log=y.is_log)
    gutter = max((len(text) for _, text in ticks_y), default=0)
    columns = max(FEWEST_COLUMNS, width - gutter - 4)
    area = _Area(x, y, columns, rows)
    letters = area.draw(bands)

    yield cut(escape(drawn.title), width)
    labels = {area.row_of(value): text for value, text in ticks_y}
    for row in range(rows):
        text = labels.get(row, "")
        end = letters.get(row)
        line = f"{text:>{gutter}} {'┤' if text else '│'}{area.canvas.line(row, colour=colour)}"
        yield line if end is None else f"{line} {painted(LETTERS[end], end, colour=colour)}"
    for line in _x_axis(x, columns):
        yield f"{' ' * gutter} {line}".rstrip()
    yield " " * gutter + "  " + cut(escape(drawn.x), columns).center(columns).rstrip()
    yield from _legend(bands, width, colour=colour)


class _Axis:
    """From the lowest to the highest of some values. On a log axis only positive ones count.

    `only` is the value if there is but one; the axis goes beyond it then.
    """

    def __init__(self, values: Sequence[float], *, is_log: bool) -> None:
        self.is_log = is_log
        there = {value for value in values if math.isfinite(value) and self.holds(value)} or {1.0}
        low, high = min(there), max(there)
        self.only = low if low == high else None
        if self.only is not None:
            room = abs(low) / 2 + 1
            low, high = (low / 2, high * 2) if is_log else (low - room, high + room)
        self.low, self.high = low, high

    def holds(self, value: float) -> bool:
        """Whether the axis can have such a value."""
        return value > 0 or not self.is_log

    def within(self, value: float) -> float:
        """The nearest value that is on the axis."""
        return min(max(value, self.low), self.high)

    def share(self, value: float) -> float:
        """0 at the low end, 1 at the high end."""
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


class _Area:
    """Where curves are drawn: between two axes."""

    def __init__(self, x: _Axis, y: _Axis, columns: int, rows: int) -> None:
        self.canvas = Canvas(columns, rows)
        self._x, self._y = x, y
        self._rows = rows

    def draw(self, bands: Sequence[Band]) -> Mapping[int, int]:
        """Draws all bands, the first one on top. Returns whose letter stands beside which row."""
        numbered = list(enumerate(bands))[::-1]
        if all(band.is_point for band in bands):
            for number, band in numbered:
                aside = round((number - (len(bands) - 1) / 2) * APART)
                self._point(number, band, aside, LETTERS[number] if len(bands) > 1 else "")
            return {}
        for number, band in numbered:
            bar = None if len(bands) <= MOST_SHADED else number * BARS // len(bands)
            self._shade(number, band, bar)
        ends = {
            number: self._point(number, band) if band.is_point else self._trace(number, band)
            for number, band in numbered
        }
        return _beside(ends, self._rows) if len(bands) > 1 else {}

    def row_of(self, value: float) -> int:
        """The row of characters in which a value of the y axis is."""
        return min(self._rows - 1, round((1 - self._y.share(value)) * (4 * self._rows - 1)) // 4)

    def _place(self, step: float, value: float) -> Place:
        across, up = self._x.share(step), self._y.share(value)
        return across * (self.canvas.width - 1), (1 - up) * (self.canvas.height - 1)

    def _shade(self, number: int, band: Band, bar: int | None) -> None:
        """Sparse dots between the ends of the interval where all runs are; with `bar`, at such
        columns a bar."""
        whole = slice(*band.whole)
        points: list[tuple[Place, Place] | None] = []
        for step, mean, low, high in zip(
            band.steps[whole], band.means[whole], band.low[whole], band.high[whole], strict=True
        ):
            if math.isnan(low) or not self._y.holds(mean):
                points.append(None)
                continue
            points.append(
                (
                    self._place(step, self._y.within(high)),
                    self._place(step, self._y.within(low)),
                )
            )
        for before, after in pairwise(points):
            if before is None or after is None:
                continue
            (left, top), (_, bottom) = before
            (right, next_top), (_, next_bottom) = after
            for x in range(math.ceil(left), math.floor(right) + 1):
                share = (x - left) / ((right - left) or 1)
                first = math.ceil(top + (next_top - top) * share)
                last = math.floor(bottom + (next_bottom - bottom) * share)
                for y in range(first, last + 1):
                    if x % BARS == bar or (bar is None and x % 2 == 0 and y % 2 == x // 2 % 2):
                        self.canvas.dot(x, y, number)

    def _point(self, number: int, band: Band, aside: int = 0, letter: str = "") -> float:
        """Draws a single mean with the bar of its interval, some dots aside. Returns how far down
        it is, in dots."""
        step, mean = band.steps[0], band.means[0]
        if not self._y.holds(mean):
            return 0.0
        x, y = self._place(step, mean)
        x = round(x) + aside
        if not math.isnan(band.low[0]):
            _, top = self._place(step, self._y.within(band.high[0]))
            _, bottom = self._place(step, self._y.within(band.low[0]))
            self.canvas.stroke((x, top), (x, bottom), number)
        self.canvas.stroke((x - 1, y), (x + 1, y), number)
        if letter:
            self.canvas.letter(letter, x + 3, round(y), number)
        return y

    def _trace(self, number: int, band: Band) -> float:
        """Draws a mean, dotted where some runs are over. Returns how far down its end is, in
        dots."""
        first, end = band.whole
        points = [
            self._place(step, mean) if self._y.holds(mean) else None
            for step, mean in zip(band.steps, band.means, strict=True)
        ]
        last = 0.0
        for at, point in enumerate(points):
            if point is None:
                continue
            before = points[at - 1] if at else None
            if before is None:
                self.canvas.dot(round(point[0]), round(point[1]), number)
            if before is not None:
                draw = self.canvas.stroke if first < at < end else self.canvas.dotted
                draw(before, point, number)
            last = point[1]
        return last


def _beside(ends: Mapping[int, float], rows: int) -> dict[int, int]:
    """Which band's letter stands in which row: the nearest that is free to where it ends."""
    found: dict[int, int] = {}
    for number, down in sorted(ends.items(), key=lambda each: each[1]):
        wanted = min(max(int(down) // 4, 0), rows - 1)
        free = [row for row in range(rows) if row not in found]
        if free:
            found[min(free, key=lambda row: (abs(row - wanted), row))] = number
    return found


def _x_axis(axis: _Axis, columns: int) -> Iterator[str]:
    shown = ticks(axis.low, axis.high, most=max(2, columns // 12), log=axis.is_log)
    if axis.only is not None:
        shown = [(axis.only, compact(axis.only))]
    line, below = ["─"] * columns, [" "] * (columns + 2)
    free = 0
    for value, text in shown:
        at = round(axis.share(value) * (columns - 1))
        line[at] = "┬"
        start = min(max(0, at - len(text) // 2), len(below) - len(text))
        if start >= free:
            below[start : start + len(text)] = text
            free = start + len(text) + 1
    yield f"└{''.join(line)}"
    yield f" {''.join(below)}"


def _legend(bands: Sequence[Band], width: int, *, colour: bool) -> Iterator[str]:
    """A line a band: its letter, what it is, how many runs, and where its mean ends."""
    labels = [escape(band.label) for band in bands]
    ends = [_end(band) for band in bands]
    room = width - 4 - max(map(width_of, ends))
    size = min(max(map(width_of, labels)), max(room, 8))
    for number, (label, end) in enumerate(zip(labels, ends, strict=True)):
        shown = cut(label, size)
        mark = painted(LETTERS[number], number, colour=colour) if len(bands) > 1 else " "
        yield f"{mark} {shown}{' ' * (size - width_of(shown))}  {end}"


def _end(band: Band) -> str:
    last = band.whole[1] - 1
    said = f"n {band.n}  {band.means[last]:.4g}"
    if not math.isnan(band.low[last]):
        said += f" ± {(band.high[last] - band.low[last]) / 2:.2g}"
    return f"{said} at {compact(band.steps[last])}"

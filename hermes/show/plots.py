"""Curves as text: in dots of braille, with axes and a legend. Works without colours."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from ..errors import escape
from ..query.averaging import Band, Picture
from .table import cut, width_of

COLOURS = (33, 208, 36, 169, 142, 68, 130, 244)
"""Of 256, which can be told apart on light and dark, and by people who see few colours."""

LETTERS = "abcdefgh"
"""Stand at the ends of the curves, so that they can be told apart without colours."""

MOST = len(LETTERS)

MOST_SHADED = 2
"""Intervals that are areas. More of them would hide the curves, and are bars."""

BARS = 24
"""Dots from one bar of a curve to its next."""

FEWEST_COLUMNS, FEWEST_ROWS = 20, 5
"""Of the area in which curves are drawn."""

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bits of the dots in a character of braille, by row and column."""

BLANK = 0x2800

Transform = Callable[[float], float]


def as_text(
    picture: Picture,
    *,
    width: int = 80,
    height: int = 24,
    colour: bool = False,
) -> Iterator[str]:
    """Lines of at most `width` columns: a title, the curves in about `height` lines, a legend.

    At most `MOST` bands of the picture are drawn. Around their means stand the intervals: sparse
    dots, or bars if there are several bands.
    """
    drawn = picture.first(MOST)
    bands, log_x, log_y = drawn.bands, drawn.log_x, drawn.log_y
    to_x, to_y = (math.log10 if is_log else _same for is_log in (log_x, log_y))
    x = _range([step for band in bands for step in band.steps], log=log_x)
    y = _range(_heights(bands, log=log_y), log=log_y)
    rows = max(FEWEST_ROWS, height - 4 - len(bands))
    ticks_y = ticks(*y, most=max(2, rows // 3), log=log_y)
    gutter = max((len(text) for _, text in ticks_y), default=0)
    columns = max(FEWEST_COLUMNS, width - gutter - 4)
    canvas = _Canvas(columns, rows)

    def place(step: float, value: float) -> tuple[float, float]:
        across = (to_x(step) - to_x(x[0])) / (to_x(x[1]) - to_x(x[0]))
        up = (to_y(value) - to_y(y[0])) / (to_y(y[1]) - to_y(y[0]))
        return across * (canvas.width - 1), (1 - up) * (canvas.height - 1)

    ends = []
    for number, band in reversed(list(enumerate(bands))):
        offset = None if len(bands) <= MOST_SHADED else number * BARS // len(bands)
        _shade(canvas, number, band, place, y, offset, log=log_y)
    for number, band in reversed(list(enumerate(bands))):
        ends.append((number, _trace(canvas, number, band, place, log=log_y)))
    yield cut(escape(drawn.title), width)
    labels = {_row_of(value, y, rows, to_y): text for value, text in ticks_y}
    letters = _letters(ends, rows) if len(bands) > 1 else {}
    for row in range(rows):
        text = labels.get(row, "")
        end = letters.get(row)
        line = f"{text:>{gutter}} {'┤' if text else '│'}{canvas.line(row, colour=colour)}"
        yield line if end is None else f"{line} {_painted(LETTERS[end], end, colour)}"
    yield from _x_axis(ticks(*x, most=max(2, columns // 12), log=log_x), x, columns, gutter, to_x)
    yield " " * gutter + "  " + cut(escape(drawn.x), columns).center(columns).rstrip()
    yield from _legend(bands, width, colour=colour)


def _same(value: float) -> float:
    return value


def _range(values: Sequence[float], *, log: bool) -> tuple[float, float]:
    """The ends of an axis. Never equal, and positive on a log axis."""
    there = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    low, high = (min(there), max(there)) if there else (1.0, 1.0)
    if low == high:
        return (low / 2, high * 2) if log else (low - abs(low) / 2 - 1, high + abs(high) / 2 + 1)
    return low, high


def _heights(bands: Sequence[Band], *, log: bool) -> list[float]:
    """The values that the y axis has to hold. An interval may be far wider than what is in it."""
    means = [mean for band in bands for mean in band.means if mean > 0 or not log]
    if not means:
        return []
    room = max(means) - min(means)
    bounds = [bound for band in bands for bound in (*band.low, *band.high)]
    if log:
        return means + [bound for bound in bounds if min(means) / 10 <= bound <= max(means) * 10]
    return means + [
        min(max(bound, min(means) - room), max(means) + room)
        for bound in bounds
        if not math.isnan(bound)
    ]


class _Canvas:
    """Characters of 2 x 4 dots; each has the colour of what was drawn last in it."""

    def __init__(self, columns: int, rows: int) -> None:
        self.width, self.height = 2 * columns, 4 * rows
        self._dots = [[0] * columns for _ in range(rows)]
        self._owners: list[list[int | None]] = [[None] * columns for _ in range(rows)]

    def dot(self, x: int, y: int, owner: int) -> None:
        if 0 <= x < self.width and 0 <= y < self.height:
            self._dots[y // 4][x // 2] |= DOTS[y % 4][x % 2]
            self._owners[y // 4][x // 2] = owner

    def stroke(self, start: tuple[float, float], end: tuple[float, float], owner: int) -> None:
        """A straight line of dots without gaps."""
        (x, y), (to_x, to_y) = start, end
        count = max(1, math.ceil(max(abs(to_x - x), abs(to_y - y))))
        for number in range(count + 1):
            share = number / count
            self.dot(round(x + (to_x - x) * share), round(y + (to_y - y) * share), owner)

    def line(self, row: int, *, colour: bool) -> str:
        parts, last = [], None
        for dots, owner in zip(self._dots[row], self._owners[row], strict=True):
            if colour and owner != last:
                parts.append("\033[0m" if owner is None else _code(owner))
                last = owner
            parts.append(chr(BLANK + dots) if dots else " ")
        text = "".join(parts)
        return text + "\033[0m" if last is not None else text


def _code(owner: int) -> str:
    return f"\033[38;5;{COLOURS[owner % len(COLOURS)]}m"


def _painted(text: str, owner: int, colour: bool) -> str:
    return f"{_code(owner)}{text}\033[0m" if colour else text


def _shade(
    canvas: _Canvas,
    number: int,
    band: Band,
    place: Callable[[float, float], tuple[float, float]],
    y: tuple[float, float],
    offset: int | None,
    *,
    log: bool,
) -> None:
    """Sparse dots between the ends of the interval; with an offset, a bar every now and then."""
    points: list[tuple[float, float, float] | None] = []
    for step, low, high in zip(band.steps, band.low, band.high, strict=True):
        if math.isnan(low) or (log and high <= 0):
            points.append(None)
            continue
        bottom = min(max(low, y[0]), y[1])
        top = min(max(high, y[0]), y[1])
        across, down = place(step, bottom)
        points.append((across, place(step, top)[1], down))
    for before, after in pairwise(points):
        if before is None or after is None:
            continue
        for x in range(math.ceil(before[0]), math.floor(after[0]) + 1):
            share = (x - before[0]) / ((after[0] - before[0]) or 1)
            top = before[1] + (after[1] - before[1]) * share
            down = before[2] + (after[2] - before[2]) * share
            for dot in range(math.ceil(top), math.floor(down) + 1):
                if x % BARS == offset or (offset is None and x % 2 == 0 and dot % 2 == x // 2 % 2):
                    canvas.dot(x, dot, number)


def _trace(
    canvas: _Canvas,
    number: int,
    band: Band,
    place: Callable[[float, float], tuple[float, float]],
    *,
    log: bool,
) -> float:
    """Draws a mean, dotted where some runs are over. Returns how far down its end is, in dots."""
    first, end = band.whole
    points = [
        None if log and mean <= 0 else place(step, mean)
        for step, mean in zip(band.steps, band.means, strict=True)
    ]
    last = 0.0
    for at, point in enumerate(points):
        if point is None:
            continue
        before = points[at - 1] if at else None
        if before is None or not first < at < end:
            canvas.dot(round(point[0]), round(point[1]), number)
        if before is not None:
            if first < at < end:
                canvas.stroke(before, point, number)
            else:
                _dotted(canvas, before, point, number)
        last = point[1]
    return last


def _dotted(
    canvas: _Canvas, start: tuple[float, float], end: tuple[float, float], owner: int
) -> None:
    for x in range(math.ceil(start[0]), math.floor(end[0]) + 1):
        if x % 4 == 0:
            share = (x - start[0]) / ((end[0] - start[0]) or 1)
            canvas.dot(x, round(start[1] + (end[1] - start[1]) * share), owner)


def _letters(ends: Sequence[tuple[int, float]], rows: int) -> dict[int, int]:
    """Which band's letter stands in which row: the nearest that is free to where it ends."""
    found: dict[int, int] = {}
    for number, down in sorted(ends, key=lambda each: each[1]):
        wanted = min(max(int(down) // 4, 0), rows - 1)
        free = [row for row in range(rows) if row not in found]
        if free:
            found[min(free, key=lambda row: (abs(row - wanted), row))] = number
    return found


def _row_of(value: float, ends: tuple[float, float], rows: int, to: Transform) -> int:
    up = (to(value) - to(ends[0])) / (to(ends[1]) - to(ends[0]))
    return min(rows - 1, round((1 - up) * (4 * rows - 1)) // 4)


def _x_axis(
    shown: Sequence[tuple[float, str]],
    ends: tuple[float, float],
    columns: int,
    gutter: int,
    to: Transform,
) -> Iterator[str]:
    line, below = ["─"] * columns, [" "] * (columns + 2)
    free = 0
    for value, text in shown:
        at = round((to(value) - to(ends[0])) / (to(ends[1]) - to(ends[0])) * (columns - 1))
        line[at] = "┬"
        start = min(max(0, at - len(text) // 2), len(below) - len(text))
        if start >= free:
            below[start : start + len(text)] = text
            free = start + len(text) + 1
    yield f"{' ' * gutter} └{''.join(line)}"
    yield f"{' ' * gutter}  {''.join(below)}".rstrip()


def _legend(bands: Sequence[Band], width: int, *, colour: bool) -> Iterator[str]:
    """A line a band: its letter, what it is, how many runs, and where its mean ends."""
    labels = [escape(band.label) for band in bands]
    ends = [_end(band) for band in bands]
    room = width - 4 - max(map(width_of, ends))
    size = min(max(map(width_of, labels)), max(room, 8))
    for number, (label, end) in enumerate(zip(labels, ends, strict=True)):
        shown = cut(label, size)
        mark = _painted(LETTERS[number], number, colour) if len(bands) > 1 else " "
        yield f"{mark} {shown}{' ' * (size - width_of(shown))}  {end}"


def _end(band: Band) -> str:
    last = band.whole[1] - 1
    said = f"n {band.n}  {band.means[last]:.4g}"
    if not math.isnan(band.low[last]):
        said += f" ± {(band.high[last] - band.low[last]) / 2:.2g}"
    return f"{said} at {compact(band.steps[last])}"


def ticks(low: float, high: float, *, most: int, log: bool) -> list[tuple[float, str]]:
    """At most `most` round numbers from `low` to `high`, with their texts."""
    if log:
        found = _log_ticks(low, high, most)
        if len(found) > 1:
            return [(value, compact(value)) for value in found]
    span = high - low
    step = 10.0 ** math.floor(math.log10(span / most))
    step *= next(each for each in (1, 2, 5, 10) if span / (step * each) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(number * step, compact(number * step, step)) for number in range(first, last + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [float(f"{factor}e{power}") for power in powers for factor in factors]
        there = [value for value in found if low * 0.999 <= value <= high * 1.001]
        if len(there) <= most:
            return there
    every = math.ceil(len(there) / most)
    return there[::every]


def compact(value: float, step: float | None = None) -> str:
    """A short text of a number: `20k`, `1.5M`. With the distance to its neighbours it has as many
    digits as tell them apart."""
    if value == 0 or (step is not None and abs(value) < step / 2):
        return "0"
    size = max(abs(value), step or 0)
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if unit <= size < 1e12:
            scale = 1e3 if letter == "k" else unit
            return _short(value / scale, None if step is None else step / scale) + letter
    return _short(value, step)


def _short(value: float, step: float | None) -> str:
    if step is None or not 1e-4 <= abs(step) <= 1e6:
        return f"{value:.4g}"
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"

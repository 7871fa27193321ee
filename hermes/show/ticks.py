"""Round numbers along an axis."""

from __future__ import annotations

import math


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

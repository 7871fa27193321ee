"""Curves in few characters: what a picture on a screen can show of them, and no more."""

from __future__ import annotations

from typing import TypeAlias

from ..query.metrics.curves import Curve

DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
FINEST = 4095
"""A number becomes one of 0 to this between the least and the greatest: two digits of 6 bits."""

HUGE = 1e300
"""From here on the distance of two numbers may be infinite."""

CHARACTERS = 4
"""A point takes: two digits of its step, two of its value."""

Thinned: TypeAlias = "tuple[float, float, float, float, str]"
"""Least and greatest step, least and greatest value, and the points as digits."""


def thinned(curve: Curve, most: int) -> list[tuple[float, float]]:
    """At most so many points of a curve by rising steps, among them each bucket's least and
    greatest value, so that no peak is lost. What is not finite, or beyond `HUGE`, is left out.
    """
    pairs = zip(curve.steps, curve.values, strict=True)
    points = [each for each in pairs if abs(each[0]) < HUGE and abs(each[1]) < HUGE]
    points.sort(key=lambda point: point[0])
    if len(points) <= most:
        return points
    buckets = max(1, (most - 2) // 2)
    inner = points[1:-1]
    kept = [points[0]]
    for number in range(buckets):
        bucket = range(len(inner) * number // buckets, len(inner) * (number + 1) // buckets)
        if bucket:
            least = min(bucket, key=lambda i: inner[i][1])
            greatest = max(bucket, key=lambda i: inner[i][1])
            kept += [inner[i] for i in sorted({least, greatest})]
    return [*kept, points[-1]]


def packed(curve: Curve, most: int) -> Thinned | None:
    """At most `most` points of a curve as text; None if it has no finite point."""
    points = thinned(curve, most)
    if not points:
        return None
    steps, values = zip(*points, strict=True)
    x0, x1, y0, y1 = min(steps), max(steps), min(values), max(values)
    text = "".join(_digits(x, x0, x1) + _digits(y, y0, y1) for x, y in points)
    return _short(x0), _short(x1), _short(y0), _short(y1), text


def _short(value: float) -> float:
    return float(f"{value:.7g}")


def _digits(value: float, least: float, greatest: float) -> str:
    width = greatest - least
    level = round((value - least) / width * FINEST) if width else 0
    return DIGITS[level >> 6] + DIGITS[level & 63]

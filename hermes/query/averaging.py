"""Curves of groups: their mean over the runs, and how sure that is at each step.

What is done to the numbers (interpolation, thinning, smoothing, what is left out) is told in notes.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TypedDict

import msgspec
from msgspec.structs import replace

from ..errors import HermesError
from .grouping import Grouping, label, listed
from .metrics.curves import Curve
from .statistics import mean_interval, mean_of

MOST_POINTS = 1000
"""Steps at which a mean is computed and drawn: more than a picture has columns."""


class PlotArguments(TypedDict, total=False):
    """What may be said about a plot.

    `x` is the metric on the x axis, by default the step. `group_by` names columns, or `all-but
    seed`; `with_failed` includes what has not finished. With `smooth` each value of a run is the
    mean of so many: itself and those before it.
    """

    x: str | None
    group_by: str | Sequence[str] | None
    smooth: int
    log_x: bool
    log_y: bool
    with_failed: bool


class Band(msgspec.Struct, kw_only=True):
    """The mean of a group's curves. `low` and `high` are the 95 % interval of the mean by Student's
    t at each step, NaN where there is one run. `counts` is how many runs there are at each step.
    """

    label: str
    steps: list[float]
    means: list[float]
    low: list[float]
    high: list[float]
    counts: list[int]

    @property
    def n(self) -> int:
        """Runs of the group that have the metric."""
        return max(self.counts)

    @property
    def is_point(self) -> bool:
        """Whether there is nothing to draw a line through."""
        return len(self.steps) == 1

    @property
    def whole(self) -> tuple[int, int]:
        """The first and the last place at which all runs are there; the last is exclusive."""
        most = self.n
        first = self.counts.index(most)
        return first, len(self.counts) - self.counts[::-1].index(most)


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """What is drawn: `bands`, in the order of the groups, under names for both axes, which may be
    logarithmic."""

    metric: str
    x: str
    log_x: bool
    log_y: bool
    smoothed: int
    bands: tuple[Band, ...]
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """What the curves are, and what was done to them."""
        said = self.metric
        if self.smoothed > 1:
            said += f", running mean of {self.smoothed} values"
        if any(band.n > 1 for band in self.bands):
            said += ": mean and 95 % interval"
        return said

    def heights(self) -> list[float]:
        """Values that the y axis has to hold. Of intervals that are far wider than what they are
        about, only a part."""
        means = [mean for band in self.bands for mean in band.means if mean > 0 or not self.log_y]
        intervals = [
            interval
            for band in self.bands
            for interval in list(zip(band.low, band.high, strict=True))[slice(*band.whole)]
            if not math.isnan(interval[0])
        ]
        if not means or not intervals:
            return means
        low, high = min(means), max(means)
        bounds = [bound for interval in intervals for bound in interval]
        if self.log_y:
            return [*means, *(bound for bound in bounds if low / 10 <= bound <= high * 10)]
        widths = sorted(top - bottom for bottom, top in intervals)
        room = max(high - low, widths[len(widths) * 9 // 10])
        return [*means, *(min(max(bound, low - room), high + room) for bound in bounds)]

    def first(self, most: int) -> Picture:
        """With so many bands at most; that there are more is told."""
        count = len(self.bands)
        if count <= most:
            return self
        note = f"{most} of {count} groups are drawn; a filter or `--group-by` chooses others"
        return replace(self, bands=self.bands[:most], notes=(*self.notes, note))


def pictured(
    grouping: Grouping,
    curves: Mapping[str, Curve],
    metric: str,
    *,
    across: Mapping[str, Curve] | None = None,
    x: str = "",
    smooth: int = 1,
    log_x: bool = False,
    log_y: bool = False,
) -> Picture:
    """The mean curve of each group.

    `curves` are those of the metric by identifier. `across` are curves whose values stand on the
    x axis, under the name `x`, in place of the steps; values that share a step belong together.
    `smooth` values of each run are averaged before anything else: each with those before it.
    Raises `HermesError` if there is nothing to draw.
    """
    if smooth < 1:
        raise HermesError(f"cannot smooth over {smooth} values", hint="1 does not smooth")
    notes = list(grouping.notes)
    told = _Told()
    bands = []
    for group in grouping.groups:
        name = label(grouping.names, group)
        lines = [
            line
            for row in group.rows
            if (line := _line(row.identifier, curves, across, told, smooth, log_x=log_x))
        ]
        if missing := len(group.rows) - len(lines):
            told.missing.append(f"{missing} of {len(group.rows)} of {name}")
        if lines:
            bands.append(_band(name, lines, told, log_x=log_x))
    if not bands:
        raise HermesError(
            f"none of the experiments has the metric `{metric}`", hint=_hint(grouping)
        )
    if log_y:
        for band in bands:
            told.not_positive += sum(mean <= 0 for mean in band.means)
    return Picture(
        metric=metric,
        x=x or "step",
        log_x=log_x,
        log_y=log_y,
        smoothed=smooth,
        bands=tuple(bands),
        notes=(*notes, *told.notes(metric, x or "step")),
    )


def _hint(grouping: Grouping) -> str | None:
    left_out = sum(group.left_out.total() for group in grouping.groups)
    counts = any(group.rows for group in grouping.groups)
    return (
        "`--with-failed` includes those that have not finished" if left_out and not counts else None
    )


class _Told:
    """What was done to curves, as it comes up."""

    def __init__(self) -> None:
        self.missing: list[str] = []
        self.unequal: list[str] = []
        self.interpolated: list[str] = []
        self.thinned: list[str] = []
        self.not_finite = 0
        self.not_positive = 0
        self.not_on_x = 0
        self.overwritten = 0

    def notes(self, metric: str, x: str) -> list[str]:
        found = []
        if self.missing:
            found.append(f"`{metric}` is missing in {listed(self.missing)}")
        if self.unequal:
            found.append(
                f"runs end at different {x}s, dotted where some are over: {listed(self.unequal)}"
            )
        if self.interpolated:
            found.append(
                f"runs have different {x}s, so that there are straight lines between "
                f"their values: {listed(self.interpolated)}"
            )
        if self.thinned:
            found.append(f"drawn at {MOST_POINTS} places: {listed(self.thinned)}")
        for count, why in (
            (self.not_finite, "infinite or no number, lines go straight over them"),
            (self.not_on_x, f"no {x}, or none that the axis can have"),
            (self.overwritten, f"written again at the same {x}, the last one counts"),
        ):
            if count:
                found.append(f"{count} {'value' if count == 1 else 'values'} left out: {why}")
        if self.not_positive:
            found.append(f"{self.not_positive} means are not positive: a log axis leaves them out")
        return found


class _Line(msgspec.Struct):
    """One run, by ascending steps, each once."""

    steps: Sequence[float]
    values: Sequence[float]

    def at(self, steps: Sequence[float]) -> list[float]:
        """The values at steps, on straight lines between its own; NaN before and after it."""
        found = []
        last = len(self.steps) - 1
        for step in steps:
            place = bisect_right(self.steps, step) - 1
            if place < 0 or (place == last and step > self.steps[last]):
                found.append(math.nan)
            elif self.steps[place] == step:
                found.append(self.values[place])
            else:
                before, after = self.steps[place], self.steps[place + 1]
                share = (step - before) / (after - before)
                found.append(self.values[place] * (1 - share) + self.values[place + 1] * share)
        return found


def _line(
    identifier: str,
    curves: Mapping[str, Curve],
    across: Mapping[str, Curve] | None,
    told: _Told,
    smooth: int,
    *,
    log_x: bool,
) -> _Line | None:
    curve = curves.get(identifier)
    if curve is None:
        return None
    places: Sequence[float] = curve.steps
    if across is not None:
        other = across.get(identifier, Curve())
        by_step = dict(zip(other.steps, other.values, strict=True))
        places = [by_step.get(step, math.nan) for step in curve.steps]
    points = []
    for place, value in zip(places, curve.values, strict=True):
        if not math.isfinite(value):
            told.not_finite += 1
        elif not math.isfinite(place) or (log_x and place <= 0):
            told.not_on_x += 1
        else:
            points.append((place, value))
    if not points:
        return None
    if any(before[0] >= after[0] for before, after in pairwise(points)):
        kept = dict(points)
        told.overwritten += len(points) - len(kept)
        points = sorted(kept.items())
    steps = array("d", (step for step, _ in points))
    values = array("d", (value for _, value in points))
    return _Line(steps, smoothed(values, smooth))


def smoothed(values: Sequence[float], window: int) -> Sequence[float]:
    """The running mean: of each value and those before it, `window` in all, fewer at the start."""
    if window == 1:
        return values
    found: list[float] = []
    latest: deque[float] = deque(maxlen=window)
    for value in values:
        latest.append(value)
        # Summed anew each time: taking away what leaves would add up errors
        found.append(mean_of(latest) if len(latest) < 64 else math.fsum(latest) / len(latest))
    return found


def _band(name: str, lines: Sequence[_Line], told: _Told, *, log_x: bool) -> Band:
    first = lines[0].steps
    same = all(len(line.steps) == len(first) and line.steps == first for line in lines)
    steps = list(first) if same else sorted({step for line in lines for step in line.steps})
    ends = [line.steps[-1] for line in lines]
    if min(ends) < max(ends):
        told.unequal.append(f"{name}: {min(ends):g} to {max(ends):g}")
    if not same and _between(lines, steps):
        told.interpolated.append(name)
    if len(steps) > MOST_POINTS:
        told.thinned.append(f"{name} has {len(steps)} steps")
        steps = _spread(steps, log_x=log_x)
    columns = list(zip(*(line.at(steps) for line in lines), strict=True))
    band = Band(label=name, steps=[], means=[], low=[], high=[], counts=[])
    for step, column in zip(steps, columns, strict=True):
        there = [value for value in column if not math.isnan(value)]
        if not there:
            continue
        low, high = mean_interval(there)
        band.steps.append(step)
        band.means.append(mean_of(there))
        band.low.append(low)
        band.high.append(high)
        band.counts.append(len(there))
    return band


def _between(lines: Sequence[_Line], steps: Sequence[float]) -> bool:
    """Whether a run lacks a step between its first and its last one, at which others have one."""
    for line in lines:
        within = bisect_right(steps, line.steps[-1]) - bisect_right(steps, line.steps[0]) + 1
        if within != len(line.steps):
            return True
    return False


def _spread(steps: Sequence[float], *, log_x: bool) -> list[float]:
    """Some of the steps, at about equal distances on the axis, the first and the last too."""
    low, high = steps[0], steps[-1]
    found = {low, high}
    for number in range(1, MOST_POINTS - 1):
        share = number / (MOST_POINTS - 1)
        wanted = low * (high / low) ** share if log_x else low + (high - low) * share
        found.add(steps[min(bisect_right(steps, wanted), len(steps) - 1)])
    return sorted(found)

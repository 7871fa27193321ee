"""What is known of a metric: its curve, and what sums it up."""

from __future__ import annotations

import math
from array import array

import msgspec


class Curve(msgspec.Struct):
    """The values of one metric in the order in which they were written, each with its step.

    A step is what the file says it is, else the number of the value, counted from 0. Values may be
    infinite or no number.
    """

    steps: array[float] = msgspec.field(default_factory=lambda: array("d"))
    values: array[float] = msgspec.field(default_factory=lambda: array("d"))

    def add(self, step: float, value: float) -> None:
        self.steps.append(step)
        self.values.append(value)

    def __len__(self) -> int:
        return len(self.values)


class Summary(msgspec.Struct, array_like=True, gc=False):
    """A curve in a few numbers.

    `count` is the number of values, `last` the one that was written last, and `last_step` its
    step. `min`, `max` and `mean` leave out what is no number; they are NaN if nothing is left.
    `valid` is the number of values that are in them.
    """

    count: int = 0
    valid: int = 0
    last_step: float = math.nan
    last: float = math.nan
    min: float = math.nan
    max: float = math.nan
    mean: float = math.nan

    def add(self, step: float, value: float) -> None:
        """Takes up the next value of the curve."""
        self.count += 1
        self.last_step, self.last = step, value
        if math.isnan(value):
            return
        self.valid += 1
        if self.valid == 1:
            self.min = self.max = self.mean = value
            return
        self.min = min(self.min, value)
        self.max = max(self.max, value)
        self.mean += (value - self.mean) / self.valid

    @classmethod
    def of(cls, curve: Curve) -> Summary:
        """What sums up a whole curve."""
        summary = cls()
        for step, value in zip(curve.steps, curve.values, strict=True):
            summary.add(step, value)
        return summary

"""What is known of a metric: its curve, and what sums it up."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

import msgspec


class Curve(msgspec.Struct):
    """The values of one metric in the order in which they were written, each with its step.

    A step is what the file says it is, else the number of the value, counted from 0. Values may be
    infinite or no number.
    """

    steps: array[float] = msgspec.field(default_factory=lambda: array("d"))
    values: array[float] = msgspec.field(default_factory=lambda: array("d"))

    def add(self, step: float, value: float) -> None:
        self.extend((step,), (value,))

    def extend(self, steps: Sequence[float], values: Sequence[float]) -> None:
        """Takes up the next values, each with its step."""
        self.steps.extend(steps)
        self.values.extend(values)

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
        self.extend((step,), (value,))

    def extend(self, steps: Sequence[float], values: Sequence[float]) -> None:
        """Takes up the next values of the curve, at least one, each with its step."""
        self.count += len(values)
        self.last_step, self.last = steps[-1], values[-1]
        valid = [value for value in values if value == value]
        if not valid:
            return
        mean = sum(valid) / len(valid)
        if self.valid:
            share = len(valid) / (self.valid + len(valid))
            self.mean += (mean - self.mean) * share
            self.min, self.max = min(self.min, *valid), max(self.max, *valid)
        else:
            self.mean, self.min, self.max = mean, min(valid), max(valid)
        self.valid += len(valid)

    @classmethod
    def of(cls, curve: Curve) -> Summary:
        """What sums up a whole curve."""
        summary = cls()
        if curve.values:
            summary.extend(curve.steps, curve.values)
        return summary

"""The curve of a metric."""

from __future__ import annotations

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

    def extend(self, steps: Sequence[float], values: Sequence[float]) -> None:
        """Takes up the next values, each with its step."""
        self.steps.extend(steps)
        self.values.extend(values)

    def __len__(self) -> int:
        return len(self.values)

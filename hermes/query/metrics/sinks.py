"""Where readers put what they find: curves, or what sums them up, by the names of metrics."""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import lru_cache
from typing import Generic, TypeVar

from ...storage.metadata import Summary
from .curves import Curve

MOST_NAMES = 500
"""Metrics of one file: one that seems to hold more holds something else."""

STEPS = (
    "step", "global_step", "steps", "total_timesteps", "time/total_timesteps", "timesteps",
    "timestep", "num_timesteps", "env_step", "iteration", "iter", "update", "epoch", "episode",
)  # fmt: skip
"""Names of columns that say at which step a row was written, the best first."""

Target = TypeVar("Target", Curve, Summary)


AT_ONCE = 100
"""Values that are taken up together: to take up each alone would take three times as long."""


class Sink(Generic[Target]):
    """Takes the values of one file. With `names` only those of these metrics."""

    def __init__(self, kind: type[Target], names: Collection[str] | None = None) -> None:
        self._found: dict[str, Target] = {}
        self._waiting: dict[str, tuple[list[float], list[float]]] = {}
        self._kind: type[Target] = kind
        self._names = names

    @property
    def found(self) -> dict[str, Target]:
        """What came of the values, by the names of the metrics."""
        for name in self._waiting:
            self._take_up(name)
        return self._found

    def add(self, name: str, step: float, value: float) -> None:
        waiting = self._waiting.get(name)
        if waiting is None:
            if not self._is_wanted(name):
                return
            waiting = self._waiting[name] = [], []
        steps, values = waiting
        steps.append(step)
        values.append(value)
        if len(values) >= AT_ONCE:
            self._take_up(name)

    def _is_wanted(self, name: str) -> bool:
        if len(self._waiting) >= MOST_NAMES:
            return False
        # A name may get its folder before it, where two files have it
        return self._names is None or any(
            each == name or each.endswith(f"/{name}") for each in self._names
        )

    def _take_up(self, name: str) -> None:
        steps, values = self._waiting[name]
        if values:
            self._found.setdefault(name, self._kind()).extend(steps, values)
            steps.clear()
            values.clear()


def step_name(names: Collection[str]) -> str | None:
    """Which of the columns tells the step, if one does."""
    return _step_name(tuple(names))


@lru_cache(maxsize=1000)
def _step_name(names: tuple[str, ...]) -> str | None:
    # A file has the same columns again and again
    by_lower = {name.lower(): name for name in reversed(names)}
    return next((by_lower[each] for each in STEPS if each in by_lower), None)


def number(text: str) -> float | None:
    """The number that a text is, None if it is none."""
    if "_" in text:
        # Python would take `1_0` for a number
        return None
    try:
        return float(text)
    except ValueError:
        return None


def as_float(value: float) -> float:
    """An int that is too large for a float is infinite, as it is where numbers are texts."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf

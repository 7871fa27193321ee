"""Where readers put what they find: curves, or what sums them up, by the names of metrics."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import Generic, TypeVar

from .curves import Curve, Summary

MOST_NAMES = 500
"""Metrics of one file: one that seems to hold more holds something else."""

STEPS = (
    "step", "global_step", "steps", "total_timesteps", "time/total_timesteps", "timesteps",
    "timestep", "num_timesteps", "env_step", "iteration", "iter", "update", "epoch", "episode",
)  # fmt: skip
"""Names of columns that say at which step a row was written, the best first."""

Target = TypeVar("Target", Curve, Summary)


class Sink(Generic[Target]):
    """Takes the values of one file. With `names` only those of these metrics."""

    def __init__(self, kind: type[Target], names: Collection[str] | None = None) -> None:
        self.found: dict[str, Target] = {}
        self._kind: type[Target] = kind
        self._names = names

    def add(self, name: str, step: float, value: float) -> None:
        target = self.found.get(name)
        if target is None:
            if len(self.found) >= MOST_NAMES or (
                # A name may get its folder before it, where two files have it
                self._names is not None
                and not any(each == name or each.endswith(f"/{name}") for each in self._names)
            ):
                return
            target = self.found[name] = self._kind()
        target.add(step, value)


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

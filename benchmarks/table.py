"""What a row has found out: its figures and targets, printed or written as JSON."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SENSES: Mapping[str, Callable[[float, float], bool]] = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True)
class Figures:
    """What one contender took, a figure for every turn."""

    name: str
    values: list[float]
    unit: str = "s"
    ratios: list[float] | None = None
    """To the reference of the row, turn by turn."""


@dataclass(frozen=True)
class Target:
    """Something that must be reached, and the figures that decide, one a turn.

    `figures` is None if they could not be measured here.
    """

    what: str
    sense: str
    limit: float
    figures: Sequence[float] | None
    unit: str = "x"

    @property
    def reached(self) -> str:
        if not self.figures:
            return "not measured"
        return "yes" if SENSES[self.sense](statistics.median(self.figures), self.limit) else "no"


@dataclass
class Row:
    """One benchmark's result. `raw` is whatever else was measured, for the JSON file."""

    title: str
    reference: str = ""
    figures: list[Figures] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)

    def lines(self, *, judged: bool = True) -> Iterator[str]:
        """What people read; whether targets are reached only if `judged`."""
        yield self.title
        names = [each.name for each in self.figures] + [target.what for target in self.targets]
        wide = max(map(len, names))
        if self.figures:
            relative = f"relative to {self.reference}" if self.reference else ""
            yield f"  {'':{wide}} {'median':>14}  {relative}".rstrip()
        for each in self.figures:
            ratios = with_spread(each.ratios, "") if each.ratios else ""
            middle = shown(statistics.median(each.values), each.unit)
            yield f"  {each.name:{wide}} {middle:>14}  {ratios}".rstrip()
        yield from (f"  {note}" for note in self.notes)
        if not judged:
            return
        yield f"  {'must reach':{wide}} {'':>14}  {'measured':26} reached"
        for target in self.targets:
            limit = f"{target.sense} {target.limit:g} {target.unit}"
            measured = with_spread(target.figures, target.unit) if target.figures else ""
            yield f"  {target.what:{wide}} {limit:>14}  {measured:26} {target.reached}"

    def as_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "reference": self.reference or None,
            "figures": [
                {
                    "name": each.name,
                    "unit": each.unit,
                    "values": each.values,
                    "relative": each.ratios,
                    "median": statistics.median(each.values),
                }
                for each in self.figures
            ],
            "targets": [
                {
                    "what": target.what,
                    "must_be": f"{target.sense} {target.limit:g}",
                    "unit": target.unit,
                    "values": list(target.figures) if target.figures else None,
                    "median": statistics.median(target.figures) if target.figures else None,
                    "reached": target.reached,
                }
                for target in self.targets
            ],
            "notes": self.notes,
            "raw": self.raw,
        }


def count(turns: int) -> str:
    return f"{turns} turn{'' if turns == 1 else 's'}"


def shown(value: float, unit: str) -> str:
    digits = (
        0
        if abs(value) >= 1000
        else 1
        if abs(value) >= 100
        else 2
        if abs(value) >= 1 or not value
        else 3
    )
    return f"{value:,.{digits}f} {unit}".rstrip()


def with_spread(values: Sequence[float], unit: str) -> str:
    """The median, and the lowest and the highest."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{shown(middle, unit)} ({shown(low, '')}..{shown(high, '')})"

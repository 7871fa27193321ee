"""An experiment as a row of columns, whose values are typed one by one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import combinations
from typing import TypeAlias

from ..model import Status
from ..storage.metadata import Summary

Value: TypeAlias = "bool | int | float | str | datetime | tuple[Value, ...]"
"""A cell. Nothing is there where it is None."""


ASPECTS = ("last", "min", "max", "mean", "count")
"""What may stand behind the name of a metric: `return.max`. The name alone is the last value."""


def as_text(value: Value) -> str:
    """A value as a filter takes it: times as ISO 8601, `true` and `false`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, tuple):
        return " ".join(map(as_text, value))
    return str(value)


def comparable(value: Value | None) -> object:
    """Equal for values that are the same to a person."""
    # True is 1 to Python
    return (type(value) is bool, None if value is None else value if value == value else "nan")


class Kind(StrEnum):
    """Where a column comes from; its value is the prefix that says so in a filter: `arg:lr`."""

    PARAMETER = "param"
    ARGUMENT = "arg"
    METRIC = "metric"
    META = "meta"


Clash: TypeAlias = tuple[str, Kind, Kind]
"""A name and two kinds of columns in which it stands for different values."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column that was asked for: `lr`, `arg:lr`, `return.max`.

    `kinds` are where it is looked for: more than one if all that have it say the same. `name` is
    without prefix. Of a metric `name` is `return` or `return.max`.
    """

    name: str
    kinds: tuple[Kind, ...]

    def __hash__(self) -> int:
        # Quick, and few columns have the same name
        return hash(self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One experiment. `cells` are its typed values but for metrics, `raw` the texts of parameters
    and arguments as they were written, both by kind and name; `metrics` sum up its curves by name.
    """

    identifier: str
    directory: str
    status: Status
    cells: Mapping[Kind, Mapping[str, Value]]
    raw: Mapping[Kind, Mapping[str, str]]
    metrics: Mapping[str, Summary] = field(default_factory=dict)

    @property
    def names(self) -> Mapping[Kind, Collection[str]]:
        """The names of its columns, in their order."""
        return {
            kind: self.metrics.keys() if kind is Kind.METRIC else self.cells.get(kind, {}).keys()
            for kind in Kind
        }

    @property
    def clashes(self) -> Sequence[Clash]:
        """The names that stand for different values in it."""
        return [
            (name, one, other)
            for one, other in combinations(Kind, 2)
            for name in {*self.names[one]} & {*self.names[other]}
            if len({comparable(self.value(Column(name, (kind,)))) for kind in (one, other)}) > 1
        ]

    def value(self, column: Column) -> Value | None:
        """The row's value of a column, None if it has none."""
        for kind in column.kinds:
            is_metric = kind is Kind.METRIC
            found: Value | None = (
                self._metric(column.name)
                if is_metric
                else self.cells.get(kind, {}).get(column.name)
            )
            if found is not None:
                return found
        return None

    def text(self, column: Column) -> str:
        """The value as it was written, empty if there is none."""
        for kind in column.kinds:
            written = self.raw.get(kind, {}).get(column.name)
            if written is not None:
                return written
        found = self.value(column)
        return "" if found is None else as_text(found)

    def _metric(self, name: str) -> float | None:
        metric, _, aspect = name.rpartition(".")
        if name in self.metrics:
            metric, aspect = name, "last"
        summary = self.metrics.get(metric)
        return getattr(summary, aspect) if summary and aspect in ASPECTS else None

"""Comparing groups of experiments by their metrics.

Nothing is averaged in silently: what is left out, missing or of another length is told in notes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from ..errors import HermesError
from .grouping import Group, Grouping, counted, key_of, label, listed
from .rows import Column, Kind, Row
from .statistics import Statistics
from .tables import NOTHING, Table, as_html, decimals, written

MOST_METRICS = 8
"""Metrics that are compared if none is named; the others are named in a note."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What a metric says of a group. `missing` runs do not have it, of `not_finite` it is infinite
    or no number; neither are in the statistics."""

    group: Group
    statistics: Statistics
    missing: int = 0
    not_finite: int = 0


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Groups of experiments and the statistics of their metrics.

    `entries` are by metric, in the order of `groups`. `notes` say what has to be known before the
    numbers are believed: runs that were left out, seeds that are missing, lengths that differ.
    """

    names: tuple[str, ...]
    metrics: tuple[str, ...]
    groups: tuple[Group, ...]
    entries: dict[str, tuple[Entry, ...]]
    notes: tuple[str, ...]

    @property
    def rows(self) -> list[dict[str, object]]:
        """A mapping a metric and group: the group's columns, `metric`, `n`, `left_out`, `missing`,
        and what `Statistics` has. A column that has one of these names is `group:n`."""
        own = {"metric", "left_out", "missing", *Statistics.__struct_fields__}
        names = [f"group:{name}" if name in own else name for name in self.names]
        return [
            {
                **dict(zip(names, entry.group.values, strict=True)),
                "metric": metric,
                "n": entry.statistics.n,
                "left_out": entry.group.left_out.total(),
                "missing": entry.missing + entry.not_finite,
                **{
                    name: getattr(entry.statistics, name)
                    for name in Statistics.__struct_fields__
                    if name != "n"
                },
            }
            for metric in self.metrics
            for entry in self.entries[metric]
        ]

    def tables(self, *, pivot: bool = False) -> list[Table]:
        """The statistics as texts: a table a metric, a row a group. As a `pivot` the values of the
        last column become columns, or the metrics if there is but one."""
        return _pivots(self) if pivot else _plain(self)

    def __repr__(self) -> str:
        count = len(self.groups)
        return f"<Comparison of {count} group{'s' * (count != 1)} by {', '.join(self.metrics)}>"

    def _repr_html_(self) -> str:
        return as_html(self.tables(), self.notes)


def compared(grouping: Grouping, metrics: Sequence[str] = ()) -> Comparison:
    """Compares groups by metrics, such as `return` or `return.max`; without, by those they have.

    Raises `HermesError` if there is none.
    """
    there = dict.fromkeys(
        name for group in grouping.groups for row in group.rows for name in row.metrics
    )
    notes = list(grouping.notes)
    chosen = list(dict.fromkeys(metrics)) or list(there)[:MOST_METRICS]
    if not chosen:
        counts = sum(len(group.rows) for group in grouping.groups)
        raise HermesError(
            f"none of {counts} experiments has a metric"
            if counts
            else "none of the experiments has finished",
            hint=None if counts else "`--with-failed` includes the others",
        )
    if not metrics and len(there) > len(chosen):
        others = ", ".join(f"`{name}`" for name in list(there)[MOST_METRICS:])
        notes.append(f"there are more metrics: {others}")
    entries = {}
    for metric in chosen:
        entries[metric] = tuple(_entry(metric, group) for group in grouping.groups)
        notes += _of_metric(metric, grouping, entries[metric])
    return Comparison(
        names=grouping.names,
        metrics=tuple(chosen),
        groups=grouping.groups,
        entries=entries,
        notes=tuple(notes),
    )


def _entry(metric: str, group: Group) -> Entry:
    column = Column(metric, (Kind.METRIC,))
    found = [row.value(column) for row in group.rows]
    numbers = [float(each) for each in found if isinstance(each, int | float)]
    finite = [number for number in numbers if math.isfinite(number)]
    return Entry(
        group=group,
        statistics=Statistics.of(finite),
        missing=len(found) - len(numbers),
        not_finite=len(numbers) - len(finite),
    )


def _of_metric(metric: str, grouping: Grouping, entries: Sequence[Entry]) -> list[str]:
    notes = []
    for what, counts in (
        ("missing", [entry.missing for entry in entries]),
        ("infinite or no number", [entry.not_finite for entry in entries]),
    ):
        where = [
            f"{count} of {len(entry.group.rows)} of {label(grouping.names, entry.group)}"
            for count, entry in zip(counts, entries, strict=True)
            if count
        ]
        if where:
            notes.append(f"`{metric}` is {what} in {listed(where)}: left out")
    unequal = []
    for group in grouping.groups:
        steps = [_last_step(row, metric) for row in group.rows]
        known = [step for step in steps if not math.isnan(step)]
        if known and min(known) < max(known):
            unequal.append(f"{label(grouping.names, group)}: {min(known):g} to {max(known):g}")
    if unequal:
        notes.append(f"`{metric}` ends at different steps: {listed(unequal)}")
    return notes


def _last_step(row: Row, metric: str) -> float:
    name = metric if metric in row.metrics else metric.rpartition(".")[0]
    return row.metrics[name].last_step if name in row.metrics else math.nan


def _plain(comparison: Comparison) -> list[Table]:
    """A table a metric, a row a group."""
    some_left_out = any(group.left_out for group in comparison.groups)
    head = (
        *comparison.names,
        "n",
        *(("left out",) if some_left_out else ()),
        *("mean", "95 % interval", "std", "min", "max", "IQM", "95 % interval of IQM"),
    )
    first = len(comparison.names)
    return [
        Table(
            title=metric,
            head=head,
            joined=frozenset(i for i, name in enumerate(head) if i > first and "interval" in name),
            rows=tuple(
                (
                    *_texts(entry.group),
                    str(entry.statistics.n),
                    *((counted(entry.group.left_out) or NOTHING,) if some_left_out else ()),
                    *_cells(entry.statistics),
                )
                for entry in comparison.entries[metric]
            ),
            texts=first,
        )
        for metric in comparison.metrics
    ]


def _pivots(comparison: Comparison) -> list[Table]:
    """A table a metric, whose columns are the values of the last column that was grouped by.

    With one such column it is one table, whose columns are the metrics.
    """
    if len(comparison.names) < 2:
        return [
            Table(
                title="mean and 95 % interval",
                head=(*comparison.names, *comparison.metrics),
                rows=tuple(
                    (
                        *_texts(group),
                        *(_cell(comparison.entries[each][i]) for each in comparison.metrics),
                    )
                    for i, group in enumerate(comparison.groups)
                ),
                texts=len(comparison.names),
            )
        ]
    return [_pivot(comparison, metric) for metric in comparison.metrics]


def _pivot(comparison: Comparison, metric: str) -> Table:
    columns = {
        key_of(group.values[-1]): group.texts[-1] or f"no {comparison.names[-1]}"
        for group in sorted(comparison.groups, key=lambda group: group.rank[-1])
    }
    rows: dict[object, dict[object, Entry]] = {}
    for entry in comparison.entries[metric]:
        *left, right = map(key_of, entry.group.values)
        rows.setdefault(tuple(left), {})[right] = entry
    last = comparison.names[-1]
    return Table(
        title=f"{metric}: mean and 95 % interval",
        head=(*comparison.names[:-1], *(f"{last} {text}" for text in columns.values())),
        rows=tuple(
            (
                *_texts(next(iter(entries.values())).group)[:-1],
                *(_cell(entries[key]) if key in entries else NOTHING for key in columns),
            )
            for entries in rows.values()
        ),
        texts=len(comparison.names) - 1,
    )


def _texts(group: Group) -> tuple[str, ...]:
    return tuple(text or NOTHING for text in group.texts)


def _cells(found: Statistics) -> tuple[str, ...]:
    digits = decimals(found.std, found.mean)
    return (
        written(found.mean, digits),
        _interval(found.low, found.high, digits),
        written(found.std, digits),
        written(found.min, digits),
        written(found.max, digits),
        written(found.iqm, digits),
        _interval(found.iqm_low, found.iqm_high, digits),
    )


def _cell(entry: Entry) -> str:
    """`195.3 ± 4.1 (n 5)`: the mean, and half of its interval."""
    found = entry.statistics
    if not found.n:
        return NOTHING
    if math.isnan(found.low):
        return f"{written(found.mean, None)} (n {found.n})"
    half = (found.high - found.low) / 2
    digits = decimals(half, found.mean)
    return f"{written(found.mean, digits)} ± {written(half, digits)} (n {found.n})"


def _interval(low: float, high: float, digits: int | None) -> str:
    if math.isnan(low):
        return NOTHING
    return f"[{written(low, digits)}, {written(high, digits)}]"

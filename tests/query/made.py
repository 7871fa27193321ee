"""Rows and curves as tests need them, made without a disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count

from hermes import Status
from hermes.query.metrics.curves import Curve
from hermes.query.rows import Kind, Row, Value
from hermes.storage.metadata import Summary

_numbers = count()


def curve(values: Sequence[float], steps: Sequence[float] | None = None) -> Curve:
    """A curve of these values, at 0, 1, 2 and so on if nothing else is said."""
    made = Curve()
    made.extend(steps or range(len(values)), values)
    return made


def summary_of(curve: Curve) -> Summary:
    """What sums up a curve that has a value."""
    summary = Summary()
    summary.extend(curve.steps, curve.values)
    return summary


def row(
    parameters: Mapping[str, Value] | None = None,
    metrics: Mapping[str, float | Sequence[float]] | None = None,
    *,
    status: Status = Status.FINISHED,
    arguments: Mapping[str, Value] | None = None,
) -> Row:
    """An experiment; a metric is its last value, or all of its values."""
    number = next(_numbers)
    cells = {Kind.PARAMETER: dict(parameters or {}), Kind.ARGUMENT: dict(arguments or {})}
    curves = {
        name: curve([values] if isinstance(values, int | float) else values)
        for name, values in (metrics or {}).items()
    }
    return Row(
        identifier=f"2026_01_02_{number:012d}_00000",
        directory=f"experiments/train/test/{number}",
        status=status,
        cells=cells,
        raw={kind: {name: str(each) for name, each in cells[kind].items()} for kind in cells},
        metrics={name: summary_of(each) for name, each in curves.items()},
    )

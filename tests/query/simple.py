"""Rows made without a disk, and experiment directories made without a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from itertools import count
from pathlib import Path
from typing import Any

from hermes import Status
from hermes.query import filters
from hermes.query.columns import Columns
from hermes.query.filters import Filter
from hermes.query.rows import Kind, Row, Value
from hermes.storage.metadata import Metadata, Summary, Versions, write_metadata

START = datetime(2026, 11, 20, 12, 0, tzinfo=timezone(timedelta(hours=1)))
_numbers = count()


def row(
    parameters: Mapping[str, Value] | None = None,
    metrics: Mapping[str, Sequence[float]] | None = None,
    *,
    arguments: Mapping[str, Value] | None = None,
    meta: Mapping[str, Value] | None = None,
) -> Row:
    """An experiment that has finished, with the values of its metrics."""
    summaries = {}
    for name, values in (metrics or {}).items():
        summaries[name] = Summary()
        summaries[name].extend(range(len(values)), values)
    return Row(
        identifier=identifier(next(_numbers)),
        directory="nowhere",
        status=Status.FINISHED,
        cells={
            Kind.PARAMETER: parameters or {},
            Kind.ARGUMENT: arguments or {},
            Kind.META: meta or {},
        },
        raw={},
        metrics=summaries,
    )


def identifier(number: int) -> str:
    """The later ones have greater numbers."""
    return f"2026_11_20_12{number:010}_1930e"


def metadata(number: int, **changes: Any) -> Metadata:
    """What is known of an experiment that has finished after two seconds."""
    given: dict[str, Any] = {
        "identifier": identifier(number),
        "script": "train",
        "argv": ("python", "train.py"),
        "key": "key",
        "status": Status.FINISHED,
        "start": START + timedelta(minutes=number),
        "end": START + timedelta(minutes=number, seconds=2),
        "duration": 2.0,
        "exit_code": 0,
        "run_id": "2026_11_20_120000-abcde",
        "name": "test",
        "working_directory": "/home/ada",
        "root": "/home/ada",
        "host": "lab",
        "user": "ada",
        "versions": Versions(hermes="0.1.0", python="3.11", platform="Linux"),
    }
    return Metadata(**(given | changes))


def experiment(experiments: Path, number: int, **changes: Any) -> Path:
    """Makes an experiment's directory below `experiments`."""
    made = metadata(number, **changes)
    directory = experiments / made.script / made.name / made.identifier
    directory.mkdir(parents=True)
    write_metadata(str(directory), made, sync=False)
    return directory


def predicate(
    filter_: Filter, columns: Columns, now: datetime | None = None
) -> Callable[[Row], bool]:
    """Whether a row passes a filter: what Hermes decides column by column, for one row alone."""
    now = now or datetime.now().astimezone()
    if isinstance(filter_, filters.All | filters.Any):
        together = all if isinstance(filter_, filters.All) else any
        parts = [predicate(part, columns, now) for part in filter_.parts]
        return lambda row: together(part(row) for part in parts)
    if isinstance(filter_, filters.Not):
        inner = predicate(filter_.part, columns, now)
        return lambda row: not inner(row)
    column, match = filters.condition(filter_, columns, now)
    if column is None:
        return lambda row: False
    return lambda row: (value := row.value(column)) is not None and match(value)

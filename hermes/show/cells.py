"""The columns of experiments as cells of tables, of CSV and of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TypeAlias

from ..query.columns import DURATIONS, TIMES
from ..query.found import Experiments
from ..query.rows import Column, Kind, Row, Value
from .amounts import duration

NOTHING = "-"
"""What stands in a table where there is no value."""

Chosen: TypeAlias = Mapping[str, Column]
"""Columns by the names above them."""


def chosen(found: Experiments, names: Sequence[str], *, all_columns: bool = False) -> Chosen:
    """The columns of these names; all there are; or, without either, those that tell most.

    Raises `HermesError` for a name that is unknown or stands for different values.
    """
    if names:
        return {name: found.columns.find(name) for name in names}
    if all_columns:
        columns = {name: found.columns.find(name) for name in found.columns}
        rows = found.rows()
        return {
            name: column
            for name, column in columns.items()
            if any(row.value(column) is not None for row in rows)
        }
    result: dict[str, Column] = {}
    for column in found.shown_columns():
        is_new = column.name not in result
        result[column.name if is_new else f"{column.kinds[0]}:{column.name}"] = column
    return result


def as_texts(
    found: Experiments, rows: Sequence[Row], columns: Chosen, *, most_metrics: int | None = None
) -> tuple[list[list[str]], set[int]]:
    """A head and a row of texts an experiment, for people; and which columns hold numbers."""
    wanted = _with_few_metrics(columns, most_metrics)
    texts = [["id" if name == "identifier" else name for name in wanted]]
    texts += [[_text(found, row, column) for column in wanted.values()] for row in rows]
    numbers = {
        place
        for place, column in enumerate(wanted.values())
        if all(_is_number(row.value(column)) for row in rows)
    }
    return texts, numbers


def as_csv(rows: Sequence[Row], columns: Chosen) -> Iterator[Sequence[str]]:
    """A head and a row an experiment; values as they were written, empty where there is none."""
    yield list(columns)
    for row in rows:
        yield [row.text(column) for column in columns.values()]


def as_json(rows: Sequence[Row], columns: Chosen) -> Iterator[str]:
    """An object an experiment, without what is missing; times are ISO 8601, and numbers that JSON
    does not know are texts."""
    for row in rows:
        values = {name: row.value(column) for name, column in columns.items()}
        yield json.dumps(
            {name: plain(value) for name, value in values.items() if value is not None}
        )


def _with_few_metrics(columns: Chosen, most: int | None) -> Chosen:
    if most is None:
        return columns
    metrics = [name for name, column in columns.items() if column.kinds == (Kind.METRIC,)]
    left_out = set(metrics[most:])
    return {name: column for name, column in columns.items() if name not in left_out}


def _text(found: Experiments, row: Row, column: Column) -> str:
    value = row.value(column)
    if value is None:
        return NOTHING
    if column.kinds == (Kind.META,):
        if column.name == "identifier":
            return found.short(row.identifier)
        if column.name in DURATIONS and isinstance(value, float):
            return duration(value)
        if column.name in TIMES and isinstance(value, datetime):
            return value.strftime("%Y-%m-%d %H:%M:%S")
    if column.kinds == (Kind.METRIC,) and isinstance(value, float):
        return f"{value:.4g}"
    return row.text(column)


def _is_number(value: Value | None) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def plain(value: Value) -> object:
    """A value as JSON has it."""
    if isinstance(value, tuple):
        return [plain(each) for each in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value

"""Experiments as a file for other programs: CSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from itertools import islice
from typing import Any, TypeAlias

import msgspec

from ..errors import HermesError, escape
from ..query.columns import Columns
from ..query.found import Experiments
from ..query.metrics.files import read_curves
from ..query.rows import Column, Row, Value, as_text
from ..storage.files import unfinished
from .cells import plain

IDENTIFIER = "identifier"
"""The first column of every export, by which one is known."""

BATCH = 50_000
"""Rows of a Parquet file that are in memory at once."""

FOOTER = 1 << 16
"""Bytes at the end of a Parquet file that hold the names of its columns."""

Record: TypeAlias = "Mapping[str, Value | None]"
"""A row of the file: every column, also those without a value."""


class Sheet(msgspec.Struct, frozen=True):
    """What goes into a file: its columns, each with the one type that its values have in Parquet,
    and its rows, made one by one."""

    kinds: Mapping[str, type]
    records: Iterator[Record]


def write_export(
    experiments: Experiments, path: str | os.PathLike[str], *, curves: bool = False
) -> int:
    """Writes experiments into a file whose suffix says how: `.csv`, `.jsonl` or `.parquet`.

        hermes.write_export(hermes.experiments("status = finished"), "runs.parquet")

    A row is an experiment, with all parameters, arguments and metadata that there are, and the last
    values of its metrics. With `curves` a row is one value of a metric: the identifier, what
    differs between the experiments, `metric`, `step` and `value`. Parquet needs pyarrow, polars or
    pandas. Returns the number of rows. An earlier export is replaced, another file is not. Raises
    `HermesError`.
    """
    target = os.path.abspath(path)
    write = _WRITERS.get(os.path.splitext(target)[1].lower())
    if write is None:
        raise HermesError(
            f"`{escape(os.fspath(path))}` says nothing of its format",
            hint="the name of the file ends in `.csv`, `.jsonl` or `.parquet`",
        )
    if os.path.lexists(target) and not _is_export(target):
        raise HermesError(
            f"`{escape(os.fspath(path))}` is there already, and is no export",
            hint="choose another name, or delete it",
        )
    sheet = _curves(experiments) if curves else _table(experiments)
    part = unfinished(target)
    try:
        count = write(part, sheet)
        os.replace(part, target)
    except OSError as exc:
        raise HermesError(
            f"cannot write `{escape(os.fspath(path))}`: {exc.strerror or exc}"
        ) from None
    finally:
        if os.path.lexists(part):
            os.unlink(part)
    return count


def _table(experiments: Experiments) -> Sheet:
    columns = experiments.columns
    rows = experiments.rows()
    found = {name: columns.find(name) for name in columns}
    wanted = {
        name: column
        for name, column in found.items()
        if any(row.value(column) is not None for row in rows)
    }
    wanted = {IDENTIFIER: columns.find("meta:identifier")} | wanted
    records = ({name: row.value(column) for name, column in wanted.items()} for row in rows)
    return Sheet(_kinds(wanted, rows), records)


def _curves(experiments: Experiments) -> Sheet:
    rows = experiments.rows()
    differing = Columns(rows).differing(rows)
    own = (IDENTIFIER, "metric", "step", "value")
    # A parameter may be called `step`
    wanted = {f"param:{each.name}" if each.name in own else each.name: each for each in differing}

    def records() -> Iterator[Record]:
        for row in rows:
            shared = {name: row.value(column) for name, column in wanted.items()}
            yield from _values(row, shared)

    kinds = {IDENTIFIER: str, **_kinds(wanted, rows), "metric": str, "step": float, "value": float}
    return Sheet(kinds, records())


def _kinds(columns: Mapping[str, Column], rows: Sequence[Row]) -> dict[str, type]:
    return {name: _kind(row.value(column) for row in rows) for name, column in columns.items()}


def _kind(values: Iterable[Value | None]) -> type:
    """The type that holds all of these values: text, if nothing else does."""
    found = [value for value in values if value is not None]
    kinds = set(map(type, found))
    is_small = all(abs(each) < 2**63 for each in found if isinstance(each, int))
    if len(kinds) == 1 and kinds <= {bool, float, datetime}:
        return kinds.pop()
    if kinds and kinds <= {int, float} and is_small:
        return float if float in kinds else int
    return str


def _values(row: Row, shared: Record) -> Iterator[Record]:
    found, _ = read_curves(row.directory)
    for metric, curve in found.items():
        for step, value in zip(curve.steps, curve.values, strict=True):
            yield {
                IDENTIFIER: row.identifier,
                **shared,
                "metric": metric,
                "step": int(step) if step.is_integer() else step,
                "value": value,
            }


def _is_export(path: str) -> bool:
    """Whether a file is an export, which may be replaced by a new one."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
            if head.startswith(b"PAR1"):
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - FOOTER))
                return IDENTIFIER.encode() in file.read()
    except OSError:
        return False
    return not head or head.startswith((b"identifier,", b'{"identifier": "'))


# Formats


def _write_csv(path: str, sheet: Sheet) -> int:
    count = 0
    with open(path, "x", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(sheet.kinds)
        for record in sheet.records:
            count += 1
            values = (record[name] for name in sheet.kinds)
            writer.writerow(["" if value is None else as_text(value) for value in values])
    return count


def _write_jsonl(path: str, sheet: Sheet) -> int:
    count = 0
    with open(path, "x", encoding="utf-8") as file:
        for record in sheet.records:
            count += 1
            told = {name: plain(value) for name, value in record.items() if value is not None}
            file.write(json.dumps(told) + "\n")
    return count


def _write_parquet(path: str, sheet: Sheet) -> int:
    writers = {"pyarrow.parquet": _by_pyarrow, "polars": _by_polars, "pandas": _by_pandas}
    for name, write in writers.items():
        try:
            module = import_module(name)
        except ImportError:
            continue
        with suppress(ImportError):
            # pandas needs another package for it
            return write(module, path, sheet)
    raise HermesError(
        "Parquet needs pyarrow or polars, and neither of them is installed",
        hint="`pip install pyarrow`, or a file that ends in `.csv` or `.jsonl`",
    )


def _by_pyarrow(parquet: Any, path: str, sheet: Sheet) -> int:
    arrow = import_module("pyarrow")
    types = {
        bool: arrow.bool_(), int: arrow.int64(), float: arrow.float64(), str: arrow.string(),
        datetime: arrow.timestamp("us", "UTC"),
    }  # fmt: skip
    schema = arrow.schema([(name, types[kind]) for name, kind in sheet.kinds.items()])
    count = 0
    with parquet.ParquetWriter(path, schema) as writer:
        while batch := list(islice(sheet.records, BATCH)):
            count += len(batch)
            writer.write_table(arrow.table(_columns(sheet, batch), schema))
    return count


def _by_polars(polars: Any, path: str, sheet: Sheet) -> int:
    batch = list(sheet.records)
    types = {
        bool: polars.Boolean, int: polars.Int64, float: polars.Float64, str: polars.String,
        datetime: polars.Datetime("us", "UTC"),
    }  # fmt: skip
    schema = {name: types[kind] for name, kind in sheet.kinds.items()}
    polars.DataFrame(_columns(sheet, batch), schema).write_parquet(path)
    return len(batch)


def _by_pandas(pandas: Any, path: str, sheet: Sheet) -> int:
    batch = list(sheet.records)
    pandas.DataFrame(_columns(sheet, batch)).to_parquet(path, index=False)
    return len(batch)


def _columns(sheet: Sheet, batch: Sequence[Record]) -> dict[str, list[Value | None]]:
    return {
        name: [_as_kind(record[name], kind) for record in batch]
        for name, kind in sheet.kinds.items()
    }


def _as_kind(value: Value | None, kind: type) -> Value | None:
    if value is None:
        return None
    if kind is float and isinstance(value, int):
        return float(value)
    if isinstance(value, datetime) and kind is datetime:
        return value.astimezone(UTC)
    # Names that are not UTF-8 have to be it here
    return as_text(value).encode("utf-8", "backslashreplace").decode() if kind is str else value


_WRITERS: Mapping[str, Callable[[str, Sheet], int]] = {
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}

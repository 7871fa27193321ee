"""An experiment is the same whether it was read or taken from the index, whatever it holds."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hermes
from hermes import HermesError, Status
from hermes.query import packing
from hermes.query.columns import Columns, row_of
from hermes.query.filters import parse
from hermes.query.packing import Chunk, DamagedError, PackedRow, packed, record_of
from hermes.query.reading import metadata_of, summaries_of
from hermes.query.rows import Column, Kind, Row
from hermes.storage.metadata import GitState

from .simple import experiment, metadata, predicate

NAMES = ["lr", "loss", "name", "status", "a.max", "\udcff", "x y", "seed"]
TEXTS = [
    "0.1", "0.10", "1", "1.0", "-0.0", "nan", "-inf", "true", "True", "", " ", "auto", "\udcff",
    "\x00é\u2028", "[64,64]", "9" * 30, "-" + "9" * 30, "1e400", "1234567",
]  # fmt: skip
ASKED = [*NAMES, "arg:lr", "param:lr", "metric:lr", "loss.max", "loss.count", "start", "duration",
         "comments", "commit", "exit_code", "dirty", "gpus", "nothing"]  # fmt: skip

texts = st.sampled_from(TEXTS)
words = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["-lr", "--loss", "--seed", "--flag"]), texts),
        st.tuples(st.builds("{}={}".format, st.sampled_from(["lr", "seed"]), texts)),
        st.tuples(texts),
    ),
    max_size=4,
).map(lambda pairs: tuple(word for pair in pairs for word in pair))
moments = st.none() | st.builds(
    lambda second, offset: (
        datetime(2026, 11, 20, 12, tzinfo=timezone(timedelta(hours=offset)))
        + timedelta(seconds=second)
    ),
    st.floats(0, 1e5),
    st.integers(-3, 3),
)
given_metadata = st.fixed_dictionaries(
    {
        "parameters": st.dictionaries(st.sampled_from(NAMES), texts, max_size=3),
        "arguments": words,
        "status": st.sampled_from([Status.FINISHED, Status.FAILED, Status.LOST]),
        "start": moments,
        "end": moments,
        "duration": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "exit_code": st.sampled_from([None, 0, 1, 10**30]),
        "comments": st.lists(texts, max_size=2).map(tuple),
        "gpus": st.none() | st.just(("0", "1")),
        "git": st.builds(
            GitState,
            commit=st.sampled_from([None, "1234567", "abc"]),
            dirty=st.sampled_from([None, True, False]),
        ),
    }
)
tables = st.none() | st.tuples(
    st.sampled_from(["loss,lr", "lr", "step,loss", "a.max,a"]),
    st.lists(st.sampled_from(["1,2", "nan,inf", "0.1,-0.0", "1e308,-1e308"]), min_size=1),
)
filters = st.builds(
    "{}{} {}".format,
    st.sampled_from(["", "not ", "seed is defined or ", "not status = failed and "]),
    st.sampled_from([f'"{name}"' for name in ASKED]),
    st.sampled_from(
        ["is defined", "contains a", "since 2026-11-20", "in [0.1, 1, nan]", "> 2026-11-20T14:00",
         *(f"{sign} {text}" for sign in ("=", "!=", "<", ">=")
           for text in ("0.1", "1", "true", "nan", "auto", "finished", '"0.1"', "1234567"))]
    ),
)  # fmt: skip


def aged(directory: Path) -> Path:
    """Makes what is in an experiment directory as old as that of a job that ended a while ago."""
    for path in (*directory.rglob("*"), directory):
        os.utime(path, (1e9, 1e9))
    return directory


@contextmanager
def made(given_: list[tuple[dict[str, Any], tuple[str, list[str]] | None]]) -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        for number, (changes, table) in enumerate(given_):
            directory = experiment(Path(folder) / "experiments", number, **changes)
            if table:
                (directory / "progress.csv").write_text("\n".join((table[0], *table[1], "")))
            aged(directory)
        yield Path(folder)


def told(row: Row) -> str:
    """All that a row says; its `repr` tells types and NaN."""
    return repr((row.identifier, row.directory, row.status, dict(row.cells), row.raw, row.metrics))


def answer(where: str, rows: list[Row], columns: Columns) -> object:
    try:
        passes = predicate(parse(where), columns)
        return [row.identifier for row in rows if passes(row)]
    except HermesError as exc:
        return str(exc)


@settings(max_examples=60)
@given(st.lists(st.tuples(given_metadata, tables), max_size=4), st.lists(filters, max_size=5))
def test_answers_are_those_without_an_index(
    given_: list[tuple[dict[str, Any], tuple[str, list[str]] | None]], wheres: list[str]
) -> None:
    with made(given_) as root, pytest.MonkeyPatch.context() as patch:
        directories = sorted(map(str, root.glob("experiments/train/test/*")), reverse=True)
        plain = [row_of(each, metadata_of(each), summaries_of(each)) for each in directories]
        columns = Columns(plain)
        assert len(hermes.experiments(root=root)) == len(plain)
        patch.setattr("hermes.query.batches.metadata_of", None)
        indexed = hermes.experiments(root=root)
        rows = indexed.rows()
        assert all(isinstance(row, PackedRow) for row in rows)
        assert list(map(told, rows)) == list(map(told, plain))
        assert list(indexed.columns) == list(columns)
        assert indexed.columns.count == columns.count
        for kind in Kind:
            assert indexed.columns.names(kind) == columns.names(kind)
        asked = [Column(name, kinds) for name in ASKED for kinds in ((Kind.METRIC,), tuple(Kind))]
        for one, other in zip(rows, plain, strict=True):
            assert [*map(one.text, asked)] == [*map(other.text, asked)]
            assert repr([*map(one.value, asked)]) == repr([*map(other.value, asked)])
        assert indexed.columns.differing(rows) == columns.differing(plain)
        for where in wheres:
            try:
                found: object = [row.identifier for row in hermes.experiments(where, root).rows()]
            except HermesError as exc:
                found = str(exc)
            assert found == answer(where, plain, columns)


def test_columns_that_few_have_take_little_room() -> None:
    chance = random.Random(3)
    records = []
    for number in range(1000):
        changes: dict[str, Any] = {"parameters": {f"only_{number}": "1"}, "name": "test"}
        if chance.random() < 0.5:
            changes["parameters"] |= {"half": "2"}
        made_ = metadata(number, **changes)
        records.append(record_of("train/test", (1, 2), made_, {}))
    chunk = Chunk(packed(records))
    assert len(chunk.data) < 500 * 1000
    assert list(chunk.records()) == records
    rows = [PackedRow(chunk, number, "experiments") for number in range(1000)]
    assert rows[7].value(Column("only_7", (Kind.ARGUMENT, Kind.PARAMETER))) == 1
    assert rows[7].value(Column("only_8", (Kind.PARAMETER,))) is None
    assert rows[7].cells[Kind.PARAMETER]["only_7"] == 1
    assert sum(row.value(Column("half", (Kind.PARAMETER,))) == 2 for row in rows) > 400


def test_a_chunk_that_was_damaged_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = packed([record_of("train/test", (1, 2), metadata(number), {}) for number in range(3)])
    assert len(Chunk(data)) == 3
    chance = random.Random(4)
    for _ in range(200):
        place = chance.randrange(len(data))
        damaged = bytearray(data)
        damaged[place] ^= 1 << chance.randrange(8)
        with pytest.raises(DamagedError):
            Chunk(bytes(damaged))
    for cut in (0, 3, 4, 5, len(data) - 1):
        with pytest.raises(DamagedError):
            Chunk(data[:cut])
    # Whole, but written by something else
    monkeypatch.setattr(packing, "_encoded", lambda value: b"m\x93\x01\x02\x03")
    with pytest.raises(DamagedError):
        Chunk(packed([]))

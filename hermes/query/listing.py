"""All experiments in some folders: from the index where it can be trusted, else read.

An experiment is taken from the index if its metadata and its directory have been left alone since.
The others are read: those that run, new ones, and what was changed by hand.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import NamedTuple

from ..errors import HermesError, escape
from ..model import Status
from ..storage.layout import METADATA
from ..storage.metadata import Metadata
from . import filters, rlmate
from .columns import Columns, row_of
from .filters import Filter
from .index import Index
from .metrics.files import given_of, summed
from .packing import CHUNK, Chunk, PackedRow, Record, Stamp, packed, record_of
from .places import names_in
from .reading import is_coming_or_going, metadata_of
from .rows import Row

SETTLED = 2.0
"""Seconds: what was changed later than that before it was read may have been changed once more
without getting another time, so it is read again."""


class _Part(NamedTuple):
    """Experiments of a chunk, in the folder to which its places are relative."""

    chunk: Chunk
    folder: str
    numbers: Sequence[int]

    def rows(self, numbers: Iterable[int]) -> Iterator[Row]:
        return (PackedRow(self.chunk, number, self.folder) for number in numbers)

    def one_of_each_shape(self) -> Iterator[Row]:
        """Of those that have the same columns the newest."""
        names, shapes = self.chunk.names, self.chunk.shapes
        newest: dict[int, int] = {}
        for number in self.numbers:
            other = newest.get(id(shapes[number]))
            if other is None or names[number] > names[other]:
                newest[id(shapes[number])] = number
        return self.rows(newest.values())


class Listing:
    """All experiments in some folders, each identifier once."""

    def __init__(self, folders: Iterable[str], warn: Callable[[str], None]) -> None:
        """Reads what has to be read. `warn` is told what could not be."""
        self._seen: set[str] = set()
        self._parts: list[_Part] = []
        self._others: list[Row] = []
        for folder in folders:
            reading = _Reading(folder, warn, self._seen)
            reading.read()
            self._parts += reading.parts
            self._others += reading.others

    @property
    def identifiers(self) -> Collection[str]:
        return self._seen

    @cached_property
    def columns(self) -> Columns:
        """The columns of all of them."""
        rows = [row for part in self._parts for row in part.one_of_each_shape()]
        columns = Columns(_newest_first(rows + self._others))
        columns.count = len(self._seen)
        return columns

    def rows(self, filter_: Filter | None = None) -> list[Row]:
        """Those that pass, the newest first. Raises `FilterError`."""
        found: list[Row] = []
        if filter_ is None:
            found += self._others
            for part in self._parts:
                found += part.rows(part.numbers)
        else:
            now = datetime.now().astimezone()
            passes = filters.predicate(filter_, self.columns, now)
            found += filter(passes, self._others)
            for part in self._parts:
                passing = _passing(filter_, part.chunk, self.columns, now)
                found += part.rows(number for number in part.numbers if passing[number])
        return _newest_first(found)


def _newest_first(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row.identifier, reverse=True)


def _passing(filter_: Filter, chunk: Chunk, columns: Columns, now: datetime) -> Sequence[bool]:
    """Which of a chunk pass: what `filters.predicate` says of each row, column by column."""
    if isinstance(filter_, filters.Not):
        return [not passes for passes in _passing(filter_.part, chunk, columns, now)]
    if isinstance(filter_, filters.All | filters.Any):
        parts = (_passing(part, chunk, columns, now) for part in filter_.parts)
        together = all if isinstance(filter_, filters.All) else any
        return list(map(together, zip(*parts, strict=True)))
    column, match = filters.condition(filter_, columns, now)
    return [False] * len(chunk) if column is None else chunk.passing(column, match)


class _Reading:
    """Reads the experiments in a folder, but for those whose identifiers were seen.

    `parts` are those that have ended, `others` those that have to be read again the next time.
    """

    def __init__(self, folder: str, warn: Callable[[str], None], seen: set[str]) -> None:
        self.parts: list[_Part] = []
        self.others: list[Row] = []
        self._folder = folder
        self._warn = warn
        self._seen = seen
        self._index = Index(folder)
        self._to_store: list[Record] = []

    def read(self) -> None:
        there: dict[str, dict[str, Stamp | None]] = {}
        for inner, names in names_in(self._folder, self._warn):
            place = inner[len(self._folder) :].strip("/")
            there[place] = dict(zip(names, stamps_of(inner, names), strict=True))
        known: dict[str, set[str]] = {place: set() for place in there}
        gone: list[tuple[str, str]] = []
        for chunk in self._index.chunks.values():
            gone += self._compare(chunk, there, known)
        for place, stamps in there.items():
            for name in stamps.keys() - known[place]:
                self._read(place, name, stamps[name])
        if gone or self._to_store:
            self._store(gone)

    def _compare(
        self, chunk: Chunk, there: Mapping[str, Mapping[str, object]], known: dict[str, set[str]]
    ) -> Iterator[tuple[str, str]]:
        """Takes over what has been left alone, and yields place and name of what has not."""
        numbers: list[int] = []
        start = 0
        for place, count in chunk.runs:
            names = chunk.names[start : start + count]
            then = chunk.stamps[start : start + count]
            now = list(map(there.get(place, {}).get, names))
            if now == then:
                known[place].update(names)
                numbers += range(start, start + count)
            else:
                for number, name in enumerate(names):
                    if now[number] == then[number]:
                        known[place].add(name)
                        numbers.append(start + number)
                    else:
                        yield place, name
            start += count
        if not self._seen.isdisjoint(chunk.names):
            numbers = [number for number in numbers if chunk.names[number] not in self._seen]
        self._seen.update(map(chunk.names.__getitem__, numbers))
        self.parts.append(_Part(chunk, self._folder, numbers))

    def _read(self, place: str, name: str, stamp: Stamp | None) -> None:
        if name in self._seen:
            return
        directory = "/".join(filter(None, (self._folder, place, name)))
        try:
            metadata = metadata_of(directory)
        except HermesError as exc:
            if not is_coming_or_going(directory):
                self._warn(exc.message)
            return
        if metadata.identifier != name:
            owner = escape(metadata.identifier)
            self._warn(f"`{directory}` holds the metadata of `{owner}`")
            return
        self._seen.add(name)
        metrics = summed(directory, given_of(metadata))
        if stamp is None or not _is_settled(metadata, stamp, metrics.changed):
            self.others.append(row_of(directory, metadata, metrics.found))
            return
        self._to_store.append(record_of(place, stamp, metadata, metrics.found))
        if len(self._to_store) == CHUNK:
            self._store(())

    def _store(self, gone: Sequence[tuple[str, str]]) -> None:
        chunk = None
        if self._to_store:
            chunk = Chunk(packed(self._to_store))
            self.parts.append(_Part(chunk, self._folder, range(len(chunk))))
        self._index.store(chunk, gone)
        self._to_store = []


def stamps_of(folder: str, names: Sequence[str]) -> Iterator[Stamp | None]:
    """By what one sees whether experiments in a folder have been left alone; None for what is no
    experiment."""
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield from (None for _ in names)
        return
    try:
        for name in names:
            # In an open folder the system finds them quicker
            try:
                try:
                    file = os.stat(f"{name}/{METADATA}", dir_fd=opened)
                except FileNotFoundError:
                    file = os.stat(f"{name}/{rlmate.INFO}", dir_fd=opened)
                home = os.stat(name, dir_fd=opened)
            except OSError:
                yield None
                continue
            yield (
                file.st_mtime_ns,
                file.st_size,
                file.st_ino,
                home.st_mtime_ns,
                home.st_ino,
            )
    finally:
        os.close(opened)


def _is_settled(metadata: Metadata, stamp: Stamp, changed: float) -> bool:
    """Whether nothing is to be expected of an experiment any more."""
    last = max(stamp[0] / 1e9, stamp[3] / 1e9, changed)
    return metadata.status is not Status.RUNNING and time.time() - last > SETTLED

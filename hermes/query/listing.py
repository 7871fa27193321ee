"""All experiments in some folders: from the index where it can be trusted, else read.

An experiment is taken from the index if its metadata and its directory have been left alone since.
The others are read: those that run, new ones, and what was changed by hand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import NamedTuple

from . import filters
from .batches import batches_of, read_batches, stamps_of
from .columns import Columns
from .filters import Filter
from .index import Index
from .packing import Chunk, PackedRow, Stamp
from .places import names_in
from .rows import Kind, Row


class _Part(NamedTuple):
    """Experiments of a chunk, in the folder to which its places are relative."""

    chunk: Chunk
    folder: str
    numbers: Sequence[int]

    def names(self) -> Iterator[str]:
        return map(self.chunk.names.__getitem__, self.numbers)

    def rank(self, number: int) -> tuple[bool, str]:
        """The lowest counts of several directories of one name: not a copy in another place."""
        script, name = (self.chunk.stored(Kind.META, each)[number] for each in ("script", "name"))
        place = self.chunk.places[number]
        is_at_home = f"{self.folder}/{place}".endswith(f"/{script}/{name}")
        return not is_at_home, place

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
        for folder in folders:
            reading = _Reading(folder, warn, self._seen)
            reading.read()
            self._parts += reading.parts

    @property
    def identifiers(self) -> Collection[str]:
        return self._seen

    @cached_property
    def columns(self) -> Columns:
        """The columns of all of them."""
        rows = [row for part in self._parts for row in part.one_of_each_shape()]
        columns = Columns(_newest_first(rows))
        columns.count = len(self._seen)
        return columns

    def rows(self, filter_: Filter | None = None) -> list[Row]:
        """Those that pass, the newest first. Raises `FilterError`."""
        found: list[Row] = []
        if filter_ is None:
            for part in self._parts:
                found += part.rows(part.numbers)
        else:
            passes = _passes(filter_, self.columns, datetime.now().astimezone())
            for part in self._parts:
                passing = passes(part.chunk)
                found += part.rows(number for number in part.numbers if passing[number])
        return _newest_first(found)


def _newest_first(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row.identifier, reverse=True)


def _passes(filter_: Filter, columns: Columns, now: datetime) -> Callable[[Chunk], Sequence[bool]]:
    """A function that tells which of a chunk pass, decided column by column. Raises `FilterError`,
    also where there is no chunk."""
    if isinstance(filter_, filters.All | filters.Any):
        together = all if isinstance(filter_, filters.All) else any
        parts = [_passes(part, columns, now) for part in filter_.parts]
        return lambda chunk: list(map(together, zip(*(part(chunk) for part in parts), strict=True)))
    if isinstance(filter_, filters.Not):
        inner = _passes(filter_.part, columns, now)
        return lambda chunk: [not passes for passes in inner(chunk)]
    column, match = filters.condition(filter_, columns, now)
    if column is None:
        return lambda chunk: [False] * len(chunk)
    return lambda chunk: chunk.passing(column, match)


class _Reading:
    """Reads the experiments in a folder, but for those whose identifiers were seen."""

    def __init__(self, folder: str, warn: Callable[[str], None], seen: set[str]) -> None:
        self.parts: list[_Part] = []
        self._folder = folder
        self._warn = warn
        self._seen = seen
        self._index = Index(folder)

    def read(self) -> None:
        """Takes from the index what is in it, and reads all else."""
        names = {
            inner[len(self._folder) :].strip("/"): found
            for inner, found in names_in(self._folder, self._warn)
        }
        known: dict[str, set[str]] = {place: set() for place in names}
        gone: list[tuple[str, str]] = []
        if self._index.chunks:
            there = {place: self._stamps(place, found) for place, found in names.items()}
            for chunk in self._index.chunks.values():
                gone += self._compare(chunk, there, known)
        unknown = {
            place: [name for name in found if name not in known[place]]
            for place, found in names.items()
        }
        for read in read_batches(list(batches_of(self._folder, unknown))):
            for message in read.warnings:
                self._warn(message)
            self._add(read.unsettled)
            self._index.store(self._add(read.settled), gone)
            gone = []
        if gone:
            self._index.store(None, gone)
        self._take_each_once()

    def _stamps(self, place: str, names: Sequence[str]) -> Mapping[str, Stamp | None]:
        inner = f"{self._folder}/{place}" if place else self._folder
        return dict(zip(names, stamps_of(inner, names), strict=True))

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
        self.parts.append(_Part(chunk, self._folder, numbers))

    def _add(self, data: bytes | None) -> Chunk | None:
        """The chunk of experiments that were read just now."""
        if data is None:
            return None
        chunk = Chunk(data)
        self.parts.append(_Part(chunk, self._folder, range(len(chunk))))
        return chunk

    def _take_each_once(self) -> None:
        """Leaves one directory of each name: that in which the run has made it, not a copy."""
        count = Counter(name for part in self.parts for name in part.names())
        if len(count) < count.total() or not self._seen.isdisjoint(count):
            best: dict[str, tuple[bool, str]] = {}
            for part in self.parts:
                for number, name in zip(part.numbers, part.names(), strict=True):
                    rank = part.rank(number)
                    best[name] = min(rank, best.get(name, rank))
            self.parts = [
                part._replace(
                    numbers=[
                        number
                        for number, name in zip(part.numbers, part.names(), strict=True)
                        if name not in self._seen and part.rank(number) == best[name]
                    ]
                )
                for part in self.parts
            ]
        self._seen.update(count)

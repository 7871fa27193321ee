"""Experiments packed column by column: small, and quick to read where few columns are asked for.

A chunk holds what is told of some experiments, never a value that was worked out from a text: the
texts of parameters and arguments are typed when they are asked for, so that one is what it would be
without a chunk.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import msgspec

from ..model import Status
from ..storage.metadata import Metadata, Summary
from .columns import META, TIMES, arguments_of, meta_of, row_of, typed
from .filters import Match
from .rows import ASPECTS, Clash, Column, Kind, Row, Value, as_text

CHUNK = 2048
"""Experiments of a chunk. A change of one of them makes all of them be written again."""

SPARSE = 4
"""A column that fewer than one of so many have names those that do."""

Stamp: TypeAlias = tuple[int, ...]
"""By which one sees that an experiment has been left alone."""

_FIELDS = Summary.__struct_fields__
"""Each is a column, as most often only the last value is asked for."""

Stored: TypeAlias = Any
"""A value as it is packed: None, a bool, a number, a text or a list of these."""

Values: TypeAlias = Any
"""The values of a column by the places of the experiments: a list, or a mapping if few have any."""


class DamagedError(Exception):
    """What was to be unpacked is not what was packed."""


class Shape(NamedTuple):
    """The names that an experiment has, and those that stand for different values in it."""

    parameters: tuple[str, ...]
    arguments: tuple[str, ...]
    metrics: tuple[str, ...]
    clashes: tuple[Clash, ...]


class Record(NamedTuple):
    """An experiment to be packed. `place` is the folder that its directory is in."""

    place: str
    name: str
    stamp: Stamp
    shape: Shape
    cells: Mapping[Kind, Mapping[str, Stored]]


def record_of(
    place: str, stamp: Stamp, metadata: Metadata, metrics: Mapping[str, Summary]
) -> Record:
    """An experiment to be packed."""
    options = arguments_of(metadata.arguments)
    meta: dict[str, Stored] = {**meta_of(metadata)}
    for name in TIMES:
        if name in meta:
            meta[name] = meta[name].isoformat()
    cells: dict[Kind, Mapping[str, Stored]] = {
        Kind.PARAMETER: metadata.parameters,
        Kind.ARGUMENT: {
            name: texts[0] if len(texts) == 1 else texts for name, texts in options.items()
        },
        Kind.META: meta,
        Kind.METRIC: metrics,
    }
    names = (tuple(metadata.parameters), tuple(options), tuple(metrics))
    shared = _shared(*names)
    are_same = shared is not None and all(
        [metadata.parameters[name]] == options[name] for name in shared
    )
    clashes = () if are_same else tuple(sorted(row_of("", metadata, metrics).clashes))
    return Record(place, metadata.identifier, stamp, Shape(*names, clashes), cells)


@lru_cache(maxsize=1000)
def _shared(
    parameters: tuple[str, ...], arguments: tuple[str, ...], metrics: tuple[str, ...]
) -> frozenset[str] | None:
    """The names that parameters and arguments share, as most of them do, for arguments are what
    parameters are for. None if other kinds share names, too."""
    kinds = ({*parameters, *arguments}, metrics, META)
    if len(set().union(*kinds)) < sum(map(len, kinds)):
        return None
    return frozenset(parameters) & frozenset(arguments)


class Chunk:
    """Some experiments, whose columns are unpacked when they are asked for.

    `names`, `places`, `stamps` and `shapes` are theirs, one by one. `runs` are their places, and
    how many experiments are in each.
    """

    def __init__(self, data: bytes) -> None:
        """Raises `DamagedError`."""
        try:
            head, self._packed = _checked(data)
            runs, names, stamps, shapes, of_shapes, keys = _decoded(head)
            self.names: list[str] = names
            self.runs: list[tuple[str, int]] = [(place, count) for place, count in runs]
            self.places: list[str] = [place for place, count in self.runs for _ in range(count)]
            self.stamps: list[Stamp] = list(zip(*stamps, strict=True))
            made = [_shape(each) for each in shapes]
            self.shapes: list[Shape] = [made[number] for number in of_shapes]
            self._numbers: dict[str, int] = {key: number for number, key in enumerate(keys)}
            lengths = {*map(len, (self.places, self.names, self.stamps, self.shapes))}
            if len(lengths) != 1 or len(keys) != len(self._packed):
                raise DamagedError
        except (ValueError, TypeError, IndexError, msgspec.DecodeError, zlib.error) as exc:
            raise DamagedError from exc
        self.data = data
        self._stored: dict[str, Values] = {}
        self._asked: dict[Column, Values] = {}

    def __len__(self) -> int:
        return len(self.names)

    def stored(self, kind: Kind, name: str) -> Values:
        """A column as it was packed."""
        key = f"{kind}:{name}"
        found = self._stored.get(key)
        if found is None:
            number = self._numbers.get(key)
            packed = None if number is None else _decoded(self._packed[number])
            found = self._stored[key] = _unpacked(packed, len(self))
        return found

    def values(self, column: Column) -> Values:
        """The values of a column."""
        found = self._asked.get(column)
        if found is None:
            of_kinds = [self._of_kind(kind, column.name) for kind in column.kinds]
            found = self._asked[column] = of_kinds[0] if len(of_kinds) == 1 else _first(of_kinds)
        return found

    def passing(self, column: Column, match: Match) -> list[bool]:
        """Which experiments have a value of a column that passes."""
        values = self.values(column)
        if isinstance(values, _Sparse):
            having = {place for place, value in values.items() if match(value)}
            return [place in having for place in range(len(self))]
        made: dict[int, bool] = {id(None): False}
        result = []
        for value in values:
            # Equal texts have become one value, of which it is asked once
            passes = made.get(id(value))
            if passes is None:
                passes = made[id(value)] = match(value)
            result.append(passes)
        return result

    def text(self, column: Column, place: int) -> str | None:
        """The text of a parameter or an argument as it was written."""
        for kind in column.kinds:
            if kind in (Kind.PARAMETER, Kind.ARGUMENT):
                found = self.stored(kind, column.name)[place]
                if found is not None:
                    return found if isinstance(found, str) else " ".join(found)
        return None

    def _of_kind(self, kind: Kind, name: str) -> Values:
        if kind is Kind.METRIC:
            return self._of_metric(name)
        stored = self.stored(kind, name)
        if kind is Kind.META:
            if name in TIMES:
                return _mapped(datetime.fromisoformat, stored)
            has_lists = not isinstance(stored, list) or list in {*map(type, stored)}
            return _mapped(_as_tuple, stored) if has_lists else stored
        return _mapped(_typed, stored)

    def _of_metric(self, name: str) -> Values:
        metric, _, aspect = name.rpartition(".")
        alone = self.stored(Kind.METRIC, f"last:{name}")
        if aspect not in ASPECTS:
            return alone
        return _first([alone, self.stored(Kind.METRIC, f"{aspect}:{metric}")])

    def records(self) -> Iterator[Record]:
        """The experiments as they can be packed again."""
        for place, shape in enumerate(self.shapes):
            names = {
                Kind.PARAMETER: shape.parameters,
                Kind.ARGUMENT: shape.arguments,
                Kind.META: META,
            }
            cells: dict[Kind, Mapping[str, Stored]] = {
                kind: {
                    name: value
                    for name in each
                    if (value := self.stored(kind, name)[place]) is not None
                }
                for kind, each in names.items()
            }
            cells[Kind.METRIC] = self.metrics(place)
            yield Record(self.places[place], self.names[place], self.stamps[place], shape, cells)

    def metrics(self, place: int) -> Mapping[str, Summary]:
        """What sums up the curves of an experiment."""
        return {
            name: Summary(
                *(self.stored(Kind.METRIC, f"{field}:{name}")[place] for field in _FIELDS)
            )
            for name in self.shapes[place].metrics
        }


class PackedRow(Row):
    """An experiment of a chunk as a row."""

    __slots__ = ("_chunk", "_folder", "_place")

    _chunk: Chunk
    _folder: str
    _place: int

    def __init__(self, chunk: Chunk, place: int, folder: str) -> None:
        """`folder` is the one to which the chunk's places are relative."""
        setattr_ = object.__setattr__
        setattr_(self, "_chunk", chunk)
        setattr_(self, "_place", place)
        setattr_(self, "_folder", folder)

    @property
    def identifier(self) -> str:
        return self._chunk.names[self._place]

    @property
    def directory(self) -> str:
        inner = self._chunk.places[self._place]
        return (
            f"{self._folder}/{inner}/{self.identifier}"
            if inner
            else (f"{self._folder}/{self.identifier}")
        )

    @property
    def status(self) -> Status:
        return Status(self._chunk.stored(Kind.META, "status")[self._place])

    @property
    def _shape(self) -> Shape:
        return self._chunk.shapes[self._place]

    @property
    def cells(self) -> Mapping[Kind, Mapping[str, Value]]:
        shape = self._shape
        names = {
            Kind.PARAMETER: shape.parameters,
            Kind.ARGUMENT: shape.arguments,
            Kind.META: META,
        }
        return {
            kind: {
                name: value
                for name in each
                if (value := self._chunk.values(Column(name, (kind,)))[self._place]) is not None
            }
            for kind, each in names.items()
        }

    @property
    def raw(self) -> Mapping[Kind, Mapping[str, str]]:
        shape, text = self._shape, self._chunk.text
        names = {Kind.PARAMETER: shape.parameters, Kind.ARGUMENT: shape.arguments}
        return {
            kind: {name: text(Column(name, (kind,)), self._place) or "" for name in each}
            for kind, each in names.items()
        }

    @property
    def metrics(self) -> Mapping[str, Summary]:
        return self._chunk.metrics(self._place)

    @property
    def names(self) -> Mapping[Kind, Sequence[str]]:
        shape = self._shape
        return {
            Kind.PARAMETER: shape.parameters,
            Kind.ARGUMENT: shape.arguments,
            Kind.METRIC: shape.metrics,
            Kind.META: META,
        }

    @property
    def clashes(self) -> Sequence[Clash]:
        return self._shape.clashes

    def value(self, column: Column) -> Value | None:
        found: Value | None = self._chunk.values(column)[self._place]
        return found

    def text(self, column: Column) -> str:
        written = self._chunk.text(column, self._place)
        if written is not None:
            return written
        found = self.value(column)
        return "" if found is None else as_text(found)


def packed(records: Sequence[Record]) -> bytes:
    """Some experiments as a chunk's data."""
    records = sorted(records, key=lambda record: record.place)
    places = Counter(record.place for record in records)
    shapes = {record.shape: None for record in records}
    of_shapes = {shape: number for number, shape in enumerate(shapes)}
    columns: dict[str, bytes] = {}
    for kind in Kind:
        having: dict[str, list[int]] = {}
        values: dict[str, list[Stored]] = {}
        for number, record in enumerate(records):
            for name, value in record.cells[kind].items():
                if name not in having:
                    having[name], values[name] = [], []
                having[name].append(number)
                values[name].append(value)
        for name, numbers_ in having.items():
            if kind is Kind.METRIC:
                for field in _FIELDS:
                    numbers = [getattr(each, field) for each in values[name]]
                    columns[f"{kind}:{field}:{name}"] = _column(numbers_, numbers, len(records))
            else:
                columns[f"{kind}:{name}"] = _column(numbers_, values[name], len(records))
    head = [
        list(places.items()),
        [record.name for record in records],
        list(zip(*(record.stamp for record in records), strict=True)),
        list(shapes),
        [of_shapes[record.shape] for record in records],
        list(columns),
    ]
    return _with_check(_encoded(head), list(columns.values()))


def _column(having: list[int], values: list[Stored], count: int) -> bytes:
    return _encoded(_shortened(having, values, count))


def _shortened(having: list[int], values: list[Stored], count: int) -> Stored:
    """All values, the one that all have, or those that there are and whose they are."""
    if len(having) == count:
        first = values[0]
        is_one = isinstance(first, str | int) and values.count(first) == count
        if is_one and {*map(type, values)} == {type(first)}:
            return ["one", first]
        return ["all", values]
    if len(having) * SPARSE > count:
        dense: list[Stored] = [None] * count
        for number, value in zip(having, values, strict=True):
            dense[number] = value
        return ["all", dense]
    return ["some", having, values]


class _Sparse(dict[int, Any]):
    """A column that few have."""

    def __missing__(self, place: int) -> None:
        return None


def _unpacked(column: Stored, count: int) -> Values:
    match column:
        case None:
            return _Sparse()
        case ["one", value]:
            return [value] * count
        case ["all", list(values)]:
            return values
        case ["some", list(having), list(values)]:
            return _Sparse(zip(having, values, strict=True))
    raise DamagedError


def _mapped(function: Callable[[Stored], Any], column: Values) -> Values:
    """A column of what a function makes of each text or list; of equal texts it is asked once."""
    if isinstance(column, _Sparse):
        return _Sparse((place, function(value)) for place, value in column.items())
    has_lists = list in {*map(type, column)}
    texts = {each for each in column if isinstance(each, str)} if has_lists else {*column} - {None}
    made = {text: function(text) for text in texts}
    if not has_lists:
        return list(map(made.get, column))
    return [function(each) if isinstance(each, list) else made.get(each) for each in column]


def _first(columns: Sequence[Values]) -> Values:
    """The first value that there is, experiment by experiment."""
    first, *rest = columns
    for other in rest:
        if not other:
            continue
        if not first:
            first = other
        elif isinstance(first, _Sparse) and isinstance(other, _Sparse):
            first = _Sparse(other | first)
        else:
            count = len(other) if isinstance(first, _Sparse) else len(first)
            first = [
                first[place] if first[place] is not None else other[place] for place in range(count)
            ]
    return first


def _typed(stored: Stored) -> Value:
    return typed(stored) if isinstance(stored, str) else tuple(map(typed, stored))


def _as_tuple(stored: Stored) -> Value:
    return tuple(stored) if isinstance(stored, list) else stored


def _shape(stored: Stored) -> Shape:
    parameters, arguments, metrics, clashes = stored
    return Shape(
        tuple(parameters),
        tuple(arguments),
        tuple(metrics),
        tuple((name, Kind(one), Kind(other)) for name, one, other in clashes),
    )


_MSGPACK, _JSON = b"m", b"j"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


def _encoded(value: Stored) -> bytes:
    try:
        return _MSGPACK + _encode(value)
    except (UnicodeEncodeError, OverflowError):
        # Names that are not UTF-8, and numbers of more than 64 bits
        return _JSON + json.dumps(value).encode()


def _decoded(data: bytes) -> Any:
    if data[:1] == _JSON:
        return json.loads(data[1:])
    if data[:1] != _MSGPACK:
        raise DamagedError
    return _decode(memoryview(data)[1:])


def _with_check(head: bytes, columns: list[bytes]) -> bytes:
    data = _encode([head, columns])
    return zlib.crc32(data).to_bytes(4, "big") + data


def _checked(data: bytes) -> tuple[bytes, list[bytes]]:
    inner = memoryview(data)[4:]
    if zlib.crc32(inner).to_bytes(4, "big") != data[:4]:
        raise DamagedError
    head, columns = _decode(inner)
    return head, columns

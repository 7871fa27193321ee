"""Experiments in groups: which are alike but for their seeds.

Nothing is left out silently: what does not count, is missing or counted twice is told in notes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import msgspec

from ..errors import HermesError
from ..model import Status
from . import rlmate
from .rows import Column, Kind, Row, Value

ALL_BUT = re.compile(r"\s*all[- ]but\s+(.+)", re.IGNORECASE | re.DOTALL)
"""How `--group-by` names what runs of a group may differ in, in place of what they share."""

SEED = re.compile(r"(.*[-_.])?seed", re.IGNORECASE)
"""Names of parameters that repeat an experiment rather than change it."""

NAMED = 3
"""So many groups are named at most in one note; how many more there are is told."""

OF_ARGUMENTS = (Kind.PARAMETER, Kind.ARGUMENT)

OF_ORIGIN = tuple((name, Column(name, (Kind.META,))) for name in ("script", "name"))
"""What tells experiments apart even where all of their arguments are alike."""

COMMIT = Column("commit", (Kind.META,))

Key = tuple[object, ...]


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Experiments that are alike in the columns that they were grouped by.

    `texts` are the values of those columns as they were written, empty where there is none. `rows`
    are the experiments that count, `left_out` how many others there are by their status.
    """

    values: tuple[Value | None, ...]
    texts: tuple[str, ...]
    rows: tuple[Row, ...]
    left_out: Counter[Status]

    @property
    def rank(self) -> tuple[tuple[int, object], ...]:
        """Orders groups, by their values."""
        return tuple(_rank(value) for value in self.values)


class Grouping(msgspec.Struct, frozen=True, kw_only=True):
    """Experiments in groups. `names` are those of the columns that they were grouped by, `notes`
    what has to be known of them: runs that were left out, seeds that are missing."""

    names: tuple[str, ...]
    groups: tuple[Group, ...]
    notes: tuple[str, ...]


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """Which columns make groups (`shared`), and which tell the runs of a group apart: `repeats`, as
    seeds do, and those that are `averaged` over.

    `notes` say what was decided without being asked.
    """

    shared: tuple[tuple[str, Column], ...]
    repeats: tuple[tuple[str, Column], ...] = ()
    averaged: tuple[tuple[str, Column], ...] = ()
    notes: tuple[str, ...] = ()


def key_of(value: Value | None) -> object:
    """What equal values have in common: `1` and `1.0` are equal, `1` and true are not."""
    return (isinstance(value, bool), value)


def is_seed(name: str) -> bool:
    """Whether a column of this name says which repetition a run is."""
    return SEED.fullmatch(name) is not None


def differing(rows: Sequence[Row]) -> list[tuple[str, Column]]:
    """In what rows differ: script and name, then parameters and arguments as they come up.

    One of both that has the same name and values is one column; else the name has its prefix. A
    column that repeats an earlier one under another name is left out.
    """
    names = dict.fromkeys(
        name for kind in OF_ARGUMENTS for row in rows for name in row.cells.get(kind, {})
    )
    named = [each for name in names for each in _columns_named(name, rows)]
    found: list[tuple[str, Column]] = []
    seen = set()
    for name, column in (*OF_ORIGIN, *named):
        values = tuple(key_of(row.value(column)) for row in rows)
        if len(set(values)) > 1 and values not in seen:
            seen.add(values)
            found.append((name, column))
    return found


def _columns_named(name: str, rows: Sequence[Row]) -> list[tuple[str, Column]]:
    both = [tuple(row.cells.get(kind, {}).get(name) for kind in OF_ARGUMENTS) for row in rows]
    if all(a is None or b is None or key_of(a) == key_of(b) for a, b in both):
        return [(name, Column(name, OF_ARGUMENTS))]
    return [(f"{kind}:{name}", Column(name, (kind,))) for kind in OF_ARGUMENTS]


def all_but(rows: Sequence[Row], repeats: Sequence[tuple[str, Column]]) -> Columns:
    """All columns in which rows differ make groups, but for `repeats` and those that say the same
    as one of them (`--run run_{seed}`)."""
    apart = {column for _, column in repeats}
    partitions = {_partition(rows, column) for column in apart}
    shared, notes = [], []
    for name, column in differing(rows):
        if any(column.name == each.name and set(column.kinds) & set(each.kinds) for each in apart):
            continue
        if _partition(rows, column) in partitions:
            others = " and ".join(f"`{each}`" for each, _ in repeats)
            notes.append(f"`{name}` goes with {others} and makes no groups")
        else:
            shared.append((name, column))
    return Columns(shared=tuple(shared), repeats=tuple(repeats), notes=tuple(notes))


def by_default(rows: Sequence[Row]) -> Columns:
    """All columns in which rows differ make groups, but for seeds."""
    return all_but(rows, [each for each in differing(rows) if is_seed(each[0])])


def by_columns(rows: Sequence[Row], shared: Sequence[tuple[str, Column]]) -> Columns:
    """These columns make groups. What else differs within them is averaged over, which is told but
    for seeds."""
    names = {column.name for _, column in shared}
    others = [each for each in differing(rows) if each[1].name not in names]
    repeats = tuple(each for each in others if is_seed(each[0]))
    taken = {_partition(rows, column) for _, column in (*shared, *repeats)}
    keys = [tuple(key_of(row.value(column)) for _, column in shared) for row in rows]
    averaged = []
    for name, column in others:
        is_alike = _partition(rows, column) in taken
        pairs = set(zip(keys, (key_of(row.value(column)) for row in rows), strict=True))
        if not is_alike and not is_seed(name) and len(pairs) > len(set(keys)):
            averaged.append((name, column))
    return Columns(
        shared=tuple(shared),
        repeats=repeats,
        averaged=tuple(averaged),
        notes=tuple(f"`{name}` differs within groups and is averaged over" for name, _ in averaged),
    )


def chosen(
    rows: Sequence[Row],
    group_by: str | Sequence[str] | None,
    find: Callable[[str], Column],
) -> Columns:
    """The columns that somebody wants groups by: names, in a text `lr,env`; `all-but seed`, all in
    which rows differ but for these; None, all but for seeds.

    `find` finds the column of a name. Raises `HermesError` for one that is unknown.
    """
    if group_by is None:
        return by_default(rows)
    found = ALL_BUT.fullmatch(group_by) if isinstance(group_by, str) else None
    text = found[1] if found else group_by
    names = [name.strip() for name in (text.split(",") if isinstance(text, str) else text)]
    columns = [(name, find(name)) for name in dict.fromkeys(names) if name]
    return all_but(rows, columns) if found else by_columns(rows, columns)


def _partition(rows: Sequence[Row], column: Column) -> tuple[int, ...]:
    """Which rows are alike in a column, whatever its values are."""
    numbers: dict[object, int] = {}
    return tuple(numbers.setdefault(key_of(row.value(column)), len(numbers)) for row in rows)


def grouped(rows: Sequence[Row], columns: Columns, *, with_failed: bool = False) -> Grouping:
    """Rows in groups, sorted by the values of their columns.

    Only finished ones count, or all `with_failed`. Raises `HermesError` if there are no rows.
    """
    if not rows:
        raise HermesError("no experiment to compare")
    members: dict[Key, list[Row]] = {}
    for row in rows:
        key = tuple(key_of(row.value(column)) for _, column in columns.shared)
        members.setdefault(key, []).append(row)
    groups = []
    for each in members.values():
        counted = [row for row in each if with_failed or row.status is Status.FINISHED]
        groups.append(
            Group(
                values=tuple(each[0].value(column) for _, column in columns.shared),
                texts=tuple(each[0].text(column) for _, column in columns.shared),
                rows=tuple(counted),
                left_out=Counter() if with_failed else _others(each),
            )
        )
    groups.sort(key=lambda group: group.rank)
    names = tuple(name for name, _ in columns.shared)
    there = [group for group in groups if group.rows]
    notes = [*columns.notes, *_left_out(groups), *_repeats(names, there, columns)]
    if len(there) < len(groups):
        nothing = [label(names, group) for group in groups if not group.rows]
        notes.insert(len(columns.notes) + 1, f"nothing has finished of {listed(nothing)}")
    foreign = sum(rlmate.is_name(row.identifier) for group in there for row in group.rows)
    if foreign:
        notes.append(f"{foreign} of rlmate's: it does not keep whether a job has failed")
    mixed = [label(names, group) for group in groups if _commits(group) > 1]
    if mixed:
        notes.append(f"runs of different commits are together: {listed(mixed)}")
    if len(groups) > 1 and all(len(each) == 1 for each in members.values()):
        notes.append(_why_alone(names, rows, columns))
    return Grouping(names=names, groups=tuple(groups), notes=tuple(notes))


def _commits(group: Group) -> int:
    return len({row.value(COMMIT) for row in group.rows} - {None})


def _others(rows: Iterable[Row]) -> Counter[Status]:
    return Counter(row.status for row in rows if row.status is not Status.FINISHED)


def _rank(value: Value | None) -> tuple[int, object]:
    """Orders values of all types: numbers, then texts, then the rest, then what is not there."""
    if value is None:
        return 9, 0
    if isinstance(value, int | float):
        return (0, value) if value == value else (1, 0)
    return (2, value) if isinstance(value, str) else (3, str(value))


def counted(counts: Counter[Status]) -> str:
    """How many there are of each status, the most first: `2 failed, 1 running`."""
    return ", ".join(f"{count} {status.value}" for status, count in counts.most_common())


def label(names: Sequence[str], group: Group) -> str:
    """A group in a few words, as a legend names it: `lr 0.01, env cartpole`."""
    parts = [
        f"no {name}" if value is None else f"{name} {text}"
        for name, value, text in zip(names, group.values, group.texts, strict=True)
    ]
    return ", ".join(parts) or "all"


def _left_out(groups: Sequence[Group]) -> list[str]:
    total: Counter[Status] = Counter()
    for group in groups:
        total += group.left_out
    if not total:
        return []
    return [f"{counted(total)} left out; `--with-failed` includes them"]


def _repeats(names: Sequence[str], groups: Sequence[Group], columns: Columns) -> list[str]:
    """Which seeds are missing in which groups, and which are counted more than once."""
    notes = []
    for name, column in columns.repeats:
        wanted = {
            key_of(row.value(column)): row.text(column)
            for group in groups
            for row in group.rows
            if row.value(column) is not None
        }
        missing, twice = [], []
        for group in groups:
            found = {key_of(row.value(column)) for row in group.rows}
            lack = [text for key, text in wanted.items() if key not in found]
            again = _again(group, columns, column) & wanted.keys()
            if lack:
                missing.append(f"{label(names, group)} lacks {name} {', '.join(_sorted(lack))}")
            if again:
                texts = _sorted([wanted[key] for key in again])
                twice.append(f"{label(names, group)} has {name} {', '.join(texts)}")
        if missing:
            notes.append(f"missing: {listed(missing)}")
        if twice:
            notes.append(f"counted more than once: {listed(twice)}")
    return notes


def _again(group: Group, columns: Columns, column: Column) -> set[object]:
    """The values of a column in runs that nothing tells apart."""
    apart = [each for _, each in (*columns.repeats, *columns.averaged)]
    runs = Counter(
        (key_of(row.value(column)), *(key_of(row.value(each)) for each in apart))
        for row in group.rows
    )
    return {key for (key, *_), count in runs.items() if count > 1}


def _sorted(texts: Sequence[str]) -> list[str]:
    def rank(text: str) -> tuple[int, float, str]:
        try:
            return 0, float(text), text
        except ValueError:
            return 1, 0.0, text

    found = sorted(texts, key=rank)
    return found if len(found) <= 10 else [*found[:9], f"and {len(found) - 9} more"]


def listed(texts: Sequence[str]) -> str:
    """Some texts as one, the first few of many."""
    more = len(texts) - NAMED
    return "; ".join(texts[:NAMED]) + (f"; and {more} more" if more > 0 else "")


def _why_alone(names: Sequence[str], rows: Sequence[Row], columns: Columns) -> str:
    alone = [
        name for name, column in columns.shared if len(set(_partition(rows, column))) == len(rows)
    ]
    said = "every group has one run"
    if len(alone) == 1 and len(names) > 1:
        said += f", because `{alone[0]}` is different in each"
    return said

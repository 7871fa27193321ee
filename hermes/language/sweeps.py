"""PROD and ZIP: from an entry to its jobs, lazily.

Values are put into words that are already parsed, never into the text, so a value cannot break a
word or an entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import msgspec

from ..errors import did_you_mean
from ..model import PLACEHOLDERS
from .braces import Key, formatted, is_specification, pieces, written
from .source import Source, Span, Word
from .syntax import Axis, Entry, JobEntry, SweepEntry
from .values import values_of

CHECK_LIMIT = 20_000
"""Combinations of a sweep's values that one check before the start tries (0.1 s).

The jobs beyond find out for themselves.
"""

Values = list[str]
"""The values of all keys in force, by the slot that each key was given."""


class Formatted(NamedTuple):
    """The slot of a key, and how its number is formatted."""

    slot: int
    specification: str


Part = str | int | Formatted


class Template(NamedTuple):
    """A word of a job: text, and slots of keys whose values are put between.

    `pattern` is the word as a sweep would write it, with `{key}` where a value is put in.
    """

    parts: tuple[Part, ...]
    word: Word
    pattern: str = ""

    @property
    def slots(self) -> frozenset[int]:
        return frozenset(
            part.slot if isinstance(part, Formatted) else part
            for part in self.parts
            if not isinstance(part, str)
        )

    def fill(self, values: Values) -> str:
        first = self.parts[0]
        if len(self.parts) == 1 and isinstance(first, int):
            # Most words that hold a key are nothing else
            return values[first]
        return "".join([_filled(part, values) for part in self.parts])


def _filled(part: Part, values: Values) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, int):
        return values[part]
    return formatted(values[part.slot], part.specification)


class JobTemplate(NamedTuple):
    """A job whose words may still wait for values."""

    entry: JobEntry
    items: tuple[tuple[Template, ...], ...]
    options: tuple[Template, ...]


class Column(NamedTuple):
    """One key of a sweep: its slot, and its values in order."""

    key: str
    slot: int
    values: Sequence[str]


class Sweep(NamedTuple):
    """A PROD (`in_step` False) or a ZIP over jobs or other sweeps."""

    in_step: bool
    columns: tuple[Column, ...]
    members: tuple[Sweep | JobTemplate, ...]

    @property
    def rounds(self) -> int:
        """How many times each member is expanded."""
        if self.in_step:
            return len(self.columns[0].values)
        total = 1
        for column in self.columns:
            total *= len(column.values)
        return total


Tree = Sweep | JobTemplate


def build(
    source: Source,
    entry: Entry,
    *,
    seed: int,
    warn: Callable[[str], object],
    is_again: bool = False,
) -> tuple[Tree, int]:
    """The tree of an entry's sweeps, and how many slots its values need.

    `seed` is that of random values. `warn` gets what is probably a mistake. A file that runs a job
    again (`is_again`) gives its parameters a value each, used or not. Raises `HermesFileError`.
    """
    builder = _Builder(source, seed, warn, is_again)
    return builder.build(entry, {}), builder.slots


def count(tree: Tree) -> int:
    """How many jobs a tree yields; may be far too many to count one by one."""
    return 1 if isinstance(tree, JobTemplate) else tree.rounds * sum(map(count, tree.members))


def templates(
    tree: Tree, above: tuple[Sweep, ...] = ()
) -> Iterator[tuple[JobTemplate, tuple[Sweep, ...]]]:
    """The jobs of a tree before any value is put in.

    Each comes with the sweeps around it, outermost first.
    """
    if isinstance(tree, JobTemplate):
        yield tree, above
    else:
        for member in tree.members:
            yield from templates(member, (*above, tree))


def expand(tree: Tree, values: Values) -> Iterator[JobTemplate]:
    """Yields the job templates of a tree in order; at each, `values` holds what to fill in."""
    if isinstance(tree, JobTemplate):
        yield tree
        return
    for member in tree.members:
        single = isinstance(member, JobTemplate)
        for _ in _rounds(tree, values):
            if single:
                yield member  # type: ignore[misc]
            else:
                yield from expand(member, values)


def pick(
    tree: Tree, index: int, values: Values, above: tuple[Sweep, ...] = ()
) -> tuple[JobTemplate, tuple[Sweep, ...]]:
    """The job template of this index among those that `expand` yields, counted from 0; sets
    `values`. It comes with the sweeps around it, outermost first."""
    if isinstance(tree, JobTemplate):
        return tree, above
    for member in tree.members:
        size = count(member)
        if index < size * tree.rounds:
            turn, index = divmod(index, size)
            for column in reversed(tree.columns):
                length = len(column.values)
                values[column.slot] = column.values[turn % length]
                if not tree.in_step:
                    turn //= length
            return pick(member, index, values, (*above, tree))
        index -= size * tree.rounds
    raise IndexError(index)


def distinct(wanted: frozenset[int], above: tuple[Sweep, ...], values: Values) -> Iterator[None]:
    """Sets `values` to every combination that the slots in `wanted` can take.

    The other keys are not walked, and after `CHECK_LIMIT` combinations there are no more.
    """
    return islice(_combinations(wanted, above, values), CHECK_LIMIT)


def _combinations(
    wanted: frozenset[int], above: tuple[Sweep, ...], values: Values
) -> Iterator[None]:
    if not above:
        yield
        return
    columns = [column for column in above[0].columns if column.slot in wanted]
    if not columns:
        yield from _combinations(wanted, above[1:], values)
        return
    for _ in _rounds(Sweep(above[0].in_step, tuple(columns), ()), values):
        yield from _combinations(wanted, above[1:], values)


def _rounds(sweep: Sweep, values: Values) -> Iterator[None]:
    columns = sweep.columns
    if sweep.in_step:
        slots = [column.slot for column in columns]
        for row in zip(*(column.values for column in columns), strict=True):
            for slot, value in zip(slots, row, strict=True):
                values[slot] = value
            yield
        return
    # itertools.product would copy every list of values first: a RANGE of 10^6 has to stay lazy.
    # The loop over the last column is the outermost generator: one job then takes one step of
    # one generator, however many columns there are
    *others, last = columns
    for _ in _rounds(Sweep(False, tuple(others), ()), values) if others else (None,):
        for value in last.values:
            values[last.slot] = value
            yield


class _Builder(msgspec.Struct, eq=False):
    source: Source
    seed: int
    warn: Callable[[str], object]
    is_again: bool
    axes: list[Axis] = msgspec.field(default_factory=list)
    """That of each slot."""

    columns: list[Column] = msgspec.field(default_factory=list)
    used: set[int] = msgspec.field(default_factory=set)

    @property
    def slots(self) -> int:
        return len(self.axes)

    def build(self, entry: Entry, scope: dict[str, int]) -> Tree:
        if isinstance(entry, SweepEntry):
            return self._sweep(entry, scope)
        items = tuple(tuple(self._template(word, scope) for word in item) for item in entry.items)
        return JobTemplate(
            entry, items, tuple(self._template(word, scope) for word in entry.options)
        )

    def _sweep(self, entry: SweepEntry, scope: dict[str, int]) -> Sweep:
        inner = dict(scope)
        columns = []
        for axis in entry.axes:
            self._check_key(axis.key, inner, scope)
            inner[axis.key.text] = self.slots
            values = values_of(self.source, axis, self.seed)
            columns.append(Column(axis.key.text, self.slots, values))
            self.axes.append(axis)
        self.columns += columns
        lengths = [len(column.values) for column in columns]
        if entry.kind == "ZIP" and len(set(lengths)) > 1:
            told = ", ".join(f"`{c.key}` has {n}" for c, n in zip(columns, lengths, strict=True))
            raise self.source.error(
                f"the lists of a ZIP must be equally long: {told}",
                Span(entry.axes[0].key.span.start, entry.axes[-1].span.end),
            )
        members = tuple(self.build(member, inner) for member in entry.entries)
        for column, axis in zip(columns, entry.axes, strict=True):
            if column.slot not in self.used and not (self.is_again and len(column.values) == 1):
                self.warn(
                    f"{self.source.at(axis.key.span)}: nothing uses the key `{column.key}`, so its "
                    f"values make equal jobs; write `{{{column.key}}}` where they belong"
                )
        return Sweep(entry.kind == "ZIP", tuple(columns), members)

    def _check_key(self, key: Word, inner: dict[str, int], scope: dict[str, int]) -> None:
        if key.text in inner:
            where = "around it " if key.text in scope else ""
            raise self.source.error(f"the sweep {where}already has the key `{key.text}`", key.span)
        if key.text in PLACEHOLDERS:
            what = "identifier" if key.text == "identifier" else f"{key.text} of a job"
            raise self.source.error(
                f"`{key.text}` stands for the {what}, it cannot be a key", key.span
            )
        twin = next((each for each in inner if each.upper() == key.text.upper()), None)
        if twin is not None:
            raise self.source.error(
                f"`{twin}` and `{key.text}` differ in case alone, but jobs get the value of either "
                f"as `HERMES_PARAM_{twin.upper()}`",
                key.span,
            )

    def _template(self, word: Word, scope: dict[str, int]) -> Template:
        """Outside a sweep braces are plain text.

        `PLACEHOLDERS` stay as they are everywhere: they are replaced when the job starts.
        """
        if not scope or ("{" not in word.text and "}" not in word.text):
            return Template((word.text,), word, word.text)
        parts: list[Part] = []
        pattern: list[str | Key] = []
        for piece in pieces(word.text):
            if isinstance(piece, str):
                parts.append(piece)
                pattern.append(piece)
                continue
            part = self._part(piece, word, scope)
            is_text = isinstance(part, str) and piece.name not in PLACEHOLDERS
            parts.append(part)
            pattern.append(str(piece) if is_text else piece)
        return Template(_joined(parts), word, written(pattern))

    def _part(self, key: Key, word: Word, scope: dict[str, int]) -> Part:
        """The slot of a key, or the text that only looks like one. Raises `HermesFileError` for an
        unknown key, and for one whose numbers cannot be formatted so."""
        specification = key.specification
        if key.name in scope:
            slot = scope[key.name]
            self.used.add(slot)
            if specification is None:
                return slot
            self._check_format(key, word, slot)
            return Formatted(slot, specification)
        is_text = specification is not None and not is_specification(specification)
        if key.name in PLACEHOLDERS or is_text:
            return str(key)
        known = ", ".join(f"`{each}`" for each in scope)
        raise self.source.error(
            f"no sweep around this job gives `{key}`, it gives {known}",
            word.span,
            hint=did_you_mean(key.name, scope) or f"write `{{{key}}}` for braces that are text",
        )

    def _check_format(self, key: Key, word: Word, slot: int) -> None:
        specification = key.specification or ""
        if not is_specification(specification):
            raise self.source.error(
                f"`{key}` cannot be formatted so, expected a number's format such as `:.2f`",
                word.span,
                hint="it ends in `d`, `e`, `f`, `g` or `%`, as in Python",
            )
        axis, values = self.axes[slot], self.columns[slot].values
        for value in axis.values:
            try:
                formatted(value.text, specification)
            except ValueError as exc:
                raise self.source.error(
                    f"`{key}` cannot format `{value.text}`: {exc}", value.span
                ) from None
        is_whole = axis.function in ("", "CHOICE") or getattr(values, "decimals", 1) == 0
        if specification.endswith("d") and not is_whole:
            raise self.source.error(
                f"`{key}` formats whole numbers, and those of {axis.function} have decimals",
                word.span,
                hint=f"write `{{{key.name}:.0f}}` to round them",
            )


def _joined(parts: list[Part]) -> tuple[Part, ...]:
    """Puts neighbouring texts together, so that filling in does no more than it must."""
    joined: list[Part] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        elif part != "":
            joined.append(part)
    return tuple(joined) or ("",)

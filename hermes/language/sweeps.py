"""PROD, ZIP and RANGE: from an entry to its jobs, lazily.

Values are put into words that are already parsed, never into the text, so a value cannot break a
word or an entry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from ..errors import did_you_mean
from ..model import PLACEHOLDER
from .source import Source, Span, Word
from .syntax import Axis, Entry, JobEntry, SweepEntry

if TYPE_CHECKING:
    from decimal import Decimal

CHECK_LIMIT = 20_000
"""Combinations of a sweep's values that one check before the start tries (0.1 s).

The jobs beyond find out for themselves.
"""

Values = list[str]
"""The values of all keys in force, by the slot that each key was given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range(Sequence[str]):
    """`RANGE[start, stop, step]`: exact decimals, stop excluded, nothing kept in memory.

    All three numbers are in units of `10 ** -decimals`.
    """

    start: int
    stop: int
    step: int
    decimals: int

    def __len__(self) -> int:
        return -((self.start - self.stop) // self.step)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._text(self.start + index % len(self) * self.step)

    def __iter__(self) -> Iterator[str]:
        numbers = range(self.start, self.stop, self.step)
        return map(str, numbers) if not self.decimals else map(self._text, numbers)

    def _text(self, units: int) -> str:
        if not self.decimals:
            return str(units)
        digits = str(abs(units)).zfill(self.decimals + 1)
        return f"{'-' if units < 0 else ''}{digits[: -self.decimals]}.{digits[-self.decimals :]}"


class Template(NamedTuple):
    """A word of a job: text, and slots of keys whose values are put between."""

    parts: tuple[str | int, ...]
    word: Word

    @property
    def slots(self) -> frozenset[int]:
        return frozenset(part for part in self.parts if isinstance(part, int))

    def fill(self, values: Values) -> str:
        first = self.parts[0]
        if len(self.parts) == 1 and isinstance(first, int):
            # Most words that hold a key are nothing else
            return values[first]
        return "".join([part if isinstance(part, str) else values[part] for part in self.parts])


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


def build(source: Source, entry: Entry) -> tuple[Tree, int]:
    """The tree of an entry's sweeps, and how many slots its values need.

    Raises `HermesFileError`.
    """
    builder = _Builder(source)
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


_IN_WORD = re.compile(r"(\{\{|\}\})|\{([^\W\d]\w*)\}")
_EXPONENT_LIMIT = 30


@dataclass(slots=True, eq=False)
class _Builder:
    source: Source
    slots: int = field(default=0)

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
            key = axis.key.text
            if key in inner:
                where = "around it " if key in scope else ""
                raise self.source.error(
                    f"the sweep {where}already has the key `{key}`", axis.key.span
                )
            if key == "identifier":
                raise self.source.error(
                    "`identifier` stands for the identifier, it cannot be a key", axis.key.span
                )
            inner[key] = self.slots
            columns.append(Column(key, self.slots, self._values(axis)))
            self.slots += 1
        lengths = [len(column.values) for column in columns]
        if entry.kind == "ZIP" and len(set(lengths)) > 1:
            told = ", ".join(f"`{c.key}` has {n}" for c, n in zip(columns, lengths, strict=True))
            raise self.source.error(
                f"the lists of a ZIP must be equally long: {told}",
                Span(entry.axes[0].key.span.start, entry.axes[-1].span.end),
            )
        members = tuple(self.build(member, inner) for member in entry.entries)
        return Sweep(entry.kind == "ZIP", tuple(columns), members)

    def _template(self, word: Word, scope: dict[str, int]) -> Template:
        """Outside a sweep braces are plain text.

        `{identifier}` stays as it is everywhere: it is replaced when the job starts.
        """
        if not scope or ("{" not in word.text and "}" not in word.text):
            return Template((word.text,), word)
        parts: list[str | int] = []
        end = 0
        for match in _IN_WORD.finditer(word.text):
            parts.append(word.text[end : match.start()])
            end = match.end()
            if match[1]:
                parts.append(match[1][0])
            elif match[0] == PLACEHOLDER:
                parts.append(PLACEHOLDER)
            elif match[2] in scope:
                parts.append(scope[match[2]])
            else:
                known = ", ".join(f"`{key}`" for key in scope)
                raise self.source.error(
                    f"no sweep around this job gives `{match[0]}`, it gives {known}",
                    word.span,
                    hint=did_you_mean(match[2], scope)
                    or f"write `{{{match[0]}}}` for braces that are text",
                )
        parts.append(word.text[end:])
        return Template(_joined(parts), word)

    def _values(self, axis: Axis) -> Sequence[str]:
        if not axis.is_range:
            return tuple(value.text for value in axis.values)
        return self._range(axis)

    def _range(self, axis: Axis) -> Range:
        # Few files have one, and these modules take their time to load
        from decimal import Decimal
        from fractions import Fraction

        if len(axis.values) not in (2, 3):
            raise self.source.error(
                f"RANGE takes `[start, stop]` or `[start, stop, step]`, found {len(axis.values)}",
                axis.span,
            )
        numbers = [self._number(value) for value in axis.values]
        if len(numbers) == 2:
            numbers.append(Decimal(1))
        decimals = max(0, *(-int(number.as_tuple().exponent) for number in numbers))
        start, stop, step = (int(Fraction(number) * 10**decimals) for number in numbers)
        if step == 0:
            raise self.source.error("the step of a RANGE must not be 0", axis.values[2].span)
        if start != stop and (stop > start) != (step > 0):
            away = axis.values[2] if len(axis.values) == 3 else axis.values[1]
            raise self.source.error(
                f"this step never reaches {axis.values[1].text} from {axis.values[0].text}",
                away.span,
            )
        if start == stop:
            raise self.source.error(
                "the RANGE is empty: its start and stop are equal, and stop is excluded", axis.span
            )
        if -((start - stop) // step) > 10**15:
            raise self.source.error("the RANGE has more than 10^15 values", axis.span)
        return Range(start=start, stop=stop, step=step, decimals=decimals)

    def _number(self, word: Word) -> Decimal:
        from decimal import Decimal, InvalidOperation

        try:
            number = Decimal(word.text) if word.text.isascii() else Decimal("nan")
        except InvalidOperation:
            number = Decimal("nan")
        if not number.is_finite() or "_" in word.text:
            raise self.source.error(f"expected a number, found `{word.text}`", word.span)
        if (
            max(len(word.text), abs(number.adjusted()), abs(int(number.as_tuple().exponent)))
            > _EXPONENT_LIMIT
        ):
            raise self.source.error(f"the number has more than {_EXPONENT_LIMIT} digits", word.span)
        return number


def _joined(parts: list[str | int]) -> tuple[str | int, ...]:
    """Puts neighbouring texts together, so that filling in does no more than it must."""
    joined: list[str | int] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        elif part != "":
            joined.append(part)
    return tuple(joined) or ("",)

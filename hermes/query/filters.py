"""Filters: `lr < 0.01 and env = cartpole and not seed in [1, 2]`; text to a tree, tree to a test.

A comparison with a value that is missing or of another type is false; `not` negates.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import TypeAlias

import msgspec

from ..errors import HermesError, escape
from .columns import DURATIONS, TIMES, Columns, typed
from .rows import Column, Kind, Value

Match: TypeAlias = Callable[[Value], bool]

OPERATORS = ("=", "==", "!=", "<", "<=", ">", ">=")
WORDS = frozenset({"and", "or", "not", "in", "contains", "is", "defined", "since"})
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<sign><=|>=|!=|==|[=<>()\[\],])
      | (?P<word>[^\s"'=!<>()\[\],]+)
      | (?P<end>$)
    )""",
    re.VERBOSE | re.DOTALL,
)
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?:in)?)?(?:(\d+(?:\.\d+)?)s)?")
MOST_NESTED = 100
"""Parentheses and `not` within each other."""


class FilterError(HermesError):
    """A mistake in a filter, with its place in the text."""

    def __init__(
        self, message: str, text: str, start: int, width: int, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.text, self.start, self.width = text, start, width

    def __str__(self) -> str:
        # Characters that do not print would move the caret
        text = "".join(char if char.isprintable() else " " for char in self.text)
        start = self.start
        if len(text) > 160:
            cut = max(0, start - 60)
            text, start = text[cut : cut + 160], start - cut
        caret = "^" * max(1, min(self.width, len(text) - start))
        lines = [f"error: {self.message}", "  |", f"  | {text}", f"  | {' ' * start}{caret}"]
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)


class Spot(msgspec.Struct, frozen=True):
    """Where something stands in the text of a filter."""

    text: str = ""
    start: int = 0
    width: int = 1

    def error(self, message: str, hint: str | None = None) -> FilterError:
        return FilterError(message, self.text, self.start, self.width, hint)


@dataclass(frozen=True, slots=True)
class Name:
    """A column as it was written."""

    text: str
    spot: Spot = field(default=Spot(), compare=False, repr=False)

    def __str__(self) -> str:
        return _quoted_if_needed(self.text)


@dataclass(frozen=True, slots=True)
class Literal:
    """A value as it was written; a quoted one is always text."""

    text: str
    is_quoted: bool = False
    spot: Spot = field(default=Spot(), compare=False, repr=False)

    def __str__(self) -> str:
        return _quoted(self.text) if self.is_quoted else self.text

    @property
    def value(self) -> Value:
        return self.text if self.is_quoted else typed(self.text)


class Compare(msgspec.Struct, frozen=True):
    """`lr < 0.01`, `env contains cart`, `start since monday`."""

    name: Name
    operator: str
    literal: Literal

    def __str__(self) -> str:
        return f"{self.name} {self.operator} {self.literal}"


class In(msgspec.Struct, frozen=True):
    """`seed in [1, 2]`."""

    name: Name
    literals: tuple[Literal, ...]

    def __str__(self) -> str:
        return f"{self.name} in [{', '.join(map(str, self.literals))}]"


class Defined(msgspec.Struct, frozen=True):
    """`return is defined`."""

    name: Name

    def __str__(self) -> str:
        return f"{self.name} is defined"


class Not(msgspec.Struct, frozen=True):
    part: Filter

    def __str__(self) -> str:
        is_small = isinstance(self.part, Compare | In | Defined | Not)
        return f"not {self.part}" if is_small else f"not ({self.part})"


class All(msgspec.Struct, frozen=True):
    """Parts joined by `and`; at least two."""

    parts: tuple[Filter, ...]

    def __str__(self) -> str:
        return " and ".join(
            f"({part})" if isinstance(part, All | Any) else str(part) for part in self.parts
        )


class Any(msgspec.Struct, frozen=True):
    """Parts joined by `or`; at least two."""

    parts: tuple[Filter, ...]

    def __str__(self) -> str:
        return " or ".join(
            f"({part})" if isinstance(part, Any) else str(part) for part in self.parts
        )


Filter: TypeAlias = Compare | In | Defined | Not | All | Any


def parse(text: str) -> Filter:
    """The filter that a text says. Raises `FilterError` if it says none."""
    return _Parser(text).whole()


class _Token(msgspec.Struct, frozen=True):
    kind: str
    text: str
    spot: Spot


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _quoted_if_needed(text: str) -> str:
    found = _TOKEN.fullmatch(text)
    is_word = found is not None and found["word"] == text and text.lower() not in WORDS
    return text if is_word else _quoted(text)


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._split(text))
        self._place = 0
        self._depth = 0

    @staticmethod
    def _split(text: str) -> list[_Token]:
        tokens: list[_Token] = []
        place = 0
        while not tokens or tokens[-1].kind != "end":
            found = _TOKEN.match(text, place)
            if found is None:
                start = place + len(text[place:]) - len(text[place:].lstrip())
                spot = Spot(text, start, 1)
                if text[start] in "\"'":
                    raise spot.error("this quote is never closed")
                raise spot.error("expected a column, a value or a comparison", "not equal is `!=`")
            kind = found.lastgroup or "end"
            start, place = found.span(kind)
            word = found[kind]
            if kind == "quoted":
                word = re.sub(r"\\(.)", r"\1", word[1:-1], flags=re.DOTALL)
            tokens.append(_Token(kind, word, Spot(text, start, max(1, place - start))))
        return tokens

    def whole(self) -> Filter:
        if self._now.kind == "end":
            raise self._now.spot.error("the filter is empty", "for example `status = finished`")
        found = self._either()
        if self._now.kind != "end":
            raise self._now.spot.error(
                "expected `and`, `or` or the end",
                "write `and` between comparisons; quote texts that hold blanks or signs",
            )
        return found

    @property
    def _now(self) -> _Token:
        return self._tokens[self._place]

    def _take(self) -> _Token:
        token = self._now
        self._place += token.kind != "end"
        return token

    def _is(self, word: str) -> bool:
        token = self._now
        return (token.kind == "word" and token.text.lower() == word) or (
            token.kind == "sign" and token.text == word
        )

    def _accept(self, word: str) -> bool:
        is_there = self._is(word)
        self._place += is_there
        return is_there

    def _expect(self, word: str) -> None:
        if not self._accept(word):
            raise self._now.spot.error(f"expected `{word}`")

    def _either(self) -> Filter:
        parts = [self._both()]
        while self._accept("or"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else Any(tuple(parts))

    def _both(self) -> Filter:
        parts = [self._single()]
        while self._accept("and"):
            parts.append(self._single())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _single(self) -> Filter:
        if self._is("not") or self._is("("):
            self._depth += 1
            if self._depth > MOST_NESTED:
                raise self._now.spot.error("this is nested too deeply")
            if self._accept("not"):
                found: Filter = Not(self._single())
            else:
                self._take()
                found = self._either()
                self._expect(")")
            self._depth -= 1
            return found
        return self._comparison()

    def _comparison(self) -> Filter:
        token = self._take()
        if token.kind not in ("word", "quoted") or (
            token.kind == "word" and token.text.lower() in WORDS
        ):
            raise token.spot.error("expected a column", "for example `status = finished`")
        name = Name(token.text, token.spot)
        if self._accept("is"):
            is_not = self._accept("not")
            self._expect("defined")
            return Not(Defined(name)) if is_not else Defined(name)
        if self._is("not"):
            self._take()
            self._expect("in")
            return Not(In(name, self._list()))
        if self._accept("in"):
            return In(name, self._list())
        operator = self._take()
        if operator.kind == "sign" and operator.text in OPERATORS:
            return Compare(name, "=" if operator.text == "==" else operator.text, self._literal())
        word = operator.text.lower()
        if operator.kind == "word" and word in ("contains", "since"):
            literal = self._literal()
            if word == "since" and moment(literal.text, datetime.now().astimezone()) is None:
                raise literal.spot.error(
                    f"`{escape(literal.text)}` is no time",
                    "`yesterday`, `monday`, `2h` or `2026-11-01`",
                )
            return Compare(name, word, literal)
        raise operator.spot.error(
            f"expected a comparison behind `{escape(name.text)}`",
            "`=`, `!=`, `<`, `<=`, `>`, `>=`, `in [...]`, `contains` or `is defined`",
        )

    def _list(self) -> tuple[Literal, ...]:
        self._expect("[")
        found: list[Literal] = []
        while not self._accept("]"):
            found.append(self._literal())
            if not self._is("]"):
                self._expect(",")
        return tuple(found)

    def _literal(self) -> Literal:
        token = self._take()
        if token.kind not in ("word", "quoted"):
            raise token.spot.error("expected a value")
        is_quoted = token.kind == "quoted"
        if not is_quoted and token.text.lower() in WORDS:
            raise token.spot.error("expected a value", f'as text it is written `"{token.text}"`')
        return Literal(token.text, is_quoted, token.spot)


def seconds(text: str) -> float | None:
    """The seconds of `90s`, `2h` or `1d12h`; None if a text is no duration."""
    found = _DURATION.fullmatch(text)
    if found is None or not text:
        return None
    days, hours, minutes, rest = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def moment(text: str, now: datetime) -> tuple[datetime, datetime] | None:
    """When a time begins and ends: `2026-11-01` and `yesterday` are days, `2h` is two hours before
    `now`. None if a text is no time."""
    word = text.lower()
    day: date | None = None
    if word == "now":
        return now, now
    if word in ("today", "yesterday"):
        day = now.date() - timedelta(days=word == "yesterday")
    elif word in DAYS:
        day = now.date() - timedelta(days=(now.weekday() - DAYS.index(word)) % 7)
    elif (ago := seconds(word)) is not None:
        try:
            return now - timedelta(seconds=ago), now - timedelta(seconds=ago)
        except OverflowError:
            return None
    else:
        try:
            if len(text) <= len("2026-11-01"):
                day = date.fromisoformat(text)
            else:
                found = datetime.fromisoformat(text)
                found = found if found.tzinfo else found.astimezone()
                return found, found
        except (ValueError, OverflowError, OSError):
            return None
    try:
        begin, end = (
            datetime.combine(each, time()).astimezone() for each in (day, day + timedelta(days=1))
        )
    except (ValueError, OverflowError, OSError):
        return None
    return begin, end


def condition(
    filter_: Compare | In | Defined, columns: Columns, now: datetime
) -> tuple[Column | None, Match]:
    """The column that is asked about, and whether a value of it passes. None passes never.

    Without any experiment there is no column. Raises `FilterError`.
    """
    column = _column(filter_.name, columns)
    if column is None or isinstance(filter_, Defined):
        return column, lambda value: True
    if isinstance(filter_, In):
        matches = [_matcher(column, "=", each, now) for each in filter_.literals]
        return column, lambda value: any(match(value) for match in matches)
    return column, _matcher(column, filter_.operator, filter_.literal, now)


def _column(name: Name, columns: Columns) -> Column | None:
    try:
        return columns.find(name.text)
    except HermesError as exc:
        if columns.count == 0:
            return None
        raise name.spot.error(exc.message, exc.hint) from None


def _matcher(column: Column, operator: str, literal: Literal, now: datetime) -> Match:
    if column.kinds == (Kind.META,):
        if column.name in TIMES:
            return _time_matcher(column, operator, literal, now)
        if operator != "since" and column.name in DURATIONS:
            length = seconds(literal.text)
            if length is not None:
                return lambda value: _compared(operator, value, length)
    if operator == "since":
        raise literal.spot.error(f"`{escape(column.name)}` is no time", "`start` and `end` are")
    wanted = literal.value
    # What is text in the metadata stays so: a commit may have digits alone
    is_meta = column.kinds == (Kind.META,)

    def match(value: Value) -> bool:
        if operator == "contains":
            if isinstance(value, tuple):
                return any(_compared("=", each, wanted) for each in value)
            return isinstance(value, str) and literal.text in value
        if is_meta and isinstance(value, str):
            return _compared(operator, value, literal.text)
        return _compared(operator, value, wanted)

    return match


def _time_matcher(column: Column, operator: str, literal: Literal, now: datetime) -> Match:
    times = moment(literal.text, now)
    if times is None:
        raise literal.spot.error(
            f"`{escape(column.name)}` is a time, and `{escape(literal.text)}` is none",
            "`yesterday`, `monday`, `2h` (ago) or `2026-11-01`",
        )
    begin, end = times

    def match(value: Value) -> bool:
        if not isinstance(value, datetime):
            return False
        if operator in ("=", "!="):
            return (begin <= value < end or value == begin) == (operator == "=")
        return _compared(">=" if operator == "since" else operator, value, begin)

    return match


def _compared(operator: str, value: Value, wanted: Value) -> bool:
    if isinstance(value, bool) or isinstance(wanted, bool):
        if not (isinstance(value, bool) and isinstance(wanted, bool)):
            return False
        return operator == ("=" if value is wanted else "!=")
    if isinstance(value, int | float) and isinstance(wanted, int | float):
        if value != value or wanted != wanted:
            # NaN is unequal to everything, and in no order
            return operator == "!="
        order = (value > wanted) - (value < wanted)
    elif isinstance(value, str) and isinstance(wanted, str):  # noqa: SIM114
        order = (value > wanted) - (value < wanted)
    elif isinstance(value, datetime) and isinstance(wanted, datetime):
        order = (value > wanted) - (value < wanted)
    else:
        return False
    if operator == "=":
        return order == 0
    if operator == "!=":
        return order != 0
    if operator == "<":
        return order < 0
    if operator == "<=":
        return order <= 0
    return order > 0 if operator == ">" else order >= 0

"""The kinds of values that settings and hermes options take: how their texts are read and written.

The tables of settings and of options name a kind in each row.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")

_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")

_OWN_LONG = (
    "--array", "--chdir", "--clusters", "--dependency", "--error", "--help", "--input",
    "--job-name", "--open-mode", "--output", "--parsable", "--test-only", "--usage", "--version",
    "--wait", "--wrap",
)  # fmt: skip
_OWN_SHORT = ("-D", "-J", "-M", "-V", "-W", "-a", "-d", "-e", "-h", "-i", "-o")
"""Options of `sbatch` without which Hermes would not find its jobs again, or would wait twice."""


class Kind(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A kind of value.

    `noun` says what it is, `metavar` stands for it in help. `parse` reads a text and raises
    `ValueError` with what was expected; `write` is its inverse. `argument` is the type in which
    the command line and calls give it. With `needs_text` the empty text is no value at all.

    A value of several parts can be given several times, and by several layers: `join` puts a later
    one onto an earlier one. `take` reads what a call gives, where that need not be a text. Where a
    value may hold secrets, `shown` is what others may read of it.
    """

    noun: str
    metavar: str
    parse: Callable[[str], T]
    write: Callable[[T], str] = str
    argument: type = str
    needs_text: bool = False
    join: Callable[[T, T], T] | None = None
    take: Callable[[Any], T] | None = None
    shown: Callable[[T], str] | None = None

    @property
    def takes_any_text(self) -> bool:
        """Whether `parse` never fails, so that values of a sweep need no check."""
        return self.parse is str


def _parse_boolean(text: str) -> bool:
    lowered = text.lower()
    if lowered not in _TRUE + _FALSE:
        raise ValueError("expected `true` or `false`")
    return lowered in _TRUE


def _parse_count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text) >= 1):
        raise ValueError("expected a whole number, at least 1")
    return int(text)


def _parse_whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ValueError("expected a whole number, at least 0")
    return int(text)


NONE = "none"
"""Stands for the value None, with which a layer takes back what an earlier one has set."""

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(
    "".join(rf"(?:(?P<{unit}>\d{{1,9}}(?:\.\d{{1,9}})?){unit})?" for unit in _UNITS), re.ASCII
)


def _parse_duration(text: str) -> float:
    found = _DURATION.fullmatch(text.replace(" ", "").lower())
    if not text or found is None:
        hint = f"; write `{text}s` for seconds" if text.isdecimal() else ""
        raise ValueError(f"expected a duration such as `90s`, `45m`, `2h` or `1d12h`{hint}")
    # Here, because the command imports this module with every start
    from decimal import Decimal

    return float(sum(Decimal(found[unit] or 0) * size for unit, size in _UNITS.items()))


def _written_duration(seconds: float) -> str:
    from decimal import Decimal

    rest, parts = Decimal(repr(float(seconds))), []
    for unit, size in _UNITS.items():
        if unit != "s":
            count, rest = divmod(rest, size)
        else:
            count = rest.normalize()
        if count:
            parts.append(f"{count:f}{unit}")
    return "".join(parts) or "0s"


def _taken_duration(given: str | float | timedelta) -> float:
    if isinstance(given, timedelta):
        return _checked_seconds(given.total_seconds())
    return _parse_duration(given) if isinstance(given, str) else _checked_seconds(float(given))


def _checked_seconds(seconds: float) -> float:
    if not 0 <= seconds < 1e9:
        raise ValueError("expected seconds, at least 0")
    return seconds


def _parse_time_limit(text: str) -> float:
    return _not_zero(_parse_duration(text))


def _not_zero(seconds: float) -> float:
    if seconds == 0:
        raise ValueError("expected a time above 0")
    return seconds


def _parse_failures(text: str) -> str:
    number, percent = text.removesuffix("%").strip(), text.endswith("%")
    if not (number.isascii() and number.isdigit() and 1 <= int(number) < 10**9):
        raise ValueError("expected a number of jobs such as `10`, or a share such as `20%`")
    if percent and int(number) > 100:
        raise ValueError("expected at most `100%`")
    return f"{int(number)}%" if percent else str(int(number))


def or_none(kind: Kind[T]) -> Kind[T | None]:
    """A kind whose value may also be None, which is written `none`."""
    take, shown = kind.take or (lambda given: kind.parse(str(given))), kind.shown
    return Kind(
        noun=kind.noun,
        metavar=kind.metavar,
        parse=lambda text: None if text == NONE else kind.parse(text),
        write=lambda value: NONE if value is None else kind.write(value),
        take=lambda given: None if given == NONE else take(given),
        shown=None if shown is None else lambda value: NONE if value is None else shown(value),
    )


def _parse_folder(text: str) -> str:
    if not text:
        raise ValueError("expected a folder, relative to the root")
    if _has_control_characters(text):
        raise ValueError("expected a folder without control characters")
    return text


def split_sbatch(text: str) -> list[str]:
    """The words of some `sbatch` options. Raises `ValueError` with what is wrong."""
    if _has_control_characters(text):
        raise ValueError("expected `sbatch` options without control characters")
    try:
        words = shlex.split(text)
    except ValueError as exc:
        raise ValueError(f"cannot be split into words: {str(exc).lower()}") from None
    if words and not words[0].startswith("-"):
        raise ValueError("expected `sbatch` options, such as `--time=2:00:00`")
    for word in words:
        long, short = word.partition("=")[0], word[:2]
        if long in _OWN_LONG or short in _OWN_SHORT:
            name = long if long in _OWN_LONG else short
            raise ValueError(f"`{name}` is what Hermes itself gives to `sbatch`")
    return words


def _checked_sbatch(text: str) -> str:
    split_sbatch(text)
    return text


_VARIABLE = re.compile(r"[A-Za-z_]\w*=", re.ASCII)
_ODD = re.compile(r"\s+|[^\w@%+=:,./-]")


def _parse_variables(text: str) -> tuple[str, ...]:
    try:
        words = shlex.split(text)
    except ValueError as exc:
        raise ValueError(f"cannot be split into words: {str(exc).lower()}") from None
    return _checked_variables(words)


def _taken_variables(given: str | Mapping[str, str] | Iterable[str]) -> tuple[str, ...]:
    if isinstance(given, str):
        return _parse_variables(given)
    if isinstance(given, Mapping):
        given = [f"{name}={value}" for name, value in given.items()]
    return _checked_variables(given)


def _checked_variables(words: Iterable[str]) -> tuple[str, ...]:
    found: tuple[str, ...] = ()
    for word in words:
        if not _VARIABLE.match(word):
            raise ValueError(f"expected `NAME=value`, found `{word}`")
        if _has_control_characters(word):
            raise ValueError("expected values without control characters")
        found = _joined_variables(found, (word,))
    return found


def _joined_variables(earlier: tuple[str, ...], later: tuple[str, ...]) -> tuple[str, ...]:
    values = {**dict(variables(earlier)), **dict(variables(later))}
    return tuple(f"{name}={value}" for name, value in sorted(values.items()))


def _written_variables(words: tuple[str, ...]) -> str:
    # Words begin with a name, so that no quote is taken for one around the whole value
    return " ".join(_ODD.sub(_quoted, word) for word in words)


def _quoted(match: re.Match[str]) -> str:
    # White space at the end of a line would be lost behind a backslash
    return f"'{match[0]}'" if match[0].isspace() else f"\\{match[0]}"


def variables(words: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The names and values of `NAME=value` words."""
    for word in words:
        name, _, value = word.partition("=")
        yield name, value


def choice(*names: str) -> Kind[str]:
    """One of a few names."""

    def parse(text: str) -> str:
        if text not in names:
            raise ValueError(f"expected {' or '.join(f'`{name}`' for name in names)}")
        return text

    return Kind(noun="a name", metavar="NAME", parse=parse)


def _has_control_characters(text: str) -> bool:
    return any(ord(char) < 32 or ord(char) == 127 for char in text)


BOOLEAN = Kind(
    noun="true or false",
    metavar="BOOL",
    parse=_parse_boolean,
    write=lambda value: str(value).lower(),
    argument=bool,
)
COUNT = Kind(noun="a number", metavar="N", parse=_parse_count, argument=int)
WHOLE = Kind(noun="a number", metavar="N", parse=_parse_whole, argument=int)
FOLDER = Kind(noun="a folder", metavar="DIR", parse=_parse_folder)
DURATION = Kind(
    noun="a duration",
    metavar="TIME",
    parse=_parse_duration,
    write=_written_duration,
    take=_taken_duration,
)
TIME_LIMIT = Kind(
    noun="a duration",
    metavar="TIME",
    parse=_parse_time_limit,
    write=_written_duration,
    take=lambda given: _not_zero(_taken_duration(given)),
)
FAILURES = Kind(noun="a number or a share", metavar="N|N%", parse=_parse_failures)
PATH = Kind(noun="a path", metavar="PATH", parse=str, needs_text=True)
TEXT = Kind(noun="a text", metavar="TEXT", parse=str)
SBATCH = Kind(noun="options of `sbatch`", metavar="OPTIONS", parse=_checked_sbatch)

VARIABLES: Kind[tuple[str, ...]] = Kind(
    noun="environment variables",
    metavar="NAME=value",
    parse=_parse_variables,
    write=_written_variables,
    argument=tuple,
    join=_joined_variables,
    take=_taken_variables,
)

"""The kinds of values that settings and hermes options take: how their texts are read and written.

The tables of settings and of options name a kind in each row.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind(Generic[T]):
    """A kind of value.

    `noun` says what it is, `metavar` stands for it in help. `parse` reads a text and raises
    `ValueError` with what was expected; `write` is its inverse. `argument` is the type in which
    the command line and calls give it. With `needs_text` the empty text is no value at all.

    A value of several parts can be given several times, and by several layers: `join` puts a later
    one onto an earlier one, and `take` reads what a call gives.
    """

    noun: str
    metavar: str
    parse: Callable[[str], T]
    write: Callable[[T], str] = str
    argument: type = str
    needs_text: bool = False
    join: Callable[[T, T], T] | None = None
    take: Callable[[Any], T] | None = None

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
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= 1):
        raise ValueError("expected a whole number, at least 1")
    return int(text)


def _parse_whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ValueError("expected a whole number, at least 0")
    return int(text)


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

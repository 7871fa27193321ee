"""Braces in the words of a sweep: those of its keys, those that are text, and `{{`, `}}`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

_PIECE = re.compile(r"\{\{|\{([^\W\d]\w*)(?::([^{}]*))?\}|[{}]")
_SPECIFICATION = re.compile(
    r"(?:[^{}]?[<>=^])?[-+ ]?z?#?0?[0-9]{0,3}[,_]?(?:\.[0-9]{1,3})?[defg%]", re.ASCII
)


class Key(NamedTuple):
    """`{name}`, or `{name:specification}`."""

    name: str
    specification: str | None = None

    def __str__(self) -> str:
        colon = "" if self.specification is None else f":{self.specification}"
        return f"{{{self.name}{colon}}}"


@lru_cache(maxsize=1000)
def pieces(text: str) -> tuple[str | Key, ...]:
    """The texts and the keys that a word of a sweep consists of.

    `{{` is a brace, and so is the `}}` that closes it. All other braces are as they are, a key
    after a `$` too, because that is a shell's or a configuration's.
    """
    found: list[str | Key] = []
    plain: list[str] = []
    # The braces that are open: whether each was written twice
    doubled: list[bool] = []
    at = 0
    while match := _PIECE.search(text, at):
        plain.append(text[at : match.start()])
        at = match.end()
        if match[1] and text[match.start() - 1 : match.start()] != "$":
            found += ["".join(plain), Key(match[1], match[2])]
            plain = []
        elif match[0] != "}":
            doubled.append(match[0] == "{{")
            plain.append("{")
            at = match.start() + (2 if doubled[-1] else 1)
        elif not doubled or not doubled[-1] or text.startswith("}}", match.start()):
            at += bool(doubled and doubled.pop())
            plain.append("}")
        else:
            plain.append("}")
    plain.append(text[at:])
    return tuple(piece for piece in (*found, "".join(plain)) if piece != "")


def written(parts: Iterable[str | Key]) -> str:
    """The word of a sweep that consists of these pieces."""
    depth = 0
    word: list[str] = []
    for part in parts:
        if isinstance(part, Key):
            word.append(str(part))
            continue
        if "{" not in part and "}" not in part:
            word.append(part)
            continue
        for char in part:
            is_twice = char == "{" or (char == "}" and depth > 0)
            depth += (char == "{") - (char == "}" and is_twice)
            word.append(char * 2 if is_twice else char)
    return "".join(word)


def is_specification(text: str) -> bool:
    """Whether `text` says how a number is formatted."""
    if not _SPECIFICATION.fullmatch(text):
        return False
    try:
        format(1 if text.endswith("d") else 1.0, text)
    except ValueError:
        return False
    return True


def formatted(value: str, specification: str) -> str:
    """A number as Python formats it. Raises `ValueError` with what was expected."""
    # Few files need it, and it takes its time to load
    from decimal import Decimal, InvalidOperation

    try:
        number = Decimal(value) if value.isascii() and "_" not in value else Decimal("nan")
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite() or math.isinf(float(number)):
        raise ValueError("expected a number")
    if not specification.endswith("d"):
        return format(float(number), specification)
    if number != number.to_integral_value():
        raise ValueError("expected a whole number")
    return format(int(number), specification)

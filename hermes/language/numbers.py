"""Decimal numbers as texts: which texts are one, and when two of them are the same number."""

from __future__ import annotations

import re
from functools import lru_cache

NUMBER = re.compile(
    r"([+-]?)(?:(0|[1-9][0-9]*)(?:\.([0-9]*))?|\.([0-9]+))(?:[eE]([+-]?[0-9]{1,4}))?"
)
"""No zeros in front: `007` is a name and not a number."""

_LONGEST = 30
"""Digits up to which a number is written without an exponent."""


@lru_cache(maxsize=10_000)
def canonical(text: str) -> str:
    """The one spelling of a decimal number, exact: `0.50`, `5e-1` and `.5` are `0.5`.

    Any other text is its own.
    """
    match = NUMBER.fullmatch(text)
    if match is None:
        return text
    sign, whole, decimals, bare, exponent = match.groups("")
    decimals += bare
    digits = (whole + decimals).lstrip("0")
    # The number is `digits` times ten to the power of `power`
    power = int(exponent or 0) - len(decimals) + len(digits) - len(digits.rstrip("0"))
    digits = digits.rstrip("0")
    if not digits:
        return "0"
    sign = "-" if sign == "-" else ""
    if max(len(digits), len(digits) + power, -power) > _LONGEST:
        return f"{sign}{digits}e{power}"
    if power >= 0:
        return sign + digits + "0" * power
    digits = digits.zfill(1 - power)
    return f"{sign}{digits[:power]}.{digits[power:]}"


@lru_cache(maxsize=10_000)
def canonical_word(word: str) -> str:
    """A word of a command with its number in one spelling: `--lr=0.50` is `--lr=0.5`."""
    name, equals, value = word.rpartition("=")
    return name + equals + canonical(value)

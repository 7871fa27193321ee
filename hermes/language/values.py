"""The values of a sweep's key: those of a list, or of a function that works each out when it is
asked for, so that any number of them takes no memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from .source import Source, Word
from .syntax import Axis

if TYPE_CHECKING:
    from decimal import Decimal

_EXPONENT_LIMIT = 30
_MOST_VALUES = 10**15
_PRECISION = 30
"""Digits of what is worked out: more than a float has, so that the nearest float is the same on
every machine."""


class Range(Sequence[str]):
    """`RANGE[start, stop, step]`: exact decimals, stop excluded, nothing kept in memory."""

    def __init__(self, *, start: int, stop: int, step: int, decimals: int) -> None:
        """All three numbers are in units of `10 ** -decimals`."""
        self.start, self.stop, self.step = start, stop, step
        self.decimals = decimals

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


class Computed(Sequence[str]):
    """Values that a function works out."""

    def __init__(
        self, *, length: int, at: Callable[[int], str], choices: tuple[str, ...] | None = None
    ) -> None:
        """`at` gives the value of an index, always the same. `choices` are all that they can be,
        None for numbers."""
        self.length, self.at, self.choices = length, at, choices

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        if not -self.length <= index < self.length:
            raise IndexError(index)
        return self.at(index % self.length)


def choices_of(values: Sequence[str]) -> Sequence[str]:
    """All texts that the values can be, as far as they are not numbers made by a function."""
    if isinstance(values, Computed):
        return values.choices or ()
    return () if isinstance(values, Range) else values


def values_of(source: Source, axis: Axis, seed: int) -> Sequence[str]:
    """The values of a key. `seed` is that of random ones. Raises `HermesFileError`."""
    if not axis.function:
        return tuple(value.text for value in axis.values)
    return _Functions(source, axis, seed).values()


class _Functions:
    """What each function makes of its numbers."""

    def __init__(self, source: Source, axis: Axis, seed: int) -> None:
        self._source = source
        self._axis = axis
        self._prefix = f"{seed} {axis.key.text} ".encode()

    def values(self) -> Sequence[str]:
        function = self._axis.function
        if function == "RANGE":
            return self._range()
        if function == "CHOICE":
            return self._choice()
        return self._between(function)

    def _range(self) -> Range:
        # Few files have one, and these modules take their time to load
        from decimal import Decimal
        from fractions import Fraction

        words = self._words("[start, stop]` or `[start, stop, step]", 2, 3)
        numbers = [self._number(word) for word in words]
        if len(numbers) == 2:
            numbers.append(Decimal(1))
        decimals = max(0, *(-int(number.as_tuple().exponent) for number in numbers))
        start, stop, step = (int(Fraction(number) * 10**decimals) for number in numbers)
        if step == 0:
            raise self._source.error("the step of a RANGE must not be 0", words[2].span)
        if start != stop and (stop > start) != (step > 0):
            way = f"{words[0].text}, {words[1].text}"
            raise self._source.error(
                f"a step of {numbers[2]} never reaches {words[1].text} from {words[0].text}",
                words[-1].span,
                hint=f"write `RANGE[{way}, {-numbers[2]}]` for this way",
            )
        if start == stop:
            raise self._source.error(
                "the RANGE is empty: its start and stop are equal, and stop is excluded",
                self._axis.span,
            )
        if -((start - stop) // step) > _MOST_VALUES:
            raise self._source.error("the RANGE has more than 10^15 values", self._axis.span)
        return Range(start=start, stop=stop, step=step, decimals=decimals)

    def _choice(self) -> Computed:
        (last,) = self._words("[[value, ...], n]", 1)
        choices = tuple(value.text for value in self._axis.values)
        return Computed(
            length=self._count(last),
            at=lambda index: choices[self._draw(index) % len(choices)],
            choices=choices,
        )

    def _between(self, function: str) -> Computed:
        """`n` numbers between two bounds: evenly or at random, plainly or in their logarithms."""
        from decimal import Context, Decimal

        is_random = function in ("UNIFORM", "LOGUNIFORM")
        bounds = "low, high" if is_random else "start, stop"
        *ends, last = self._words(f"[{bounds}, n]", 3)
        first, final = (self._number(end) for end in ends)
        count = self._count(last)
        if function.startswith("LOG"):
            for number, end in zip((first, final), ends, strict=True):
                if number <= 0:
                    raise self._source.error(
                        f"the bounds of a {function} must be greater than 0",
                        end.span,
                        hint=f"they are not logarithms: `{function}[1e-4, 1e-2, 3]`",
                    )
        if is_random and first >= final:
            raise self._source.error(
                f"expected a number greater than {ends[0].text}, found `{ends[1].text}`",
                ends[1].span,
            )
        if not is_random and count == 1:
            raise self._source.error(
                f"a {function} has at least 2 values, because both bounds are among them", last.span
            )
        exact = Context(prec=_PRECISION)

        def at(index: int) -> str:
            if is_random:
                part = exact.divide(Decimal(self._draw(index)), Decimal(2**64))
            elif index in (0, count - 1):
                return _shortest(final if index else first)
            else:
                part = exact.divide(Decimal(index), Decimal(count - 1))
            if function.startswith("LOG"):
                ratio = exact.power(exact.divide(final, first), part)
                return _shortest(exact.multiply(first, ratio))
            return _shortest(exact.fma(exact.subtract(final, first), part, first))

        return Computed(length=count, at=at)

    def _draw(self, index: int) -> int:
        """64 random bits, which seed, key and index alone decide."""
        digest = hashlib.blake2b(self._prefix + b"%d" % index, digest_size=8).digest()
        return int.from_bytes(digest, "big")

    def _words(self, expected: str, *counts: int) -> tuple[Word, ...]:
        axis = self._axis
        if len(axis.arguments) not in counts:
            raise self._source.error(
                f"{axis.function} takes `{expected}`, found {len(axis.arguments)}", axis.span
            )
        return axis.arguments

    def _count(self, word: Word) -> int:
        text = word.text
        if not (text.isascii() and text.isdigit() and 1 <= int(text[:30]) <= _MOST_VALUES):
            raise self._source.error(
                f"expected how many values, from 1 to 10^15, found `{text}`", word.span
            )
        return int(text)

    def _number(self, word: Word) -> Decimal:
        from decimal import Decimal, InvalidOperation

        try:
            number = Decimal(word.text) if word.text.isascii() else Decimal("nan")
        except InvalidOperation:
            number = Decimal("nan")
        if not number.is_finite() or "_" in word.text:
            raise self._source.error(f"expected a number, found `{word.text}`", word.span)
        exponent = abs(int(number.as_tuple().exponent))
        if max(len(word.text), abs(number.adjusted()), exponent) > _EXPONENT_LIMIT:
            raise self._source.error(
                f"the number has more than {_EXPONENT_LIMIT} digits", word.span
            )
        return number


def _shortest(number: Decimal) -> str:
    """The shortest digits that read back as the same float."""
    return repr(float(number) + 0.0).removesuffix(".0")

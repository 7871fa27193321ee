"""Hermes options: the table of them, and from the words of STD-H and of a job to its `Options`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import msgspec

from ..errors import HermesFileError, did_you_mean
from ..model import Options
from . import predecessor
from .gpus import AMOUNT
from .kinds import BOOLEAN, PATH, SBATCH, TEXT, TIME_LIMIT, WHOLE, Kind
from .source import Source, Span, Word
from .sweeps import Sweep, Template, Values, distinct


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """One hermes option: a row of the table.

    `field` is the attribute of `Options` that it sets, None if it does nothing and takes no value.
    What is `repeatable` collects its values, of all others the last one wins. `alone` is the value
    of an option that may stand without one. `in_key` says that a job with another value is another
    job. `meaning` is what the README says, `warning` what is told of whoever writes it.
    """

    short: str
    long: str
    field: str | None
    kind: Kind[Any] = TEXT
    meaning: str
    repeatable: bool = False
    alone: str | None = None
    in_key: bool = False
    warning: str = ""

    def takes(self, word: Template) -> bool:
        """Whether the word after the option is its value."""
        if self.field is None:
            return False
        if self.alone is not None:
            return bool(word.slots) or not word.word.text.startswith("-")
        return word.word.text not in FLAGS


OPTIONS = (
    Option(
        short="-cb", long="--copy-before", field="copy_before", kind=PATH,
        repeatable=True, in_key=True,
        meaning="copy into the experiment directory before the job starts",
    ),
    Option(
        short="-ca", long="--copy-after", field="copy_after", kind=PATH,
        repeatable=True, in_key=True,
        meaning="copy when the job has ended, whatever its exit code",
    ),
    Option(
        short="-ma", long="--move-after", field="move_after", kind=PATH,
        repeatable=True, in_key=True,
        meaning="move when it has ended",
    ),
    Option(
        short="-l", long="--log", field="log", kind=BOOLEAN, alone="true",
        meaning="default true; false: what the job prints is also shown live",
    ),
    Option(
        short="-c", long="--comment", field="comments", kind=TEXT, repeatable=True,
        meaning="stored in the metadata; repeatable",
    ),
    Option(
        short="-s", long="--slurm", field="slurm", kind=SBATCH, repeatable=True,
        meaning='options of `sbatch` for this job, such as `"--gres=gpu:1 -p gpu"`; repeatable, '
        "later ones overrule earlier ones; does nothing elsewhere",
    ),
    Option(
        short="-t", long="--timeout", field="timeout", kind=TIME_LIMIT,
        meaning="longest time of this job, instead of that of the settings: `90s`, `2h`",
    ),
    Option(
        short="-r", long="--retries", field="retries", kind=WHOLE,
        meaning="how often this job is tried again if it fails, instead of that of the settings",
    ),
    Option(
        short="-g", long="--gpus", field="gpus", kind=AMOUNT,
        meaning="how many GPUs this job needs, `0.5` shares one: by default what `jobs_per_gpu` "
        "says; on Slurm `--gpus-per-task`",
    ),
    Option(short="-leg", long="--legacy", field=None, meaning="accepted, does nothing"),
    Option(
        short="-m", long="--message", field=None,
        meaning="accepted with a warning, does nothing",
        warning=predecessor.NO_MESSAGES,
    ),
)  # fmt: skip
"""The table. Keys of jobs hash the options in this order."""

FLAGS: Mapping[str, Option] = {
    flag: option for option in OPTIONS for flag in (option.short, option.long)
}


class _Given(NamedTuple):
    """An option that a job has, with its value before the sweeps' values are put in."""

    option: Option
    flag: str
    value: Template

    @property
    def can_be_wrong(self) -> bool:
        """Whether a value of a sweep can be one that the option cannot have."""
        kind, parts = self.option.kind, self.value.parts
        can_be_empty = kind.needs_text and not any(isinstance(part, str) for part in parts)
        return bool(self.value.slots) and (can_be_empty or not kind.takes_any_text)


class _Before(NamedTuple):
    """The option before a word that is none."""

    option: Option
    flag: str
    value: Template | None


class OptionsTemplate:
    """The hermes options of one job entry, before values are put in.

    `standard` are the words of STD-H, `own` those of the entry, `comments` those of the call.
    Raises `HermesFileError` for options that are wrong whatever the values are.
    """

    def __init__(
        self,
        source: Source,
        *,
        standard: Sequence[Word],
        own: Sequence[Template],
        comments: Sequence[str],
    ) -> None:
        self._source = source
        self._given: list[_Given] = []
        self.warnings: dict[Option, str] = {}
        self._parse([Template((word.text,), word) for word in standard])
        self._parse(own)
        for text in comments:
            self._add(FLAGS["-c"], "-c", Template((text,), Word(text, Span(0, 0))))
        # What no value changes is worked out once
        self._fixed = {
            index: self._value(given, [])
            for index, given in enumerate(self._given)
            if not given.value.slots
        }
        self._bound = self._bind([]) if len(self._fixed) == len(self._given) else None

    def bind(self, values: Values) -> Options:
        """The options of one job. Raises `HermesFileError` for values that they cannot have."""
        return self._bound or self._bind(values)

    def templates(self, field: str) -> list[Template]:
        """What sets this attribute of `Options`, in order."""
        return [given.value for given in self._given if given.option.field == field]

    def paths(self) -> list[Word]:
        """The words that say what to copy and move, as they are written."""
        return [given.value.word for given in self._given if given.option.kind is PATH]

    def check(self, above: tuple[Sweep, ...], values: Values) -> None:
        """Raises `HermesFileError` if values of the sweeps around make an option unusable."""
        for given in self._given:
            if given.can_be_wrong:
                for _ in distinct(given.value.slots, above, values):
                    self._value(given, values)

    def _bind(self, values: Values) -> Options:
        found: dict[str, Any] = {}
        for index, given in enumerate(self._given):
            field = given.option.field
            assert field is not None, "an option without a field is not kept"
            value = self._fixed[index] if index in self._fixed else self._value(given, values)
            if given.option.repeatable:
                found[field] = (*found.get(field, ()), value)
            else:
                found[field] = value
        return Options(**found)

    def _value(self, given: _Given, values: Values) -> object:
        option, word = given.option, given.value.word
        text = given.value.fill(values)
        if not text and option.kind.needs_text:
            raise self._source.error(
                f"`{given.flag}` needs {option.kind.noun}, a value of the sweep gives none",
                word.span,
            )
        try:
            return option.kind.parse(text)
        except ValueError as exc:
            raise self._source.error(
                f"bad value `{text}` for `{option.short}`: {exc}", word.span
            ) from None

    def _parse(self, words: Sequence[Template]) -> None:
        rest = deque(words)
        before: _Before | None = None
        while rest:
            template = rest.popleft()
            flag, value = _split(template)
            option = FLAGS.get(flag)
            if option is None:
                raise self._unknown(template.word, before, [each.word.text for each in rest])
            if value is None and rest and option.takes(rest[0]):
                value = rest.popleft()
            if value is None and option.alone is not None:
                value = Template((option.alone,), template.word)
            before = _Before(option, flag, value)
            if option.warning:
                at = self._source.at(template.word.span)
                self.warnings.setdefault(option, f"{at}: `{flag}` {option.warning}")
            if option.field is None:
                continue
            if value is None or (option.kind.needs_text and not value.word.text):
                raise self._source.error(
                    f"`{flag}` needs {option.kind.noun} after it", template.word.span
                )
            self._add(option, flag, value)

    def _add(self, option: Option, flag: str, value: Template) -> None:
        if not option.repeatable:
            self._given = [given for given in self._given if given.option is not option]
        self._given.append(_Given(option, flag, value))

    def _unknown(
        self, word: Word, before: _Before | None, following: Sequence[str]
    ) -> HermesFileError:
        if word.text.startswith("-"):
            hint = _taken_apart(word.text) or _nearest(word.text)
            return self._source.error(f"unknown hermes option `{word.text}`", word.span, hint=hint)
        hint = "an option takes one word; quote a text that holds spaces"
        if before is not None and before.option.kind is PATH:
            hint = f"write `{before.flag} {word.text}` for one more path, or quote one with spaces"
        value = before.value.word if before is not None and before.value is not None else None
        glued = value and predecessor.glued_comment(
            self._source.text[value.span.start : value.span.end]
        )
        if glued:
            hint = glued
        elif before is not None and before.option.kind is TEXT:
            more = takewhile(lambda text: not text.startswith("-"), following)
            text = " ".join([*([value.text] if value else []), word.text, *more])
            takes, flag = ("one word", before.flag) if before.option.field else ("nothing", "-c")
            if not set(text) & set("'\"\\"):
                hint = f'`{before.flag}` takes {takes}; write `{flag} "{text}"` for a comment'
        return self._source.error(
            f"expected a hermes option, found `{word.text}`", word.span, hint=hint
        )


def _split(template: Template) -> tuple[str, Template | None]:
    """The flag, and the value if it is attached: `--option=value`, or `-o=value` as in rlmate."""
    word = template.word
    flag, equals, attached = word.text.partition("=")
    if not (equals and flag in FLAGS):
        return word.text, None
    first = template.parts[0]
    if not isinstance(first, str) or "=" not in first:
        # A sweep's value stands where the name of an option should: there is no such option
        return word.text, None
    parts = (first.partition("=")[2], *template.parts[1:])
    return flag, Template(parts, Word(attached, word.span))


def _taken_apart(text: str) -> str | None:
    """What to write for a flag with its value right behind it, as in `-lFalse`."""
    for option in OPTIONS:
        value = text.removeprefix(option.short)
        if option.kind is BOOLEAN and value != text:
            try:
                BOOLEAN.parse(value)
            except ValueError:
                continue
            return f"write `{option.short} {value}`"
    return None


def _nearest(text: str) -> str | None:
    short = [option.short for option in OPTIONS]
    return (did_you_mean(text, short) if len(text) < 4 else None) or did_you_mean(text, FLAGS)


def written(options: Options) -> Iterator[tuple[Option, str]]:
    """The options that are not the default, each with the text of its value."""
    default = Options()
    for option in OPTIONS:
        if option.field is None:
            continue
        value = getattr(options, option.field)
        if option.repeatable:
            yield from ((option, option.kind.write(each)) for each in value)
        elif value != getattr(default, option.field):
            yield option, option.kind.write(value)

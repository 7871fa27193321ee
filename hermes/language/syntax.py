"""From the text of a hermes file to its sections and entries, each with its place in the text.

Nothing is expanded or interpreted here: sweeps stay sweeps and placeholders stay placeholders.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import msgspec

from ..errors import HermesFileError, did_you_mean
from . import predecessor
from .source import Source, Span, Word
from .words import COMMENT, MAX_DEPTH, SPACE, Cursor, is_option

SECTIONS = ("PRE", "STD-H", "STD-E", "EXEC")

HEADERS = (*SECTIONS, predecessor.HEADER)
"""What is taken for a header where it stands alone on a line, without quotes."""

FUNCTIONS = ("RANGE", "LINSPACE", "LOGSPACE", "UNIFORM", "LOGUNIFORM", "CHOICE")
"""What can give the values of a key, in place of a list."""

Item = tuple[Word, ...]


class SettingLine(NamedTuple):
    """`key: value`. `rest` is what follows a value in quotes."""

    key: Word
    value: Word
    rest: Span | None = None


class JobEntry(NamedTuple):
    """`[[item, ...],[option, ...]]`; the words of all options in one row."""

    items: tuple[Item, ...]
    options: tuple[Word, ...]
    span: Span


class Axis(msgspec.Struct, frozen=True, kw_only=True):
    """`key=[value, ...]`, or `key=RANGE[start, stop, step]` with the name of the `function`.

    `arguments` are what stands in a function's brackets; of a CHOICE, what stands behind its list.
    """

    key: Word
    values: tuple[Word, ...]
    function: str
    arguments: tuple[Word, ...]
    span: Span


class SweepEntry(msgspec.Struct, frozen=True, kw_only=True):
    """`PROD(...)` or `ZIP(...)`."""

    kind: Literal["PROD", "ZIP"]
    entries: tuple[Entry, ...]
    axes: tuple[Axis, ...]
    span: Span


Entry = JobEntry | SweepEntry


class Document(msgspec.Struct, eq=False, kw_only=True):
    """A parsed hermes file."""

    source: Source
    settings: list[SettingLine] = msgspec.field(default_factory=list)
    hermes_options: list[Word] = msgspec.field(default_factory=list)
    script_arguments: list[Word] = msgspec.field(default_factory=list)
    entries: list[Entry] = msgspec.field(default_factory=list)
    cut_off: list[Span] = msgspec.field(default_factory=list)
    """Comments by `//` behind words of the same line, which may be words themselves."""

    def words_of_lines(self) -> Iterator[Word]:
        """The values of PRE, and the words of STD-H and STD-E."""
        yield from (line.value for line in self.settings)
        yield from self.hermes_options
        yield from self.script_arguments


def parse(source: Source) -> Document:
    """Parses a whole hermes file. Raises `HermesFileError` at the first mistake."""
    return _Parser(source).document()


def parse_settings(source: Source) -> list[SettingLine]:
    """Parses the lines of `.hermes_settings`, which are those of PRE."""
    return _Parser(source).settings_only()


def values_in(entries: Iterable[Entry]) -> Iterator[Word]:
    """The values of all sweeps, as they are written."""
    for entry in entries:
        if isinstance(entry, SweepEntry):
            for axis in entry.axes:
                yield from axis.values
            yield from values_in(entry.entries)


_NAME = re.compile(r"[^\W\d]\w*")
_HEADER = re.compile(
    rf"[^\S\n]*({'|'.join(HEADERS)})[^\S\n]*(?:(?<=\s)(?:#|//)[^\n]*)?(?:\n|\Z)", re.ASCII
)
_ODD_KEY = re.compile(r"[^\s,=()\[\]{}'\"]+(?=\s*=\s*(?:[A-Z]+\s*)?\[)", re.ASCII)
_NO_SPACE = re.compile(r"[^\s\[\](){}]*", re.ASCII)
_EQUALS = re.compile(r"\s*=", re.ASCII)
_COLON = re.compile(r"\s*:", re.ASCII)
_COMMENT_OR_QUOTED = re.compile(
    r"""(?<=[\s=])(?:'[^'\n]*'|"(?:[^"\\\n]|\\.)*")|(?<=\s)(?P<comment>\#|//)""", re.ASCII
)
SINGLE_QUOTES = "'‘’‚‛"
DOUBLE_QUOTES = '"“”„‟'
_AFTER_KEY = "`[value, ...]` or `RANGE[start, stop, step]`"
_JOB_HINT = "a job is `[[item, item, ...],[option, option, ...]]`"


class _Parser(Cursor):
    # Lines and sections

    def document(self) -> Document:
        document = Document(source=self.source)
        seen: dict[str, int] = {}
        section: str | None = None
        while not self.at_end():
            header = _HEADER.match(self.text, self.pos)
            if header:
                section = header[1]
                at = Span(*header.span(1))
                if section not in SECTIONS:
                    raise self.source.error(
                        f"the header `{section}` is one of rlmate's",
                        at,
                        hint=predecessor.HEADER_HINT,
                    )
                if section in seen:
                    raise self.source.error(
                        f"section `{section}` appears twice, first on line {seen[section]}", at
                    )
                seen[section] = self.source.line(self.pos)
                self.pos = header.end()
            elif self.skip_blank_line():
                continue
            elif section is None:
                raise self._not_a_header()
            elif section == "PRE":
                document.settings.append(self._setting())
            elif section == "EXEC":
                self._entries(document.entries)
            else:
                words = document.hermes_options if section == "STD-H" else document.script_arguments
                words.extend(self._words_of_line())
        if "EXEC" not in seen:
            raise self.error(
                "no EXEC section, expected the header `EXEC` alone on a line",
                hint="the jobs to execute come after it",
            )
        document.cut_off = self.cut_off
        if not document.entries:
            raise self.error("the EXEC section is empty, expected a job", hint=_JOB_HINT)
        return document

    def settings_only(self) -> list[SettingLine]:
        settings = []
        while not self.at_end():
            if not self.skip_blank_line():
                settings.append(self._setting())
        return settings

    def _not_a_header(self) -> HermesFileError:
        word = self.first_word()
        hint = did_you_mean(word.text.upper().rstrip(":"), SECTIONS)
        return self.source.error(
            "expected a section header: `PRE`, `STD-H`, `STD-E` or `EXEC`, alone on a line",
            word.span,
            hint=hint,
        )

    def _setting(self) -> SettingLine:
        word = self.first_word()
        start = word.span.start
        end = self.line_end()
        old = predecessor.KEY_LINE.match(self.text, start, end)
        if old:
            # The value may be a secret, and is not needed
            self.skip_line()
            return SettingLine(Word(old[1], Span(*old.span(1))), Word("", Span(end, end)))
        colon = self.text.find(":", start, end)
        if colon < 0:
            name, equals, text = self.text[start:end].partition("=")
            hint = did_you_mean(word.text.upper(), SECTIONS)
            if equals:
                hint = f"write `{name.rstrip()}: {text.strip()}`"
            raise self.source.error("expected `key: value`", word.span, hint=hint)
        key = self.text[start:colon].rstrip()
        if not key:
            raise self.error("expected a key before the `:`", colon)
        value, rest = self._setting_value(colon + 1, end)
        setting = SettingLine(Word(key, Span(start, start + len(key))), value, rest)
        self.skip_line()
        return setting

    def _setting_value(self, start: int, end: int) -> tuple[Word, Span | None]:
        """The value, and what follows if it is in quotes."""
        while start < end and self.text[start] in SPACE:
            start += 1
        if COMMENT.match(self.text, start, end) and self.text[start - 1] in SPACE:
            end = start
        quotes = next(
            (
                kind
                for kind in (SINGLE_QUOTES, DOUBLE_QUOTES)
                if start < end and self.text[start] in kind
            ),
            None,
        )
        if quotes:
            stop = next((i for i in range(start + 1, end) if self.text[i] in quotes), -1)
            if stop < 0:
                shown = self.source.without_secrets(start)
                # Not by `error`: here a typographic quote is as good as any
                at = shown.place(Span(start, start + 1))
                raise HermesFileError("the quote is never closed", at)
            stop_rest = stop + 1 + len(self._without_comment(stop + 1, end))
            is_comment = COMMENT.match(self.text, stop + 1, end) or stop_rest == stop + 1
            rest = None if is_comment else Span(stop + 1, stop_rest)
            return Word(self.text[start + 1 : stop], Span(start, stop + 1)), rest
        value = self._without_comment(start, end)
        return Word(value, Span(start, start + max(1, len(value)))), None

    def _without_comment(self, start: int, end: int) -> str:
        for found in _COMMENT_OR_QUOTED.finditer(self.text, start, end):
            if found["comment"]:
                self.note_comment(found.start())
                end = found.start()
                break
        return self.text[start:end].rstrip()

    def _words_of_line(self) -> list[Word]:
        words: list[Word] = []
        while True:
            self.skip_blanks()
            if self.at_line_end():
                self.note_comment(self.pos)
                self.skip_line()
                return words
            words.append(self.shell_word(ends="", multiline=False))

    # Entries

    def _entries(self, entries: list[Entry]) -> None:
        """Reads the entries that start on this line, each to its end.

        The rest of the last one's line is skipped.
        """
        self.skip_blanks()
        while True:
            entries.append(self._entry(0))
            self.skip_blanks()
            if self.peek() == ",":
                self.pos += 1
                self.skip_blanks()
            if self.at_line_end():
                self.skip_line()
                return

    def _entry(self, depth: int) -> Entry:
        if depth > MAX_DEPTH:
            raise self.error(f"sweeps nested deeper than {MAX_DEPTH}")
        start = self.pos
        if self.peek() == "[":
            return self._job()
        name = _NAME.match(self.text, self.pos)
        if name and name[0] in ("PROD", "ZIP"):
            self.pos = name.end()
            self.skip_gaps()
            if self.peek() != "(":
                raise self.unexpected(f"`(` after `{name[0]}`")
            return self._sweep("PROD" if name[0] == "PROD" else "ZIP", start, depth)
        if name:
            hint = did_you_mean(name[0].upper(), ("PROD", "ZIP")) or _JOB_HINT
            if depth and _COLON.match(self.text, name.end()):
                hint = f"the values of a key stand behind a `=`: `{name[0]}=[value, ...]`"
            raise self.error(
                f"expected a job or a sweep, found `{name[0]}`", start, name.end(), hint=hint
            )
        raise self.unexpected("a job or a sweep", hint=_JOB_HINT)

    def _job(self) -> JobEntry:
        start = self.pos
        self.pos += 1
        self.skip_gaps()
        if self.peek() != "[":
            raise self.unexpected("`[` to open the list of items", opened=start, hint=_JOB_HINT)
        first = self.pos
        items = self._list(of_job=True)
        if not any(items):
            raise self.error(
                "the job is empty, expected a program", first, self.pos, hint=_JOB_HINT
            )
        options: tuple[Word, ...] = ()
        self.skip_gaps()
        if self.peek() == ",":
            self.pos += 1
            self.skip_gaps()
            if self.peek() == "[":
                options = tuple(word for item in self._list() for word in item)
                self.skip_gaps()
                if self.peek() == ",":
                    self.pos += 1
                    self.skip_gaps()
        if self.peek() != "]":
            is_text = self.text[self.pos - 1] == "]" and self.peek() != "["
            hint = "quote brackets that are text" if is_text else _JOB_HINT
            raise self.unexpected("`]` to close the job", opened=start, hint=hint)
        self.pos += 1
        return JobEntry(tuple(items), options, Span(start, self.pos))

    def _sweep(self, kind: Literal["PROD", "ZIP"], start: int, depth: int) -> SweepEntry:
        self.pos += 1
        entries: list[Entry] = []
        axes: list[Axis] = []
        while True:
            self.skip_gaps()
            if self.peek() == ")":
                break
            name = _NAME.match(self.text, self.pos)
            if name and name[0] not in ("PROD", "ZIP") and _EQUALS.match(self.text, name.end()):
                axes.append(self._axis(name))
            elif (odd := _ODD_KEY.match(self.text, self.pos)) and odd[0] not in ("PROD", "ZIP"):
                raise self._odd_key(odd)
            elif self.at_end():
                raise self.unexpected("`)` to close the sweep", opened=start)
            else:
                entries.append(self._entry(depth + 1))
            self.skip_gaps(after_entry=True)
            if self.peek() == ",":
                self.pos += 1
            elif self.peek() != ")":
                raise self.unexpected("`,` or `)` in the sweep", opened=start)
        self.pos += 1
        span = Span(start, self.pos)
        if not entries:
            raise self.source.error(
                f"the {kind} has no job, expected `{kind}(job, key=values)`", span
            )
        if not axes:
            raise self.source.error(
                f"the {kind} has no `key=values`",
                span,
                hint=f"for instance `{kind}(job, seed=[1, 2, 3])`",
            )
        return SweepEntry(kind=kind, entries=tuple(entries), axes=tuple(axes), span=span)

    def _odd_key(self, key: re.Match[str]) -> HermesFileError:
        plain = re.sub(r"\W|^(?=\d)", "_", key[0])
        return self.source.error(
            f"the key `{key[0]}` is no name, expected letters, digits and `_`",
            Span(*key.span()),
            hint=f"for instance `{plain}=...` and `{{{plain}}}`",
        )

    def _axis(self, name: re.Match[str]) -> Axis:
        self.pos = self.text.index("=", name.end()) + 1
        self.skip_gaps()
        start = self.pos
        name_of = _NAME.match(self.text, start)
        function = name_of[0] if name_of else ""
        if name_of:
            self.pos = name_of.end()
            self.skip_gaps()
        if function and function not in FUNCTIONS:
            hint = did_you_mean(function.upper(), FUNCTIONS)
            raise self.error(
                f"expected {_AFTER_KEY} after `{name[0]}=`, found `{function}`",
                start,
                start + len(function),
                hint=hint,
            )
        if self.peek() != "[":
            raise self.unexpected(f"{_AFTER_KEY} after `{name[0]}=`")
        values: tuple[Word, ...] = ()
        arguments: tuple[Word, ...] = ()
        if function == "CHOICE":
            self.pos += 1
            self.skip_gaps()
            if self.peek() != "[":
                raise self.unexpected("`[value, ...]` to choose from", opened=start)
            values = self._values_of_list()
            self.skip_gaps()
            if self.peek() != ",":
                raise self.unexpected("`,` and how many values", opened=start)
            # The comma stands for the bracket that opens the rest of the list
            arguments = self._values_of_list()
        elif function:
            arguments = self._values_of_list()
        else:
            values = self._values_of_list()
        span = Span(start, self.pos)
        if not (values if function in ("", "CHOICE") else arguments):
            raise self.source.error(f"no values for `{name[0]}`", span)
        key = Word(name[0], Span(name.start(), name.end()))
        return Axis(key=key, values=values, function=function, arguments=arguments, span=span)

    def _values_of_list(self) -> tuple[Word, ...]:
        return tuple(self._value(item) for item in self._list())

    def _value(self, item: Item) -> Word:
        """A sweep's value is text: the white space inside it stays."""
        text = item[0].text
        for before, word in pairwise(item):
            gap = self.text[before.span.end : word.span.start]
            text += (gap if gap.isspace() and "\n" not in gap else " ") + word.text
        return Word(text, Span(item[0].span.start, item[-1].span.end))

    def _list(self, *, of_job: bool = False) -> list[Item]:
        """Reads `[item, item, ...]`, brackets and all; each item is split into words.

        Those `of_job` are the words of a command, in which a comma may be meant as text.
        """
        opened = self.pos
        self.pos += 1
        items: list[Item] = []
        words: list[Word] = []
        nested: list[int] = []
        while True:
            self.skip_gaps()
            if self.at_end():
                at = nested[-1] if nested else opened
                raise self.error(
                    f"`{self.text[at]}` is never closed", at, hint=self._hidden_bracket(at)
                )
            char = self.text[self.pos]
            if not nested and char in ",]":
                if words:
                    if of_job and char == ",":
                        self._check_comma(words, items[-1] if items else ())
                    items.append(tuple(words))
                    words = []
                elif char == ",":
                    raise self.error("expected an item before the `,`")
                self.pos += 1
                if char == "]":
                    return items
            else:
                words.append(self.shell_word(ends=",]", multiline=True, nested=nested))

    def _hidden_bracket(self, opened: int) -> str | None:
        comment = self.comment
        if comment is None or comment.start < opened:
            return None
        text = self.text[comment.start : comment.end]
        return f"`{text}` is a comment; quote the word if it is none" if "]" in text else None

    def _check_comma(self, words: Sequence[Word], item: Item) -> None:
        """Raises `HermesFileError` for a comma that seems to stand inside a value.

        `item` is the one before. Its option counts if this comma is written unlike the last.
        """
        last, before = words[-1], words[-2].text if len(words) > 1 else ""
        if item and len(words) == 1 and self.text[last.span.start - 1] in SPACE:
            before = item[-1].text
        follows = self.text[self.pos + 1 : self.pos + 2]
        is_value = "=" in last.text or is_option(before)
        if not is_value or follows in ("", "-", "]", "\\") or follows in SPACE:
            return
        rest = _NO_SPACE.match(self.text, self.pos + 1)
        value = self.text[last.span.start : rest.end() if rest else self.pos + 1]
        items = value.replace(",", ", ")
        whole = f'"{value}"' if not set(value) & set("'\"\\$`") else "quotes around the value"
        raise self.error(
            f"this comma ends an item, but seems to be part of `{value}`",
            hint=f"write {whole if whole[0] == 'q' else f'`{whole}`'} for one word, or `{items}` "
            "for items",
        )

"""From the text of a hermes file to its sections and entries, each with its place in the text.

Nothing is expanded or interpreted here: sweeps stay sweeps and placeholders stay placeholders.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, NamedTuple

from ..errors import HermesFileError, Place, did_you_mean

SECTIONS = ("PRE", "STD-H", "STD-E", "EXEC")
MAX_DEPTH = 100
"""Sweeps inside sweeps, and brackets inside items, that are followed: far more than a person writes, far less than
Python's recursion limit."""


class Span(NamedTuple):
    """From `start` up to `end`, in characters of the source text."""

    start: int
    end: int


class Source(NamedTuple):
    """The text of a file, and the way from an offset in it to a place that a person can find."""

    path: str
    text: str
    starts: tuple[int, ...]

    @classmethod
    def of(cls, path: str, data: bytes) -> Source:
        """Decodes UTF-8 with or without a byte order mark; CRLF becomes LF."""
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as exc:
            # `exc.object` is the data without the byte order mark
            good = exc.object[: exc.start].decode("utf-8", "replace")
            source = cls._of_text(path, good + "\ufffd")
            at = Span(len(source.text) - 1, len(source.text))
            raise source.error(
                f"not UTF-8: byte 0x{exc.object[exc.start]:02x}", at, hint="save the file as UTF-8"
            ) from None
        source = cls._of_text(path, text)
        nul = source.text.find("\0")
        if nul >= 0:
            raise source.error("a NUL character, expected text", Span(nul, nul + 1))
        return source

    @classmethod
    def _of_text(cls, path: str, text: str) -> Source:
        text = text.removeprefix("\ufeff").replace("\r\n", "\n")
        return cls(path, text, (0, *(match.end() for match in re.finditer("\n", text))))

    def line(self, offset: int) -> int:
        return bisect_right(self.starts, offset)

    def place(self, span: Span) -> Place:
        line = self.line(span.start)
        start = self.starts[line - 1]
        end = self.starts[line] - 1 if line < len(self.starts) else len(self.text)
        width = max(1, min(span.end, end) - span.start)
        return Place(self.path, line, span.start - start + 1, width, self.text[start:end])

    def error(self, message: str, span: Span, *, hint: str | None = None) -> HermesFileError:
        return HermesFileError(message, self.place(span), hint=hint)


class Word(NamedTuple):
    """A word after its quotes are taken away, and where it stood."""

    text: str
    span: Span


Item = tuple[Word, ...]


class Setting(NamedTuple):
    key: Word
    value: Word


class JobEntry(NamedTuple):
    """`[[item, ...],[option, ...]]`; the words of all options in one row."""

    items: tuple[Item, ...]
    options: tuple[Word, ...]
    span: Span


class Axis(NamedTuple):
    """`key=[value, ...]`, or `key=RANGE[start, stop, step]` with `is_range`."""

    key: Word
    values: tuple[Word, ...]
    is_range: bool
    span: Span


class SweepEntry(NamedTuple):
    """`PROD(...)` or `ZIP(...)`."""

    kind: Literal["PROD", "ZIP"]
    entries: tuple[Entry, ...]
    axes: tuple[Axis, ...]
    span: Span


Entry = JobEntry | SweepEntry


@dataclass(slots=True, eq=False)
class Document:
    """A parsed hermes file."""

    source: Source
    settings: list[Setting] = field(default_factory=list)
    hermes_options: list[Word] = field(default_factory=list)
    script_arguments: list[Word] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)


def parse(source: Source) -> Document:
    """Parses a whole hermes file. Raises `HermesFileError` at the first mistake."""
    return _Parser(source).document()


def parse_settings(source: Source) -> list[Setting]:
    """Parses the lines of `.hermes_settings`, which are those of PRE."""
    return _Parser(source).settings_only()


_COMMENT = re.compile(r"#|//")
_SPACE = " \t\n\r\f\v"
_BLANKS = re.compile(r"[^\S\n]+", re.ASCII)
_FIRST_WORD = re.compile(r"\s*(\S+)", re.ASCII)
_NAME = re.compile(r"[^\W\d]\w*")
_HEADER = re.compile(
    r"[^\S\n]*(PRE|STD-H|STD-E|EXEC)[^\S\n]*(?:(?<=\s)(?:#|//)[^\n]*)?(?:\n|\Z)", re.ASCII
)
_PLAIN = re.compile(r"[^\s,\[\](){}'\"\\]+", re.ASCII)
_EQUALS = re.compile(r"\s*=", re.ASCII)
_COMMENT_IN_LINE = re.compile(r"(?<=\s)(?:#|//)", re.ASCII)
SINGLE_QUOTES = "'‘’‚‛"
DOUBLE_QUOTES = '"“”„‟'
_CLOSING = {"[": "]", "(": ")", "{": "}"}
_JOB_HINT = "a job is `[[item, item, ...],[option, option, ...]]`"


class _Parser:
    """A cursor over the source; each method leaves it behind what it has read."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.text = source.text
        self.pos = 0

    # Lines and sections

    def document(self) -> Document:
        document = Document(self.source)
        seen: dict[str, int] = {}
        section: str | None = None
        while not self._at_end():
            header = _HEADER.match(self.text, self.pos)
            if header:
                section = header[1]
                if section in seen:
                    raise self._error(
                        f"section `{section}` appears twice, first on line {seen[section]}",
                        header.start(1),
                        header.end(1),
                    )
                seen[section] = self.source.line(self.pos)
                self.pos = header.end()
            elif self._skip_blank_line():
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
            raise self._error(
                "no EXEC section, expected the header `EXEC` alone on a line",
                len(self.text),
                len(self.text),
                hint="the jobs to execute come after it",
            )
        if not document.entries:
            raise self._error(
                "the EXEC section is empty, expected a job",
                len(self.text),
                len(self.text),
                hint=_JOB_HINT,
            )
        return document

    def settings_only(self) -> list[Setting]:
        settings = []
        while not self._at_end():
            if not self._skip_blank_line():
                settings.append(self._setting())
        return settings

    def _not_a_header(self) -> HermesFileError:
        word = self._first_word()
        hint = did_you_mean(word.text.upper().rstrip(":"), SECTIONS)
        return self.source.error(
            "expected a section header: `PRE`, `STD-H`, `STD-E` or `EXEC`, alone on a line",
            word.span,
            hint=hint,
        )

    def _first_word(self) -> Word:
        match = _FIRST_WORD.match(self.text, self.pos)
        assert match, "only called where something other than white space follows"
        return Word(match[1], Span(match.start(1), match.end(1)))

    def _skip_blank_line(self) -> bool:
        """Skips the rest of this line if nothing but white space and a comment stands there."""
        blanks = _BLANKS.match(self.text, self.pos)
        start = blanks.end() if blanks else self.pos
        if (
            start < len(self.text)
            and self.text[start] != "\n"
            and not _COMMENT.match(self.text, start)
        ):
            return False
        self._skip_line()
        return True

    def _setting(self) -> Setting:
        word = self._first_word()
        start = word.span.start
        end = self._line_end()
        colon = self.text.find(":", start, end)
        if colon < 0:
            raise self.source.error(
                "expected `key: value`", word.span, hint=did_you_mean(word.text.upper(), SECTIONS)
            )
        key = self.text[start:colon].rstrip()
        if not key:
            raise self._error("expected a key before the `:`", colon, colon + 1)
        setting = Setting(
            Word(key, Span(start, start + len(key))), self._setting_value(colon + 1, end)
        )
        self._skip_line()
        return setting

    def _setting_value(self, start: int, end: int) -> Word:
        while start < end and self.text[start] in _SPACE:
            start += 1
        if _COMMENT.match(self.text, start, end) and self.text[start - 1] in _SPACE:
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
                raise self._error("the quote is never closed", start, start + 1)
            rest = self.text[stop + 1 : end].strip()
            if rest and not _COMMENT.match(rest):
                raise self._error("expected nothing after the closing quote", stop + 1, end)
            return Word(self.text[start + 1 : stop], Span(start, stop + 1))
        comment = _COMMENT_IN_LINE.search(self.text, start, end)
        value = self.text[start : comment.start() if comment else end].rstrip()
        return Word(value, Span(start, start + max(1, len(value))))

    def _words_of_line(self) -> list[Word]:
        words: list[Word] = []
        while True:
            self._skip_blanks()
            if self._at_end() or self.text[self.pos] == "\n" or _COMMENT.match(self.text, self.pos):
                self._skip_line()
                return words
            words.append(self._shell_word(ends="", multiline=False))

    # Entries

    def _entries(self, entries: list[Entry]) -> None:
        """Reads the entries that start on this line, each to its end, and the rest of the last one's line."""
        self._skip_blanks()
        while True:
            entries.append(self._entry(0))
            self._skip_blanks()
            if self._peek() == ",":
                self.pos += 1
                self._skip_blanks()
            if self._at_end() or self.text[self.pos] == "\n" or _COMMENT.match(self.text, self.pos):
                self._skip_line()
                return

    def _entry(self, depth: int) -> Entry:
        if depth > MAX_DEPTH:
            raise self._error(f"sweeps nested deeper than {MAX_DEPTH}", self.pos, self.pos + 1)
        start = self.pos
        if self._peek() == "[":
            return self._job()
        name = _NAME.match(self.text, self.pos)
        if name and name[0] in ("PROD", "ZIP"):
            self.pos = name.end()
            self._skip_gaps()
            if self._peek() != "(":
                raise self._unexpected(f"`(` after `{name[0]}`")
            return self._sweep("PROD" if name[0] == "PROD" else "ZIP", start, depth)
        if name:
            hint = did_you_mean(name[0].upper(), ("PROD", "ZIP")) or _JOB_HINT
            raise self._error(
                f"expected a job or a sweep, found `{name[0]}`", start, name.end(), hint=hint
            )
        raise self._unexpected("a job or a sweep", hint=_JOB_HINT)

    def _job(self) -> JobEntry:
        start = self.pos
        self.pos += 1
        self._skip_gaps()
        if self._peek() != "[":
            raise self._unexpected("`[` to open the list of items", opened=start, hint=_JOB_HINT)
        first = self.pos
        items = self._list()
        if not any(items):
            raise self._error(
                "the job is empty, expected a program", first, self.pos, hint=_JOB_HINT
            )
        options: tuple[Word, ...] = ()
        self._skip_gaps()
        if self._peek() == ",":
            self.pos += 1
            self._skip_gaps()
            if self._peek() == "[":
                options = tuple(word for item in self._list() for word in item)
                self._skip_gaps()
                if self._peek() == ",":
                    self.pos += 1
                    self._skip_gaps()
        if self._peek() != "]":
            raise self._unexpected("`]` to close the job", opened=start, hint=_JOB_HINT)
        self.pos += 1
        return JobEntry(tuple(items), options, Span(start, self.pos))

    def _sweep(self, kind: Literal["PROD", "ZIP"], start: int, depth: int) -> SweepEntry:
        self.pos += 1
        entries: list[Entry] = []
        axes: list[Axis] = []
        while True:
            self._skip_gaps()
            if self._peek() == ")":
                break
            name = _NAME.match(self.text, self.pos)
            if name and name[0] not in ("PROD", "ZIP") and _EQUALS.match(self.text, name.end()):
                axes.append(self._axis(name))
            elif self._at_end():
                raise self._unexpected("`)` to close the sweep", opened=start)
            else:
                entries.append(self._entry(depth + 1))
            self._skip_gaps(after_entry=True)
            if self._peek() == ",":
                self.pos += 1
            elif self._peek() != ")":
                raise self._unexpected("`,` or `)` in the sweep", opened=start)
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
        return SweepEntry(kind, tuple(entries), tuple(axes), span)

    def _axis(self, name: re.Match[str]) -> Axis:
        self.pos = self.text.index("=", name.end()) + 1
        self._skip_gaps()
        start = self.pos
        is_range = self.text.startswith("RANGE", start)
        if is_range:
            self.pos += len("RANGE")
            self._skip_gaps()
        if self._peek() != "[":
            raise self._unexpected(
                f"`[value, ...]` or `RANGE[start, stop, step]` after `{name[0]}=`"
            )
        values = tuple(self._value(item) for item in self._list())
        span = Span(start, self.pos)
        if not values:
            raise self.source.error(f"no values for `{name[0]}`", span)
        return Axis(Word(name[0], Span(name.start(), name.end())), values, is_range, span)

    def _value(self, item: Item) -> Word:
        """A sweep's value is text: the white space inside it stays."""
        text = item[0].text
        for before, word in pairwise(item):
            gap = self.text[before.span.end : word.span.start]
            text += (gap if gap.isspace() and "\n" not in gap else " ") + word.text
        return Word(text, Span(item[0].span.start, item[-1].span.end))

    def _list(self) -> list[Item]:
        """Reads `[item, item, ...]`, brackets and all; each item is split into words."""
        opened = self.pos
        self.pos += 1
        items: list[Item] = []
        words: list[Word] = []
        nested: list[int] = []
        while True:
            self._skip_gaps()
            if self._at_end():
                at = nested[-1] if nested else opened
                raise self._error(f"`{self.text[at]}` is never closed", at, at + 1)
            char = self.text[self.pos]
            if not nested and char in ",]":
                if words:
                    items.append(tuple(words))
                    words = []
                elif char == ",":
                    raise self._error("expected an item before the `,`", self.pos, self.pos + 1)
                self.pos += 1
                if char == "]":
                    return items
            else:
                words.append(self._shell_word(ends=",]", multiline=True, nested=nested))

    # Words and what lies between them

    def _shell_word(self, *, ends: str, multiline: bool, nested: list[int] | None = None) -> Word:
        """One word, split as a POSIX shell would (2.2 Quoting), where nothing is expanded.

        In a list, `nested` holds the offsets of the brackets that are open; while one is, `ends` do not end the word.
        """
        start = self.pos
        parts: list[str] = []
        while not self._at_end():
            plain = _PLAIN.match(self.text, self.pos)
            if plain:
                parts.append(plain[0])
                self.pos = plain.end()
                continue
            char = self.text[self.pos]
            if char in _SPACE or (char in ends and not nested):
                break
            if char in "'\"":
                parts.append(self._quoted(char, multiline))
            elif char == "\\":
                parts.append(self._escaped(multiline))
            else:
                if nested is not None:
                    self._count_bracket(char, nested)
                parts.append(char)
                self.pos += 1
        return Word("".join(parts), Span(start, self.pos))

    def _count_bracket(self, char: str, nested: list[int]) -> None:
        if char in "[({":
            nested.append(self.pos)
            if len(nested) > MAX_DEPTH:
                raise self._error(
                    f"brackets nested deeper than {MAX_DEPTH}", self.pos, self.pos + 1
                )
        elif char in "])}":
            if not nested:
                raise self._error(
                    f"`{char}` closes nothing",
                    self.pos,
                    self.pos + 1,
                    hint="quote it if it is text",
                )
            opening = self.text[nested[-1]]
            if _CLOSING[opening] != char:
                at = self.source.place(Span(nested[-1], nested[-1] + 1))
                raise self._error(
                    f"expected `{_CLOSING[opening]}` to close the `{opening}` of {at.line}:{at.column}, found `{char}`",
                    self.pos,
                    self.pos + 1,
                    hint="quote brackets that are text",
                )
            nested.pop()

    def _quoted(self, quote: str, multiline: bool) -> str:
        start = self.pos
        pattern = _IN_SINGLE if quote == "'" else _IN_DOUBLE
        match = pattern.match(self.text, start)
        if not match or ("\n" in match[0] and not multiline):
            raise self._error(
                "the quote is never closed",
                start,
                start + 1,
                hint="write `\\'` for an apostrophe" if quote == "'" else None,
            )
        self.pos = match.end()
        return (
            match[1]
            if quote == "'"
            else _ESCAPE_IN_DOUBLE.sub(lambda m: "" if m[1] == "\n" else m[1], match[1])
        )

    def _escaped(self, multiline: bool) -> str:
        follows = self.text[self.pos + 1 : self.pos + 2]
        if not follows or (follows == "\n" and not multiline):
            hint = "write `\\\\` for a backslash"
            raise self._error(
                "nothing comes after the `\\`, expected a character",
                self.pos,
                self.pos + 1,
                hint=hint,
            )
        self.pos += 2
        return "" if follows == "\n" else follows

    def _skip_gaps(self, *, after_entry: bool = False) -> None:
        """Skips white space, line ends (also those after a `\\`) and comments between the parts of an entry."""
        while not self._at_end():
            if self.text[self.pos] in _SPACE:
                self.pos += 1
            elif self.text.startswith("\\\n", self.pos):
                self.pos += 2
            elif _COMMENT.match(self.text, self.pos) and (
                after_entry or self.text[self.pos - 1] in _SPACE
            ):
                self._skip_line()
            else:
                return

    def _skip_blanks(self) -> None:
        blanks = _BLANKS.match(self.text, self.pos)
        if blanks:
            self.pos = blanks.end()

    def _skip_line(self) -> None:
        self.pos = min(self._line_end() + 1, len(self.text))

    def _line_end(self) -> int:
        end = self.text.find("\n", self.pos)
        return len(self.text) if end < 0 else end

    def _peek(self) -> str:
        return self.text[self.pos : self.pos + 1]

    def _at_end(self) -> bool:
        return self.pos >= len(self.text)

    # Errors

    def _error(
        self, message: str, start: int, end: int, *, hint: str | None = None
    ) -> HermesFileError:
        return self.source.error(message, Span(start, end), hint=hint)

    def _unexpected(
        self, expected: str, *, opened: int | None = None, hint: str | None = None
    ) -> HermesFileError:
        """What was expected here; at the end of the file, the place where the unfinished thing began is told instead."""
        if not self._at_end():
            return self._error(
                f"expected {expected}, found `{self._peek()}`", self.pos, self.pos + 1, hint=hint
            )
        at = self.pos if opened is None else opened
        return self._error(f"expected {expected}, found the end of the file", at, at + 1, hint=hint)


_IN_SINGLE = re.compile(r"'([^']*)'")
_IN_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE_IN_DOUBLE = re.compile(r'\\([$`"\\\n])')

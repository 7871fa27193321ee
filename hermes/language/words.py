"""A cursor over the text of a hermes file: words as a shell splits them, and what lies between."""

from __future__ import annotations

import re

from ..errors import HermesFileError
from .source import Source, Span, Word

MAX_DEPTH = 100
"""Sweeps inside sweeps, and brackets inside items, that are followed: far more than a person
writes, far less than Python's recursion limit."""

SPACE = " \t\n\r\f\v"
COMMENT = re.compile(r"#|//")
_CUT_OFF = re.compile(r"//[^\s/][^\n]*")
_BLANKS = re.compile(r"[^\S\n]+", re.ASCII)
_FIRST_WORD = re.compile(r"\s*(\S+)", re.ASCII)
_PLAIN = re.compile(r"[^\s,\[\](){}'\"\\]+", re.ASCII)
_CLOSING = {"[": "]", "(": ")", "{": "}"}
_IN_SINGLE = re.compile(r"'([^']*)'")
_IN_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE_IN_DOUBLE = re.compile(r'\\([$`"\\\n])')


def is_option(word: str) -> bool:
    """Whether the next word may be this word's value: `--lr`, and neither `-0.1` nor `--lr=1`."""
    named = word.lstrip("-")
    return word[:1] == "-" and named[:1] not in ("", *"0123456789.") and "=" not in word


class Cursor:
    """A position in the source; each method leaves it behind what it has read."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.text = source.text
        self.pos = 0
        self.cut_off: list[Span] = []
        self.comment: Span | None = None

    def first_word(self) -> Word:
        match = _FIRST_WORD.match(self.text, self.pos)
        assert match, "only called where something other than white space follows"
        return Word(match[1], Span(match.start(1), match.end(1)))

    def skip_blank_line(self) -> bool:
        """Skips the rest of this line if nothing but white space and a comment stands there."""
        blanks = _BLANKS.match(self.text, self.pos)
        start = blanks.end() if blanks else self.pos
        if (
            start < len(self.text)
            and self.text[start] != "\n"
            and not COMMENT.match(self.text, start)
        ):
            return False
        self.skip_line()
        return True

    def shell_word(self, *, ends: str, multiline: bool, nested: list[int] | None = None) -> Word:
        """One word, split as a POSIX shell would (2.2 Quoting), where nothing is expanded.

        In a list, `nested` holds the offsets of the brackets that are open; while one is, `ends`
        do not end the word.
        """
        start = self.pos
        parts: list[str] = []
        while not self.at_end():
            plain = _PLAIN.match(self.text, self.pos)
            if plain:
                parts.append(plain[0])
                self.pos = plain.end()
                continue
            char = self.text[self.pos]
            if char in SPACE or (char in ends and not nested):
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
                raise self.error(f"brackets nested deeper than {MAX_DEPTH}")
        elif char in "])}":
            if not nested:
                raise self.error(f"`{char}` closes nothing", hint="quote it if it is text")
            opening = self.text[nested[-1]]
            if _CLOSING[opening] != char:
                at = self.source.place(Span(nested[-1], nested[-1] + 1))
                raise self.error(
                    f"expected `{_CLOSING[opening]}` to close the `{opening}` of "
                    f"{at.line}:{at.column}, found `{char}`",
                    hint="quote brackets that are text",
                )
            nested.pop()

    def _quoted(self, quote: str, multiline: bool) -> str:
        start = self.pos
        pattern = _IN_SINGLE if quote == "'" else _IN_DOUBLE
        match = pattern.match(self.text, start)
        if not match or ("\n" in match[0] and not multiline):
            hint = "write `\\'` for an apostrophe" if quote == "'" else None
            raise self.error("the quote is never closed", start, hint=hint)
        self.pos = match.end()
        if quote == "'":
            return match[1]
        return _ESCAPE_IN_DOUBLE.sub(lambda m: "" if m[1] == "\n" else m[1], match[1])

    def _escaped(self, multiline: bool) -> str:
        follows = self.text[self.pos + 1 : self.pos + 2]
        if not follows or (follows == "\n" and not multiline):
            raise self.error(
                "nothing comes after the `\\`, expected a character",
                hint="write `\\\\` for a backslash",
            )
        self.pos += 2
        return "" if follows == "\n" else follows

    def skip_gaps(self, *, after_entry: bool = False) -> None:
        """Skips what lies between the parts of an entry: white space, line ends, comments.

        A line end may stand after a `\\`.
        """
        while not self.at_end():
            if self.text[self.pos] in SPACE:
                self.pos += 1
            elif self.text.startswith("\\\n", self.pos):
                self.pos += 2
            elif COMMENT.match(self.text, self.pos) and (
                after_entry or self.text[self.pos - 1] in SPACE
            ):
                if not after_entry:
                    self.note_comment(self.pos)
                self.comment = Span(self.pos, self.line_end())
                self.skip_line()
            else:
                return

    def note_comment(self, start: int) -> None:
        """Remembers a comment that may be a word: `//host/share` behind other words."""
        match = _CUT_OFF.match(self.text, start)
        line = self.text[self.text.rfind("\n", 0, start) + 1 : start]
        if match and line.strip():
            self.cut_off.append(Span(start, match.end()))

    def skip_blanks(self) -> None:
        blanks = _BLANKS.match(self.text, self.pos)
        if blanks:
            self.pos = blanks.end()

    def skip_line(self) -> None:
        self.pos = min(self.line_end() + 1, len(self.text))

    def line_end(self) -> int:
        end = self.text.find("\n", self.pos)
        return len(self.text) if end < 0 else end

    def peek(self) -> str:
        return self.text[self.pos : self.pos + 1]

    def at_end(self) -> bool:
        return self.pos >= len(self.text)

    def at_line_end(self) -> bool:
        """Whether nothing, or a comment, follows on this line."""
        at = self.text[self.pos : self.pos + 1]
        return at in ("", "\n") or COMMENT.match(self.text, self.pos) is not None

    # Errors

    def error(
        self,
        message: str,
        start: int | None = None,
        end: int | None = None,
        *,
        hint: str | None = None,
    ) -> HermesFileError:
        """An error at a stretch of the text, by default the one character at the cursor."""
        first = self.pos if start is None else start
        return self.source.error(message, Span(first, first + 1 if end is None else end), hint=hint)

    def unexpected(
        self, expected: str, *, opened: int | None = None, hint: str | None = None
    ) -> HermesFileError:
        """What was expected here.

        At the end of the file the place is where the unfinished thing began, at `opened`.
        """
        if not self.at_end():
            return self.error(f"expected {expected}, found `{self.peek()}`", hint=hint)
        return self.error(f"expected {expected}, found the end of the file", opened, hint=hint)

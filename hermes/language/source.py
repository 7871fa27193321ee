"""The text of a file, its words, and the way from both to a place that a person can find."""

from __future__ import annotations

import errno
import os
import re
import stat
from bisect import bisect_right
from typing import NamedTuple

from ..errors import HermesFileError, Place, escape
from .characters import oddity

_MAY_BE_SECRET = re.compile(r"\s*(?:notify|bot_id|chat_id)\b|.*://")


LARGEST = 2**28
"""Bytes of a file that is read. The devices of a system have no end."""


def read_given(path: str | os.PathLike[str], *, waits: bool = True) -> bytes:
    """What is in a file that people have written, wherever links lead.

    It may be a pipe, as `<(command)` gives one. Unless `waits`, that is an `OSError`.
    """
    fd = os.open(path, os.O_RDONLY | (0 if waits else os.O_NONBLOCK))
    with open(fd, "rb") as file:
        mode = os.fstat(fd).st_mode
        if not waits and (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
            raise OSError(errno.EINVAL, "not a regular file", path)
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise OSError(errno.EFBIG, f"it has more than {LARGEST >> 20} MiB", path)
    return data


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

    def without_secrets(self, start: int) -> Source:
        """The same text, but stars from `start` to the end of its line if that line is a setting
        which may hold secrets: as many as there were characters, so that places stay."""
        first = self.text.rfind("\n", 0, start) + 1
        end = self.text.find("\n", start)
        end = len(self.text) if end < 0 else end
        if not _MAY_BE_SECRET.match(self.text, first, end):
            return self
        return self._replace(text=f"{self.text[:start]}{'*' * (end - start)}{self.text[end:]}")

    def line(self, offset: int) -> int:
        return bisect_right(self.starts, offset)

    def place(self, span: Span) -> Place:
        line = self.line(span.start)
        start = self.starts[line - 1]
        end = self.starts[line] - 1 if line < len(self.starts) else len(self.text)
        width = max(1, min(span.end, end) - span.start)
        return Place(self.path, line, span.start - start + 1, width, self.text[start:end])

    def at(self, span: Span) -> str:
        """Where a warning is about, as it begins: `sweep.hermes:7`."""
        return f"{escape(self.path)}:{self.line(span.start)}"

    def error(self, message: str, span: Span, *, hint: str | None = None) -> HermesFileError:
        """A mistake. Of characters that only look like others nobody sees that they are wrong."""
        odd = oddity(self.text[span.start : span.end])
        hint = f"it {odd}" if odd else hint
        return HermesFileError(message, self.place(span), hint=hint)


class Word(NamedTuple):
    """A word after its quotes are taken away, and where it stood."""

    text: str
    span: Span

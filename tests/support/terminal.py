"""A terminal that shows what a command prints on it."""

from __future__ import annotations

import codecs
import errno
import os
import re
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import ptyprocess  # type: ignore[import-untyped]

from .waiting import LIMIT, until

T = TypeVar("T")


class Terminal:
    """A command on a terminal of its own, as its session's leader."""

    def __init__(
        self, command: list[str], folder: Path, env: dict[str, str], rows: int, columns: int
    ) -> None:
        self.process = ptyprocess.PtyProcess.spawn(
            command, cwd=str(folder), env=env, dimensions=(rows, columns)
        )
        self.screen = Screen(rows, columns)
        self.raw = b""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        # Not `close`, which waits: whatever still runs here is a failed test's
        self.process.kill(signal.SIGKILL) if self.process.isalive() else None
        if not self.process.closed:
            self.process.fileobj.close()
            self.process.closed = True

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    def read(self, seconds: float = 0.0) -> bool:
        """Takes what has come, and waits for it that long. False when there will be no more."""
        if not select.select([self.process.fd], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.process.fd, 65536)
        except OSError as exc:
            # How Linux says that nobody has the other end any more
            if exc.errno != errno.EIO:
                raise
            data = b""
        self.raw += data
        self.screen.feed(data)
        return bool(data)

    def until(self, condition: Callable[[], T | None]) -> T:
        """Shows what the command prints until `condition` gives something true; returns that."""
        ends = time.monotonic() + LIMIT
        while not (found := condition()):
            assert time.monotonic() < ends, "waited in vain, the screen shows\n" + "\n".join(
                self.screen.lines
            )
            if not self.read(0.02):
                time.sleep(0.005)
        return found

    def shows(self, pattern: str) -> re.Match[str]:
        """Waits until a line on the screen matches."""

        def found() -> re.Match[str] | None:
            return next(
                (match for line in self.screen.lines if (match := re.search(pattern, line))), None
            )

        return self.until(found)

    def resize(self, columns: int) -> None:
        """Makes the window narrower or wider."""
        while self.read(0.0) and select.select([self.process.fd], [], [], 0.0)[0]:
            pass
        self.process.setwinsize(self.screen.rows, columns)
        self.screen.resize(columns)

    def close(self) -> None:
        """What happens when somebody closes the window."""
        self.process.fileobj.close()
        self.process.closed = True

    def end(self) -> int:
        """Waits for the command's end and returns what a shell would: its exit code, or 128 and the
        number of the signal.
        """
        ends = time.monotonic() + LIMIT
        while not self.process.closed and self.read(0.1):
            assert time.monotonic() < ends, "does not end, the screen shows\n" + "\n".join(
                self.screen.lines
            )
        until(lambda: not self.process.isalive())
        if self.process.signalstatus is not None:
            return 128 + int(self.process.signalstatus)
        return int(self.process.exitstatus)


_CONTROL = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])|\x1b\][^\x07]*\x07|[\r\n\b\t]|[^\x1b\r\n\b\t]+")


class Screen:
    """What a terminal shows: as much of one as progress displays use. Unknown sequences are an
    error.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        self.history: list[str] = []
        """Lines that have moved out at the top."""
        self.cursor_shown = True
        self._lines = [""]
        self._row = self._column = 0
        self._rest = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._lines]

    @property
    def text(self) -> str:
        """Everything that somebody could scroll back to."""
        return "\n".join([*(line.rstrip() for line in self.history), *self.lines])

    def feed(self, data: bytes) -> None:
        text = self._rest + self._decoder.decode(data)
        # A sequence may come in two pieces
        unfinished = re.search(r"\x1b(\[[?\d;]*|\][^\x07]*)?$", text)
        self._rest = text[unfinished.start() :] if unfinished else ""
        text = text.removesuffix(self._rest)
        position = 0
        while position < len(text):
            match = _CONTROL.match(text, position)
            assert match, f"cannot show {text[position : position + 20]!r}"
            position = match.end()
            if match[2]:
                self._control(match[1], match[2])
            elif match[0] == "\r":
                self._column = 0
            elif match[0] == "\n":
                self._down()
            elif not match[0].startswith("\x1b"):
                self._write(match[0])

    def resize(self, columns: int) -> None:
        """Breaks the lines that are too long now; those that were broken stay so. The cursor has to
        stand at the end of its line, as progress displays leave it."""
        broken: list[str] = []
        row = 0
        for index, line in enumerate(self.lines):
            broken += [line[at : at + columns] for at in range(0, len(line), columns)] or [""]
            row = len(broken) - 1 if index == self._row else row
        out = max(0, len(broken) - self.rows)
        self.columns = columns
        self.history += broken[:out]
        self._lines = broken[out:]
        self._row = row - out
        self._column = len(self._lines[self._row])

    def _control(self, numbers: str, letter: str) -> None:
        if letter == "A":
            self._row = max(0, self._row - int(numbers or 1))
        elif letter == "K":
            assert numbers == "2"
            self._lines[self._row] = ""
        elif letter in "hl" and numbers == "?25":
            self.cursor_shown = letter == "h"
        else:
            assert letter == "m", f"cannot show {numbers}{letter}"

    def _write(self, text: str) -> None:
        for char in text:
            if self._column == self.columns:
                self._column = 0
                self._down()
            line = self._lines[self._row].ljust(self._column)
            self._lines[self._row] = line[: self._column] + char + line[self._column + 1 :]
            self._column += 1

    def _down(self) -> None:
        self._row += 1
        if self._row == len(self._lines):
            self._lines.append("")
        if self._row == self.rows:
            self.history.append(self._lines.pop(0))
            self._row -= 1

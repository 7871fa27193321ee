"""Hermes as people use it: the command in a folder of its own, and a terminal that shows what it prints."""

from __future__ import annotations

import codecs
import errno
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import ptyprocess  # type: ignore[import-untyped]

import hermes
from hermes import Status
from hermes.executors.processes import processes_of

from .project import LIMIT, Project

T = TypeVar("T")

HERMES = (sys.executable, "-m", "hermes")

PYTHON = f"{hermes.quote(sys.executable)} -S"
"""An interpreter that starts fast, as the first item of a job."""

IDENTIFIER = re.compile(r"\d{4}_\d\d_\d\d_\d{12}_[0-9a-f]{5}")

LEFT_BEHIND = "left processes behind: "
"""What stands before the process ids in a problem that names them."""

TRAIN = """\
import os, sys
identifier, *arguments = sys.argv[1:]
with open("model_" + identifier + ".txt", "w") as file:
    file.write(" ".join(arguments))
"""
"""A job that saves a file named by its identifier."""

JOB = f"[[{PYTHON}, train.py, --lr 0.1]]"

LONG = bool(os.environ.get("HERMES_LONG_TESTS"))
"""Whether faults are caused as often as `nox -s faults` does."""

UNWANTED = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "PYTEST_CURRENT_TEST")


MakeDesk = Callable[[str], "Desk"]
"""The fixture `make_desk`."""

RecordProperty = Callable[[str, object], None]
"""pytest's fixture `record_property`."""


def times(short: int, long: int) -> int:
    """How often a fault is caused: `short` in the default suite, `long` in `nox -s faults`."""
    return long if LONG else short


def tries(record_property: RecordProperty, short: int, long: int) -> range:
    """Counts the times that a fault is caused, of which the report of `nox -s faults` tells."""
    count = times(short, long)
    record_property("tried", count)
    return range(count)


def until(condition: Callable[[], T | None]) -> T:
    """Waits until `condition` gives something true, and returns that."""
    ends = time.monotonic() + LIMIT
    while not (found := condition()):
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.005)
    return found


def is_alive(pid: int) -> bool:
    """Whether a process that is no child of the tests still runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return bool(state.strip()) and not state.startswith("Z")


def environment(changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """The environment of a person at a terminal with colours; None takes a variable away."""
    found: dict[str, str | None] = {
        **os.environ,
        **dict.fromkeys(UNWANTED),
        "TERM": "xterm-256color",
        **(changes or {}),
    }
    return {name: value for name, value in found.items() if value is not None}


class Desk(Project):
    """A working directory, and the command `hermes` in it."""

    def command(self, *arguments: str) -> list[str]:
        """A call of `hermes`."""
        return [*HERMES, *arguments]

    def hermes(
        self,
        *arguments: str,
        code: int = 0,
        env: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Calls `hermes`, which has to end with this exit code."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=cwd or self.path,
            env=environment(env),
            **(
                {
                    "stdin": subprocess.DEVNULL,
                    "capture_output": True,
                    "timeout": LIMIT,
                    "check": False,
                    "text": True,
                }
                | options
            ),
        )
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    @contextmanager
    def started(self, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
        """A call of `hermes` that goes on in the background; it is killed if the test leaves it behind."""
        pipes = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
        }
        with subprocess.Popen(
            self.command(*arguments), cwd=self.path, env=environment(), **(pipes | options)
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def terminal(
        self,
        *arguments: str,
        rows: int = 24,
        columns: int = 100,
        env: Mapping[str, str | None] | None = None,
    ) -> Terminal:
        return Terminal(self.command(*arguments), self.path, environment(env), rows, columns)


def check_always(desk: Desk, *said: str) -> None:
    """What holds after every fault; `said` is what Hermes printed. Jobs that have no final status yet get one by `hermes resume`."""
    told = list(said)
    for run_id in sorted(
        {str(each["run_id"]) for each in all_metadata(desk) if each["status"] == Status.RUNNING}
    ):
        with desk.started("resume", run_id) as resumed:
            told += resumed.communicate(timeout=LIMIT)
        assert resumed.returncode in (0, 1), told[-1]
    traces = [text for text in told if "Traceback" in text]
    assert not traces, traces[0]
    metadata = all_metadata(desk)
    assert [
        each["identifier"]
        for each in metadata
        if each["status"] not in set(Status) - {Status.RUNNING}
    ] == []
    identifiers = [
        folder.name
        for folder in desk.experiments_folder.glob("*/*/*/")
        if IDENTIFIER.fullmatch(folder.name)
    ]
    assert [identifier for identifier, count in Counter(identifiers).items() if count > 1] == []
    # A process that the metadata tell of may live on, but none of which nobody knows
    problems = [
        problem
        for each in metadata
        for problem in each["problems"]
        if problem.startswith(LEFT_BEHIND)
    ]
    known = {
        int(pid) for problem in problems for pid in problem.removeprefix(LEFT_BEHIND).split(", ")
    }
    runs = {str(each["run_id"]) for each in metadata} | {
        path.name for path in desk.experiments_folder.glob(".hermes/*/")
    }
    alive = {
        pid
        for run_id, pids in processes_of("HERMES_RUN_ID").items()
        if run_id in runs
        for pid in pids
    }
    assert alive <= known


def all_metadata(desk: Desk) -> list[dict[str, Any]]:
    """The metadata of all experiments, each of which has to be whole."""
    found = []
    for path in sorted(desk.experiments_folder.glob("*/*/*/hermes.json")):
        metadata = json.loads(path.read_bytes())
        assert metadata["identifier"] == path.parent.name
        found.append(metadata)
    return found


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
        """Shows what the command prints until `condition` gives something true, and returns that."""
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

    def close(self) -> None:
        """What happens when somebody closes the window."""
        self.process.fileobj.close()
        self.process.closed = True

    def end(self) -> int:
        """Waits for the command's end and returns what a shell would: its exit code, or 128 and the number of the signal."""
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
    """What a terminal shows: as much of one as progress displays use. Unknown sequences are an error."""

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
